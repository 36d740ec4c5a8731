//! The invariants, as most tests end with them.

use anyhow::{Result, ensure};
use ordersaga_checker::Evidence;

use crate::bed::{Bed, WITHIN};

/// Waits until nothing is on its way any more.
pub(crate) async fn at_rest(bed: &Bed) -> Result<()> {
    bed.onlooker().at_rest(WITHIN).await
}

/// Waits until the system is at rest and checks every invariant.
pub(crate) async fn hold(bed: &Bed) -> Result<()> {
    at_rest(bed).await?;
    let onlooker = bed.onlooker();
    let evidence = Evidence::gather(&onlooker, bed.book()).await?;
    let violations = evidence.violations(&onlooker).await?;
    let stories: Vec<_> = violations.iter().filter_map(|one| one.order).take(3).collect();
    let stories: Vec<_> = stories.into_iter().map(|order| evidence.story(order)).collect();
    ensure!(violations.is_empty(), "{violations:#?}\n{stories:#?}");
    Ok(())
}
