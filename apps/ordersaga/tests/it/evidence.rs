//! What stands in the topics, as monitoring shows it: the records behind an order, and dead letters.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use ordersaga_checker::{EVENTS, Record};
use ordersaga_contract::{Event, Initiator, Topic, partition_of};
use ordersaga_devstack::{Cluster, Service};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::bed::{Bed, WITHIN, saga, until};
use crate::client::{CREATE, DEAD_LETTERS, DRY_RUN, EVIDENCE, PARTITIONS, order_for};
use crate::dlq::{dlq, poison};
use crate::invariants;
use crate::stalled::refuse;

async fn evidence(bed: &Bed, order: i64) -> Result<Vec<Value>> {
    let path = format!("{EVIDENCE}?order_id={order}");
    let found = bed.get(Service::Monitoring, &path).await?.expect(200)?;
    ensure!(found["order_id"] == order, "{found}");
    found["facts"].as_array().cloned().context("no facts")
}

/// A fact's record is the one that stands there, and says it of this order.
fn stands_there(fact: &Value, order: i64, records: &[Record]) -> Result<()> {
    let (shown, topic) = (&fact["record"], fact["topic"].as_str().context("no topic")?);
    let mut there = records.iter().filter(|record| {
        record.topic == topic
            && fact["partition"] == record.partition
            && shown["offset"] == record.offset
    });
    let there = there.next().with_context(|| format!("nothing stands there: {fact}"))?;
    let key = order.to_string();
    ensure!(shown["key"] == key && there.key == key.as_bytes(), "{fact}");
    ensure!(shown["timestamp"].is_string(), "{fact}");
    let headers: Vec<_> = there
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": String::from_utf8_lossy(value)}))
        .collect();
    ensure!(shown["headers"] == json!(headers), "{fact}");
    ensure!(shown["payload"] == serde_json::from_slice::<Value>(&there.payload)?, "{fact}");

    let topic = Topic::EVENTS.into_iter().find(|known| known.name() == topic).context("topic")?;
    let partition = u32::try_from(there.partition)?;
    let payload = serde_json::to_vec(&shown["payload"])?;
    let event = Event::decode(topic, partition, &there.key, &payload)?;
    ensure!(event.order.order_id.get() == order, "{event:?}");
    let initiator = event.kind.fact().initiator().map(Initiator::name);
    ensure!(fact["initiator"].as_str() == initiator, "{event:?} for {fact}");
    let time: DateTime<Utc> = fact["time"].as_str().context("no time")?.parse()?;
    ensure!(event.time == time, "{event:?} for {fact}");
    Ok(())
}

#[test]
fn each_fact_of_an_order_is_shown_with_the_record_that_says_it() -> Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    saga(async |bed| {
        let context = format!("00-{TRACE}-b7ad6b7169203331-01");
        let url = format!("{}{CREATE}", bed.url(Service::CreateOrder));
        let request = bed.http.post(url).header("traceparent", context).json(&order_for(1000));
        let order = bed.send(request).await?.expect(201)?["order_id"].as_i64().context("no id")?;
        // Others, of which some stand in the same partitions.
        for _ in 0..20 {
            let other = bed.place(&order_for(1000)).await?;
            bed.reaches(other, "SHIPPING").await?;
        }
        bed.reaches(order, "SHIPPING").await?;
        bed.cancel(order).await?;
        invariants::at_rest(bed).await?;

        let (facts, status) = (evidence(bed, order).await?, bed.status(order).await?);
        let records = bed.log().read(&EVENTS).await?;
        let heard = status["facts"].as_array().context("no facts")?;
        ensure!(facts.len() == 4 && heard.len() == 4, "{facts:?} {heard:?}");
        for (fact, heard) in facts.iter().zip(heard) {
            ensure!(fact["fact"] == heard["fact"] && fact["time"] == heard["time"], "{fact}");
            ensure!(fact["reason"] == heard["reason"], "{fact}");
            ensure!(fact.get("missing").is_none(), "{fact}");
            ensure!(fact["record"]["trace_id"] == TRACE, "{fact}");
            stands_there(fact, order, &records)?;
        }

        let unknown = bed.get(Service::Monitoring, &format!("{EVIDENCE}?order_id=999999")).await?;
        unknown.is_problem(404, "not-found", None)?;
        invariants::hold(bed).await
    })
}

