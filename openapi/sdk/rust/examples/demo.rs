//! A whole session, by the clients that progenitor generates.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use ordersaga_client::orders::types::{NewOrder, ProblemType as OrdersProblem};
use ordersaga_client::orders::{Client as Orders, Error, ResponseValue};
use ordersaga_client::status::Client as Status;
use ordersaga_client::status::types::{OrderStep, ProblemType as StatusProblem};
use ordersaga_client::store::Client as Store;
use ordersaga_client::store::types::NewItem;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let url = |name, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.into());
    let orders = Orders::new(&url("ORDERS_URL", "http://127.0.0.1:8000"));
    let status = Status::new(&url("STATUS_URL", "http://127.0.0.1:8001"));
    let store = Store::new(&url("STORE_URL", "http://127.0.0.1:8002"));

    // An item of our own, so that the demo may run any number of times.
    let item = NewItem::builder().seller_id(1u64).price(1000u64).name("Demo item");
    let item_id = store.add_item().body(item).send().await?.item_id;

    // Create an order; the same key once more is the same order. The quantity is left out.
    let key = format!("demo-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let order = NewOrder::builder().item_id(item_id).seller_id(1u64).client_id(1u64);
    let create = || orders.create_order().idempotency_key(key.as_str()).body(order.clone()).send();
    let created = create().await?;
    let id = created.order_id;
    println!("order {id}: {} ({})", header(&created, "location"), header(&created, "x-request-id"));
    assert_eq!(create().await?.order_id, id, "a repetition is the same order");

    // Wait for the store's decision.
    let now = status.get_order_status().order_id(id).wait_ms(5000u64).send().await?;
    assert_eq!(now.step, OrderStep::Shipping);
    println!("order {id}: {} with {} facts", now.step, now.facts.len());

    let item = store.find_item().item_id(item_id).send().await?;
    println!(
        "item {}: {}, {} of {} reserved",
        item.item_id, item.item_name, item.reserved, item.quantity
    );

    // Cancel it, and wait for that.
    let cancelled = orders.cancel_order().order_id(id).send().await?;
    println!("order {id}: {}", cancelled.status);
    let now =
        status.get_order_status().order_id(id).wait_for(OrderStep::Cancelled).wait_ms(5000u64);
    let now = now.send().await?;
    assert_eq!(now.step, OrderStep::Cancelled);
    if let Some((who, why)) = now.initiator.zip(now.reason) {
        println!("order {id}: {} by the {who}: {why}", now.step);
    }

    // Problems have types. A quantity of 0 cannot be said: it is a `NonZeroU64`.
    let missing = problem(status.get_order_status().order_id(u64::MAX >> 1).send().await);
    assert_eq!((missing.status, missing.type_), (404, StatusProblem::UrnOrdersagaProblemNotFound));
    println!("404: {}", missing.detail);
    let other = NewOrder::builder().item_id(item_id).seller_id(1u64).client_id(2u64);
    let reused =
        problem(orders.create_order().idempotency_key(key.as_str()).body(other).send().await);
    assert_eq!(
        (reused.status, reused.type_),
        (422, OrdersProblem::UrnOrdersagaProblemIdempotencyKeyReused)
    );
    assert_eq!(reused.field.as_deref(), Some("Idempotency-Key"));
    println!("422: Idempotency-Key: {}", reused.detail);
    Ok(())
}

fn header<'a, T>(answer: &'a ResponseValue<T>, name: &str) -> &'a str {
    let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_else(|| panic!("no header {name}"))
}

/// The problem that an operation ended with.
fn problem<T: Debug, P: Debug>(answer: Result<T, Error<P>>) -> P {
    match answer {
        Err(Error::ErrorResponse(problem)) => problem.into_inner(),
        other => panic!("no problem: {other:?}"),
    }
}
