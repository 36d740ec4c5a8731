//! Lists of orders, items and reservations, and counts, as clients get them.

use std::cmp::Reverse;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Service};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, block_on, saga, until};
use crate::client::{ADD, Answer, ITEMS, ORDERS, RESERVATIONS, STATS, STUCK, order_for};
use crate::invariants;

/// A list that comes page by page.
#[derive(Clone, Copy)]
struct List {
    service: Service,
    path: &'static str,
    /// What its pages go by.
    id: &'static str,
}

const OF_ORDERS: List = List { service: Service::Monitoring, path: ORDERS, id: "order_id" };
const OF_ITEMS: List = List { service: Service::Store, path: ITEMS, id: "item_id" };
const OF_RESERVATIONS: List = List { service: Service::Store, path: RESERVATIONS, id: "order_id" };

impl List {
    async fn ask(self, bed: &Bed, query: &str) -> Result<Answer> {
        bed.get(self.service, &format!("{}?{query}", self.path)).await
    }

    async fn page(self, bed: &Bed, query: &str) -> Result<Value> {
        self.ask(bed, query).await?.expect(200)
    }

    /// The ids of all that a query finds, page by page.
    async fn all(self, bed: &Bed, query: &str) -> Result<Vec<i64>> {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.page(bed, &format!("{query}{after}")).await?;
            listed.extend(rows(&page).filter_map(|row| row[self.id].as_i64()));
            let Some(next) = page["next"].as_i64() else { return Ok(listed) };
            after = format!("&after={next}");
        }
    }
}

fn rows(page: &Value) -> impl Iterator<Item = &Value> {
    page["items"].as_array().into_iter().flatten()
}

#[test]
fn orders_of_both_shards_are_listed_newest_first_as_their_status_has_them() -> Result<()> {
    saga(async |bed| {
        let mut placed = Vec::new();
        for client in (1..=3).cycle().take(24) {
            let order = json!({"item_id": 1000, "seller_id": 1, "client_id": client});
            placed.push((bed.place(&order).await?, client));
        }
        let (cancelled, client) = placed[5];
        bed.cancel(cancelled).await?;
        for (order, _) in &placed {
            let step = if *order == cancelled { "CANCELLED" } else { "SHIPPING" };
            bed.reaches(*order, step).await?;
        }
        placed.sort_unstable();
        placed.reverse();
        let newest: Vec<_> = placed.iter().map(|(order, _)| *order).collect();
        for limit in [1, 7, 24, 200] {
            ensure!(OF_ORDERS.all(bed, &format!("limit={limit}")).await? == newest, "by {limit}");
        }
        let of_client: Vec<_> =
            placed.iter().filter(|order| order.1 == client).map(|order| order.0).collect();
        let query = format!("client_id={client}&limit=3");
        ensure!(OF_ORDERS.all(bed, &query).await? == of_client, "{query}");
        ensure!(OF_ORDERS.all(bed, "step=CANCELLED").await? == [cancelled]);
        ensure!(OF_ORDERS.all(bed, "step=SHIPPING&client_id=9").await?.is_empty());

        let whole = OF_ORDERS.page(bed, "").await?;
        ensure!(whole["missing_shards"] == json!([]) && whole["scanned"] == 24, "{whole}");
        let shards: Vec<_> = rows(&whole).map(|order| order["shard"].clone()).collect();
        ensure!(
            ["shard1", "shard2"].iter().all(|shard| shards.contains(&json!(shard))),
            "{shards:?}"
        );
        for order in rows(&whole) {
            let id = order["order_id"].as_i64().context("no id")?;
            ensure!(bed.status(id).await? == *order, "the list and the status differ: {order}");
        }
        let middle =
            bed.status(newest[12]).await?["created_at"].as_str().unwrap_or_default().to_owned();
        let (since, before) = (
            OF_ORDERS.all(bed, &format!("from={middle}")).await?,
            OF_ORDERS.all(bed, &format!("to={middle}")).await?,
        );
        ensure!(since.contains(&newest[12]) && !before.contains(&newest[12]));
        ensure!(since.len() + before.len() == newest.len(), "{since:?} {before:?}");
        until("the list says of when it is", async || {
            Ok(OF_ORDERS.page(bed, "").await?["as_of"].is_string())
        })
        .await?;
        invariants::hold(bed).await
    })
}

