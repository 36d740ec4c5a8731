//! Databases that were restored, or copied to another server by logical replication.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_devstack::{Cluster, Service};
use sqlx::AssertSqlSafe;

use crate::bed::{Bed, saga};
use crate::client::order_for;
use crate::invariants;

/// More rows than tries in a request's time.
const ROWS: u32 = 100;

/// Leaves a sequence at its begin, as a copy of the rows alone does.
async fn leave_behind(bed: &Bed, cluster: Cluster, sequence: &str) -> Result<()> {
    let statement = format!("SELECT setval('{sequence}', 1, false)");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(bed.sql(cluster)).await?;
    Ok(())
}

#[test]
fn a_sequence_behind_its_table_is_moved_past_it_at_once() -> Result<()> {
    const AT_ONCE: Duration = Duration::from_secs(4);
    saga(async |bed| {
        let item = bed.add_item(2 * ROWS + 1).await?;
        let order = order_for(item);
        let place_many = async || try_join_all((0..ROWS).map(|_| bed.place(&order))).await;
        let highest = place_many().await?.into_iter().max().unwrap_or_default();
        // A service that is started anew has no ids in hand.
        let restart = async || {
            leave_behind(bed, Cluster::CreateOrder, "order_id_seq").await?;
            bed.services[&Service::CreateOrder].terminate().await?;
            bed.start(Service::CreateOrder).await
        };
        restart().await?;
        let begin = Instant::now();
        let next = bed.place(&order).await?;
        ensure!(begin.elapsed() < AT_ONCE, "after {:?}", begin.elapsed());
        ensure!(next > highest, "{next} after {highest}");
        // Many at once, who all find that their ids are taken.
        restart().await?;
        let more: BTreeSet<_> = place_many().await?.into_iter().collect();
        ensure!(more.len() == ROWS as usize && more.first() > Some(&next), "{more:?}");

        let add_many = async || try_join_all((0..ROWS).map(|_| bed.add_item(1))).await;
        let highest = add_many().await?.into_iter().max().unwrap_or_default();
        leave_behind(bed, Cluster::Store, "item_item_id_seq").await?;
        let begin = Instant::now();
        ensure!(bed.add_item(1).await? > highest);
        ensure!(begin.elapsed() < AT_ONCE, "after {:?}", begin.elapsed());
        leave_behind(bed, Cluster::Store, "item_item_id_seq").await?;
        let more: BTreeSet<_> = add_many().await?.into_iter().collect();
        ensure!(more.len() == ROWS as usize && more.first() > Some(&highest), "{more:?}");
        invariants::hold(bed).await
    })
}

#[test]
fn skipping_taken_ids_never_moves_a_sequence_back() -> Result<()> {
    saga(async |bed| {
        bed.place(&order_for(1)).await?;
        for (service, sequence, skip) in [
            (Service::CreateOrder, "order_id_seq", "skip_taken_order_ids"),
            (Service::Store, "item_item_id_seq", "skip_taken_item_ids"),
        ] {
            let database = bed.sql(service.cluster());
            let statement = format!("SELECT setval('{sequence}', 1000); SELECT {skip}()");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(database).await?;
            let last = format!("SELECT last_value FROM {sequence}");
            let last: i64 = sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(database).await?;
            ensure!(last == 1000, "{sequence} went back to {last}");
        }
        Ok(())
    })
}
