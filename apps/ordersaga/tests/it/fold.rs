//! The fold that every status is, as clients can try it.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Service;
use serde_json::{Value, json};

use crate::bed::{Bed, saga};
use crate::client::{Answer, FOLD, order_for};

async fn fold(bed: &Bed, facts: &Value, tellings: &[Vec<usize>]) -> Result<Answer> {
    let tellings: Vec<_> = tellings.iter().map(|places| json!({"places": places})).collect();
    let body = json!({"facts": facts, "tellings": tellings});
    bed.post(Service::Monitoring, FOLD, Some(&body)).await
}

/// All orders of the first so many places.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = orders(last);
    let places = shorter.iter().flat_map(|order| {
        (0..=order.len()).map(|at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    });
    places.collect()
}

#[test]
fn the_facts_of_an_order_make_its_status_in_every_order() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "SHIPPING").await?;
        bed.cancel(order).await?;
        let status = loop {
            let status = bed.reaches(order, "CANCELLED").await?;
            if status["facts"].as_array().is_some_and(|facts| facts.len() == 4) {
                break status;
            }
        };
        let mut all = orders(4);
        ensure!(all.len() == 24, "{all:?}");
        // And each again, some of it twice.
        let twice: Vec<_> = all.iter().map(|order| [&order[..], &order[1..3]].concat()).collect();
        all.extend(twice);
        let folded = fold(bed, &status["facts"], &all).await?.expect(200)?;
        ensure!(folded["reached"] == json!(vec![0; 48]), "{folded}");
        let [one] = &folded["statuses"].as_array().context("no statuses")?[..] else {
            anyhow::bail!("not one status: {folded}");
        };
        for (name, value) in one.as_object().context("no status")? {
            ensure!(status[name] == *value, "{name}: {one} is not {status}");
        }

        // Without some it may be another.
        let fewer = [vec![], vec![0], vec![0, 1], vec![1, 0], vec![0, 1, 2]];
        let folded = fold(bed, &status["facts"], &fewer).await?.expect(200)?;
        ensure!(folded["reached"] == json!([0, 1, 2, 2, 3]), "{folded}");
        let steps: Vec<_> = (0..4).map(|at| folded["statuses"][at]["step"].as_str()).collect();
        let expected = [None, Some("UNDER_RESERVATION"), Some("SHIPPING"), Some("CANCELLED")];
        ensure!(steps == expected, "{folded}");
        Ok(())
    })
}

#[test]
fn what_cannot_be_folded_is_refused() -> Result<()> {
    saga(async |bed| {
        let placed = json!({"fact": "PLACED", "time": "2026-11-28T12:00:00Z"});
        let with = |name: &str, value: &str| {
            let mut fact = placed.clone();
            fact[name] = json!(value);
            json!([fact])
        };
        let one = json!([placed]);
        for (facts, tellings, field) in [
            (&json!([]), vec![vec![0]], "facts"),
            (&json!(vec![placed.clone(); 21]), vec![vec![0]], "facts"),
            (&one, vec![], "tellings"),
            (&one, vec![vec![]; 101], "tellings"),
            (&one, vec![vec![0], vec![0, 1]], "tellings[1].places[1]"),
            (&one, vec![vec![0; 21]], "tellings[0].places"),
            (&with("fact", "CANCELLED"), vec![vec![0]], "facts[0].initiator"),
            (&with("reason", "OUT_OF_STOCK"), vec![vec![0]], "facts[0].reason"),
            (&with("fact", "SHIPPED"), vec![vec![0]], "facts[0].fact"),
            (&with("order_id", "1"), vec![vec![0]], "facts[0].order_id"),
        ] {
            let answer = fold(bed, facts, &tellings).await?;
            answer.is_problem(422, "invalid-field", Some(field))?;
        }
        Ok(())
    })
}