#[test]
fn orders_of_a_node_that_is_away_are_said_to_be_missing() -> Result<()> {
    let plan = Plan::default().alone();
    block_on(plan.run(async |bed| {
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        // Nobody may read there: as good as away, and only for this test.
        sqlx::raw_sql("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM ordersaga_fdw")
            .execute(bed.sql(Cluster::Shard2))
            .await?;
        let page = OF_ORDERS.page(bed, "").await?;
        ensure!(page["missing_shards"] == json!(["shard2"]), "{page}");
        sqlx::raw_sql("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM ordersaga_fdw")
            .execute(bed.sql(Cluster::Shard1))
            .await?;
        OF_ORDERS.ask(bed, "").await?.is_problem(503, "unavailable", None)
    }))
}

/// What items are called: wildcards of SQL, letters of several bytes, one letter in both cases, a
/// name that another begins with, and one twice.
const NAMES: [&str; 14] = [
    "50% off",
    "50%",
    "50x off",
    "500 g",
    "a_b",
    "a_",
    "axb",
    "Сок",
    "Сок 👩",
    "Сок яблочный",
    "Соль",
    "сок",
    "Сок",
    "漢字",
];

/// The items of one seller, or of all, whose names begin so, in the order in which they are listed.
fn expected(items: &[(String, i64, i64)], seller: Option<i64>, name: Option<&str>) -> Vec<i64> {
    let mut found: Vec<_> = items
        .iter()
        .filter(|item| seller.is_none_or(|seller| item.2 == seller))
        .filter(|item| name.is_none_or(|name| item.0.starts_with(name)))
        .collect();
    match name {
        Some(_) => found.sort(),
        None => found.sort_by_key(|item| Reverse(item.1)),
    }
    found.into_iter().map(|item| item.1).collect()
}

#[test]
fn items_are_listed_newest_first_or_by_name_whatever_the_filters() -> Result<()> {
    saga(async |bed| {
        for (name, seller) in NAMES.into_iter().zip([1, 2].into_iter().cycle()) {
            let item = json!({"seller_id": seller, "price": 100, "name": name, "quantity": 9});
            bed.post(Service::Store, ADD, Some(&item)).await?.expect(201)?;
        }
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let items: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT name, item_id, seller_id FROM item")
                .fetch_all(bed.sql(Cluster::Store))
                .await?;
        let names = ["5", "50%", "%", "a_", "_", "Со", "Сок", "сок", "漢", "IPHONE 13", "none"];
        for name in names.map(Some).into_iter().chain([None]) {
            for seller in [None, Some(1), Some(2), Some(77)] {
                let found = expected(&items, seller, name);
                let by_name = name.map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC));
                let by_name = by_name.map(|name| format!("name={name}&")).unwrap_or_default();
                let by_seller = seller.map(|seller| format!("seller_id={seller}&"));
                let filters = by_name + &by_seller.unwrap_or_default();
                for limit in [1, 3, 200] {
                    let query = format!("{filters}limit={limit}");
                    let listed = OF_ITEMS.all(bed, &query).await?;
                    ensure!(listed == found, "{name:?}, {query}: {listed:?}, not {found:?}");
                }
            }
        }
        for item in rows(&OF_ITEMS.page(bed, "").await?) {
            let found = bed.item(item["item_id"].as_i64().context("no id")?).await?;
            ensure!(item["item_name"] == found["item_name"], "{item} {found}");
            for same in ["seller_id", "price", "quantity", "available", "reserved"] {
                ensure!(item[same].is_i64() && item[same] == found[same], "{same}: {item} {found}");
            }
        }
        invariants::hold(bed).await
    })
}

