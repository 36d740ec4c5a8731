//! A whole session, by the clients that openapi-generator makes.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use ordersaga_client::orders::apis::orders_api::{cancel_order, create_order};
use ordersaga_client::status::apis::status_api::get_order_status;
use ordersaga_client::status::models::OrderStep;
use ordersaga_client::store::apis::items_api::{add_item, find_item};
use ordersaga_client::{orders, status, store};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut ordering = orders::apis::configuration::Configuration::new();
    let mut monitoring = status::apis::configuration::Configuration::new();
    let mut storing = store::apis::configuration::Configuration::new();
    for (base_path, name) in [
        (&mut ordering.base_path, "ORDERS_URL"),
        (&mut monitoring.base_path, "STATUS_URL"),
        (&mut storing.base_path, "STORE_URL"),
    ] {
        if let Ok(url) = std::env::var(name) {
            *base_path = url;
        }
    }

    // An item of our own, so that the demo may run any number of times.
    let item = store::models::NewItem::new(1, 1000, "Demo item".into());
    let item_id = add_item(&storing, item, None).await?.item_id;

    // Create an order; the same key once more is the same order. The quantity is left out.
    let key = format!("demo-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let order = orders::models::NewOrder::new(item_id, 1, 1);
    let id = create_order(&ordering, order.clone(), Some(&key), None).await?.order_id;
    let again = create_order(&ordering, order.clone(), Some(&key), None).await?;
    assert_eq!(again.order_id, id, "a repetition is the same order");

    // The functions give bodies only. Where headers are wanted, the client sends a request itself.
    let create = format!("{}/api/v1/orders/create", ordering.base_path);
    let answer =
        ordering.client.post(create).header("Idempotency-Key", &key).json(&order).send().await?;
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let location = header("Location").ok_or("no header Location")?;
    let request = header("X-Request-Id").ok_or("no header X-Request-Id")?;
    println!("order {id}: {location} ({request})");

    // Wait for the store's decision.
    let now = get_order_status(&monitoring, id, Some(5000), None).await?;
    assert_eq!(now.step, OrderStep::Shipping);
    println!("order {id}: {} with {} facts", now.step, now.facts.len());

    let item = find_item(&storing, item_id).await?;
    println!("item {item_id}: {}, {} of {} reserved", item.item_name, item.reserved, item.quantity);

    // Cancel it, and wait for that.
    let cancelled = cancel_order(&ordering, id, None).await?;
    println!("order {id}: {}", cancelled.status);
    let now = get_order_status(&monitoring, id, Some(5000), Some(OrderStep::Cancelled)).await?;
    assert_eq!(now.step, OrderStep::Cancelled);
    if let Some((who, why)) = now.initiator.zip(now.reason) {
        println!("order {id}: {} by the {who}: {why}", now.step);
    }

    // Problems have types. They are read from the content: the entity of a 404 would say Status400.
    let answer = get_order_status(&monitoring, i64::MAX, None, None).await;
    let Err(status::apis::Error::ResponseError(answer)) = answer else {
        panic!("an order that is not there: {answer:?}");
    };
    let problem: status::models::Problem = serde_json::from_str(&answer.content)?;
    assert_eq!((problem.status, problem.r#type), (404, status::models::ProblemType::NOT_FOUND));
    println!("404: {}", problem.detail);

    let nothing = orders::models::NewOrder { quantity: Some(0), ..order };
    let answer = create_order(&ordering, nothing, None, None).await;
    let Err(orders::apis::Error::ResponseError(answer)) = answer else {
        panic!("an order of nothing: {answer:?}");
    };
    let problem: orders::models::Problem = serde_json::from_str(&answer.content)?;
    assert_eq!((problem.status, problem.r#type), (422, orders::models::ProblemType::INVALID_FIELD));
    assert_eq!(problem.field.as_deref(), Some("quantity"));
    println!("422: quantity: {}", problem.detail);
    Ok(())
}