/// Removes all records of a partition, as a topic's retention would.
async fn empty(bed: &Bed, topic: &str, partition: u32) -> Result<()> {
    let client = ClientConfig::new().set("bootstrap.servers", &bed.broker).clone();
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let mut all = TopicPartitionList::new();
    let (name, number) = (format!("{}{topic}", bed.prefix), i32::try_from(partition)?);
    all.add_partition_offset(&name, number, Offset::End)?;
    let options = AdminOptions::new().request_timeout(Some(WITHIN));
    let removed = admin.delete_records(&all, &options).await?;
    removed.elements().iter().try_for_each(|element| Ok(element.error()?))
}

#[test]
fn a_fact_whose_record_is_gone_from_its_topic_says_so() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "SHIPPING").await?;
        invariants::hold(bed).await?;
        empty(bed, "incoming", partition_of(order.try_into()?)).await?;

        let facts = evidence(bed, order).await?;
        ensure!(facts.len() == 2, "{facts:?}");
        ensure!(facts[0]["missing"] == "NO_LONGER_IN_TOPIC", "{}", facts[0]);
        ensure!(facts[0].get("record").is_none() && facts[0]["topic"] == "incoming");
        stands_there(&facts[1], order, &bed.log().read(&["reservation"]).await?)
    })
}

async fn page(bed: &Bed, query: &str) -> Result<Value> {
    bed.get(Service::Monitoring, &format!("{DEAD_LETTERS}?{query}")).await?.expect(200)
}

/// The letters of a page, by where they come from.
fn origins(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().into_iter().flatten();
    let origin = |letter: &Value| {
        let topic = letter["topic"].as_str().unwrap_or_default();
        format!("{topic}/{}/{}", letter["partition"], letter["offset"])
    };
    items.map(origin).collect()
}

#[test]
fn a_dead_letter_is_listed_until_somebody_deals_with_it() -> Result<()> {
    saga(async |bed| {
        ensure!(page(bed, "").await?["items"] == json!([]));
        let (first, first_place) = poison("incoming", 1, b"no event")?;
        bed.log().write(vec![first]).await?;
        invariants::at_rest(bed).await?;
        let (mut second, second_place) = poison("reset", 2, b"\x1b\xff")?;
        second.key = b"\xff\x07".to_vec();
        bed.log().write(vec![second]).await?;
        invariants::at_rest(bed).await?;

        // What is told may be a few seconds old.
        let mut listed = Value::Null;
        until("both are listed, by all who refused them", async || {
            listed = page(bed, "").await?;
            let refusals = |at: usize| listed["items"][at]["refusals"].as_array().map(Vec::len);
            Ok(refusals(0) == Some(3) && refusals(1) == Some(2))
        })
        .await?;
        ensure!(origins(&listed) == [second_place.as_str(), first_place.as_str()], "{listed}");
        ensure!(listed["is_complete"] == true && listed.get("next").is_none(), "{listed}");
        let [newest, oldest] = [&listed["items"][0], &listed["items"][1]];
        ensure!(newest["key_hex"] == "ff07" && newest.get("key").is_none(), "{newest}");
        ensure!(oldest["key"] == "1" && oldest["is_cut"] == false, "{oldest}");
        ensure!(oldest["attempts"] == 0 && oldest.get("payload").is_none(), "{oldest}");
        for refusal in oldest["refusals"].as_array().into_iter().flatten() {
            let error = refusal["error"].as_str().unwrap_or_default();
            ensure!(error.contains("not an event") && refusal["time"].is_string(), "{refusal}");
        }

        let head = page(bed, "limit=1").await?;
        let next = head["next"].as_str().context("nothing follows")?;
        let rest = page(bed, &format!("limit=1&after={next}")).await?;
        ensure!(origins(&head) == [second_place.as_str()], "{head}");
        ensure!(origins(&rest) == [first_place.as_str()] && rest.get("next").is_none(), "{rest}");
        let wrong = bed.get(Service::Monitoring, &format!("{DEAD_LETTERS}?after=1")).await?;
        wrong.is_problem(400, "invalid-parameter", Some("after"))?;

        dlq(bed, &format!("discard --yes {second_place}")).await?.expect(0, "discarded")?;
        until("only the other one is listed", async || {
            Ok(origins(&page(bed, "").await?) == [first_place.as_str()])
        })
        .await
    })
}