#[test]
fn reservations_of_an_item_are_listed_newest_order_first_and_stay_when_released() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(30).await?;
        let of_seven = json!({"item_id": item, "seller_id": 1, "client_id": 7});
        let order = |quantity: u32| {
            let mut order = of_seven.clone();
            order["quantity"] = quantity.into();
            order
        };
        let mut orders = Vec::new();
        for _ in 0..5 {
            let placed = bed.place(&order(2)).await?;
            bed.reaches(placed, "SHIPPING").await?;
            orders.push(placed);
        }
        let cancelled = orders[2];
        bed.cancel(cancelled).await?;
        let refused = bed.place(&order(31)).await?;
        bed.reaches(refused, "CANCELLED").await?;
        invariants::hold(bed).await?;

        orders.sort_unstable();
        orders.reverse();
        for limit in [1, 2, 200] {
            let query = format!("item_id={item}&limit={limit}");
            ensure!(OF_RESERVATIONS.all(bed, &query).await? == orders, "{query}");
        }
        let page = OF_RESERVATIONS.page(bed, &format!("item_id={item}")).await?;
        for held in rows(&page) {
            let state = if held["order_id"] == cancelled { "RELEASED" } else { "RESERVED" };
            ensure!(held["state"] == state, "{held}");
            ensure!(held["client_id"] == 7 && held["quantity"] == 2, "{held}");
        }
        let shown = |held: &Value| json!([held["order_id"], held["state"], held["time"]]);
        let found = bed.item(item).await?;
        let found = found["reservations"].as_array().into_iter().flatten().map(shown);
        ensure!(rows(&page).map(shown).eq(found), "the list and the item differ: {page}");

        let none = OF_RESERVATIONS.page(bed, "item_id=2").await?;
        ensure!(none == json!({"items": []}), "{none}");
        let unknown = OF_RESERVATIONS.ask(bed, "item_id=77").await?;
        unknown.is_problem(404, "not-found", None)
    })
}

#[test]
fn a_page_of_the_store_has_a_size_within_bounds_and_filters_that_can_be_met() -> Result<()> {
    saga(async |bed| {
        sqlx::raw_sql(
            "INSERT INTO item (seller_id, name, price) \
             SELECT 5, 'many', 1 FROM generate_series(1, 60)",
        )
        .execute(bed.sql(Cluster::Store))
        .await?;
        for (query, size) in [("", 50), ("&limit=59", 59), ("&limit=60", 60), ("&limit=200", 60)] {
            let page = OF_ITEMS.page(bed, &format!("seller_id=5{query}")).await?;
            ensure!(rows(&page).count() == size, "{query}: {page}");
            ensure!(page["next"].is_i64() == (size < 60), "{query}: {page}");
        }
        let long = "x".repeat(201);
        let names = ["", "%20", "%00", "%0A", "%E2%80%AE", long.as_str()];
        let limits = ["0", "201", "-1", "1.0", "abc", ""];
        let ids = ["0", "-1", "9223372036854775808", "abc", ""];
        for (list, filter, parameter, wrong) in [
            (OF_ITEMS, "", "limit", &limits[..]),
            (OF_ITEMS, "", "after", &ids),
            (OF_ITEMS, "", "seller_id", &ids),
            (OF_ITEMS, "", "name", &names),
            (OF_RESERVATIONS, "item_id=1&", "limit", &limits),
            (OF_RESERVATIONS, "item_id=1&", "after", &ids),
        ] {
            for value in wrong {
                let query = format!("{filter}{parameter}={value}");
                let refused = list.ask(bed, &query).await?;
                refused.is_problem(400, "invalid-parameter", Some(parameter)).context(query)?;
            }
        }
        Ok(())
    })
}