/// Lets monitoring refuse what the store says of this client's orders, places one and returns it with
/// the place of the record that became a dead letter.
pub(crate) async fn refused_answer(bed: &Bed) -> Result<(i64, String)> {
    let tables: Vec<_> = (0..16).map(|p| format!("order_event_{p:02}")).collect();
    for shard in [Cluster::Shard1, Cluster::Shard2] {
        refuse(bed, shard, &tables, "client_id <> 666 OR fact = 1").await?;
    }
    let mut wanted = order_for(1000);
    wanted["client_id"] = json!(666);
    let order = bed.place(&wanted).await?;
    let mut place = String::new();
    until("the answer is a dead letter", async || {
        let letters = page(bed, "").await?;
        place = origins(&letters).into_iter().next().unwrap_or_default();
        Ok(place.starts_with("reservation/"))
    })
    .await?;
    Ok((order, place))
}

fn dry_run(place: &str) -> String {
    let mut parts = place.split('/');
    let mut part = || parts.next().unwrap_or_default();
    format!("{DRY_RUN}?topic={}&partition={}&offset={}", part(), part(), part())
}

#[test]
fn a_dry_run_says_what_putting_a_dead_letter_back_would_do() -> Result<()> {
    saga(async |bed| {
        let (order, readable) = refused_answer(bed).await?;
        let told = bed.get(Service::Monitoring, &dry_run(&readable)).await?.expect(200)?;
        ensure!(told["outcome"] == "STEP_CHANGES" && told["order_id"] == order, "{told}");
        ensure!(told["fact"]["fact"] == "RESERVED", "{told}");
        let steps = (&told["step_before"], &told["step_after"]);
        ensure!(steps == (&json!("UNDER_RESERVATION"), &json!("SHIPPING")), "{told}");
        ensure!(told.get("blocked_by").is_none(), "{told}");

        let (record, place) = poison("reset", 7, b"no event")?;
        bed.log().write(vec![record]).await?;
        let mut told = Value::Null;
        until("the record is a dead letter", async || {
            let answer = bed.get(Service::Monitoring, &dry_run(&place)).await?;
            told = if answer.status == 404 { Value::Null } else { answer.expect(200)? };
            Ok(!told.is_null())
        })
        .await?;
        ensure!(told["outcome"] == "STILL_UNREADABLE", "{told}");
        ensure!(told["error"].as_str().is_some_and(|it| it.contains("not an event")), "{told}");
        let unknown = bed.get(Service::Monitoring, &dry_run("reset/3/7000")).await?;
        unknown.is_problem(404, "not-found", None)
    })
}

#[test]
fn partitions_say_how_far_they_are() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let at = usize::try_from(partition_of(order.try_into()?))?;
        until("everything is applied and known to be", async || {
            let told = bed.get(Service::Monitoring, PARTITIONS).await?.expect(200)?;
            let items = told["items"].as_array().context("no partitions")?;
            ensure!(items.len() == 16, "{told}");
            let topics = items[at]["topics"].as_array().context("no topics")?;
            ensure!(items[at]["is_followed"] == true && topics.len() == 3, "{told}");
            let incoming = &topics[0];
            ensure!(incoming["topic"] == "incoming", "{told}");
            let is_applied = incoming["applied_offset"] == incoming["end_offset"];
            Ok(is_applied && incoming["lag_records"] == 0 && incoming["end_offset"] == 1)
        })
        .await
    })
}