#[test]
fn lists_of_a_store_whose_database_is_away_are_refused() -> Result<()> {
    saga(async |bed| {
        // Nobody may read there: as good as away, and only for this test.
        sqlx::raw_sql("REVOKE SELECT ON item, reservation FROM ordersaga_service")
            .execute(bed.sql(Cluster::Store))
            .await?;
        for (list, query) in [(OF_ITEMS, ""), (OF_ITEMS, "name=a"), (OF_RESERVATIONS, "item_id=1")]
        {
            let refused = list.ask(bed, query).await?;
            refused.is_problem(503, "unavailable", None).context(query)?;
        }
        Ok(())
    })
}

#[test]
fn what_happened_is_counted_once_by_minute_and_fact() -> Result<()> {
    saga(async |bed| {
        let mut placed = Vec::new();
        for _ in 0..10 {
            placed.push(bed.place(&order_for(1000)).await?);
        }
        for order in &placed {
            bed.reaches(*order, "SHIPPING").await?;
        }
        bed.cancel(placed[0]).await?;
        let unknown = bed.place(&order_for(999)).await?;
        bed.reaches(unknown, "CANCELLED").await?;
        let sum = async || {
            let stats = bed.get(Service::Monitoring, STATS).await?.expect(200)?;
            let minutes = stats["minutes"].as_array().cloned().context("no minutes")?;
            let of = |fact: &str| -> i64 { minutes.iter().filter_map(|m| m[fact].as_i64()).sum() };
            anyhow::Ok(json!([
                of("placed"),
                of("reserved"),
                of("released"),
                of("cancelled_by_client"),
                of("cancelled_by_store"),
                of("cancelled_by_deadline"),
            ]))
        };
        until("every fact is counted", async || Ok(sum().await? == json!([11, 10, 1, 1, 1, 0])))
            .await?;
        // A crash repeats what was not committed, and counts it once all the same.
        bed.services[&Service::Monitoring].kill9().await?;
        bed.start(Service::Monitoring).await?;
        invariants::hold(bed).await?;
        let counted = sum().await?;
        ensure!(counted == json!([11, 10, 1, 1, 1, 0]), "{counted}");
        let none =
            bed.get(Service::Monitoring, &format!("{STATS}?to=2020-01-01T00:00:00Z")).await?;
        ensure!(none.expect(200)?["minutes"] == json!([]));
        Ok(())
    })
}

#[test]
fn what_is_stuck_says_what_it_waits_for_until_it_goes_on() -> Result<()> {
    let plan = Plan::default().alone().set(Service::Monitoring, "STUCK_AFTER_MS", "200");
    // Longer than the test: the deadline must not end what is stuck.
    let plan = plan.set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "600");
    block_on(plan.run(async |bed| {
        let stuck = async || bed.get(Service::Monitoring, STUCK).await?.expect(200);
        let before = bed.place(&order_for(1000)).await?;
        bed.reaches(before, "SHIPPING").await?;
        until("nothing is stuck, and all was looked at", async || {
            let none = stuck().await?;
            Ok(none["items"] == json!([]) && none["is_complete"] == true)
        })
        .await?;

        bed.services[&Service::Store].pause()?;
        let order = bed.place(&order_for(1000)).await?;
        let is_stuck = async || {
            let found = stuck().await?;
            let one = &found["items"][0];
            anyhow::Ok(
                one["order"]["order_id"] == order
                    && one["waits_for"] == "ANSWER"
                    && one["is_late"] == false
                    && one["since"] == one["order"]["created_at"],
            )
        };
        until("the store's silence shows", &is_stuck).await?;
        // A new process reads it from the shards.
        bed.services[&Service::Monitoring].kill9().await?;
        bed.start(Service::Monitoring).await?;
        until("it shows after a restart", &is_stuck).await?;

        bed.services[&Service::Store].resume()?;
        bed.reaches(order, "SHIPPING").await?;
        until("it is stuck no more", async || Ok(stuck().await?["items"] == json!([]))).await?;
        invariants::hold(bed).await
    }))
}
