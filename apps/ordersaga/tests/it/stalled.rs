//! What could hold up a partition for ever, and does not: records that cannot be read, events that
//! can never be applied, offsets that hold no record, records that are too large.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::Record;
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_devstack::{Cluster, Service};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, block_on, saga, until};
use crate::client::order_for;
use crate::dlq::{Said, program};
use crate::invariants;
use crate::poison::event;

const TIMEOUT: Duration = Duration::from_secs(20);

fn client(bed: &Bed) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &bed.broker);
    client
}

/// Writes a record and says at which offset it stands, or why the broker did not take it.
async fn write(
    bed: &Bed,
    producer: &FutureProducer,
    record: &Record,
) -> Result<Result<i64, RDKafkaErrorCode>> {
    let topic = format!("{}{}", bed.prefix, record.topic);
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let to_send = FutureRecord::to(&topic)
        .partition(record.partition)
        .key(&record.key)
        .payload(&record.payload)
        .headers(headers);
    match producer.send(to_send, TIMEOUT).await {
        Ok(delivered) => Ok(Ok(delivered.offset)),
        Err((error, _)) => error.rdkafka_error_code().map(Err).context("no code"),
    }
}

/// An order's placement, as create-order publishes it.
fn placed(order: i64, client: i64) -> Result<Record> {
    event("incoming", order, 1, &json!({"type": "OrderPlaced", "client_id": client}))
}

/// Orders, from a number on, whose events lie in the same partition.
fn neighbours(first: i64, count: usize) -> Result<Vec<i64>> {
    let partition = |order| anyhow::Ok(partition_of(OrderId::try_from(order)?));
    let wanted = partition(first)?;
    let mut found = Vec::new();
    for order in first.. {
        if partition(order)? == wanted {
            found.push(order);
        }
        if found.len() == count {
            break;
        }
    }
    Ok(found)
}

/// The state of an order that no client has placed, as monitoring has it.
async fn heard(bed: &Bed, order: i64) -> Result<Option<String>> {
    let path = format!("/api/v1/status?order_id={order}&wait_ms=0");
    let answer = bed.get(Service::Monitoring, &path).await?;
    match answer.status {
        404 => Ok(None),
        _ => Ok(answer.expect(200)?["step"].as_str().map(str::to_owned)),
    }
}

async fn decided(bed: &Bed, order: i64) -> Result<()> {
    until("the order is decided", async || {
        Ok(heard(bed, order).await?.is_some_and(|step| step != "UNDER_RESERVATION"))
    })
    .await
}

/// What `/ready` says of one dependency.
async fn dependency(bed: &Bed, service: Service, name: &str) -> Result<(u16, Value)> {
    let answer = bed.get(service, "/ready").await?;
    let report = answer.json()?;
    let all = report["dependencies"].as_array().context("no dependencies")?;
    let found = all.iter().find(|dependency| dependency["name"] == name);
    Ok((answer.status, found.with_context(|| format!("no {name}: {report}"))?.clone()))
}

#[test]
fn records_are_read_whatever_compressed_them() -> Result<()> {
    saga(async |bed| {
        let orders = neighbours(7_000_000, 5)?;
        for (codec, order) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().zip(&orders) {
            let producer: FutureProducer =
                client(bed).set("compression.type", *codec).create().context(*codec)?;
            // Compression is left out where it does not make a record smaller.
            let mut record = placed(*order, 1)?;
            record.headers.push(("filler".to_owned(), vec![b'x'; 4_000]));
            let written = write(bed, &producer, &record).await?;
            ensure!(written.is_ok(), "{codec}: {written:?}");
        }
        for order in orders {
            decided(bed, order).await?;
        }
        ensure!(bed.log().read(&["dead-letter"]).await?.is_empty(), "nothing is refused");
        Ok(())
    })
}

/// The file in which the broker keeps the records of a partition.
fn segment(bed: &Bed, record: &Record) -> PathBuf {
    let folder = format!("{}{}-{}", bed.prefix, record.topic, record.partition);
    bed.broker_data().join(folder).join("00000000000000000000.log")
}

/// Spoils a record on the broker's disk, so that its checksum is wrong.
fn corrupt(bed: &Bed, record: &Record, marker: &str) -> Result<()> {
    let file = segment(bed, record);
    let content = fs::read(&file).with_context(|| file.display().to_string())?;
    let places = content.windows(marker.len()).enumerate();
    let mut places = places.filter(|(_, bytes)| *bytes == marker.as_bytes());
    let (at, _) = places.next().context("the record is not in its file")?;
    fs::File::options().write(true).open(&file)?.write_all_at(b"\0", at.try_into()?)?;
    Ok(())
}

async fn step_over(bed: &Bed, cluster: Cluster, words: &str) -> Result<Said> {
    let mut command = tokio::process::Command::new(program("ordersaga-kafka")?);
    command.args(["dlq", "step-over"]).args(words.split(' '));
    command.env("KAFKA_BROKERS", &bed.broker).env("KAFKA_TOPIC_PREFIX", &bed.prefix);
    command.env("DATABASE_URL", bed.databases[cluster].service_url());
    Said::by(command).await
}

#[test]
fn a_record_that_cannot_be_read_stands_still_in_sight_and_is_stepped_over() -> Result<()> {
    saga(async |bed| {
        let orders = neighbours(7_000_000, 3)?;
        let consumers = [Service::Store, Service::Monitoring];
        let producer: FutureProducer = client(bed).set("batch.num.messages", "1").create()?;
        ensure!(write(bed, &producer, &placed(orders[0], 1)?).await? == Ok(0));
        decided(bed, orders[0]).await?;
        for service in consumers {
            bed.services[&service].terminate().await?;
        }
        let mut spoilt = placed(orders[1], 1)?;
        spoilt.payload = format!("spoilt {}", bed.prefix).into_bytes();
        ensure!(write(bed, &producer, &spoilt).await? == Ok(1));
        corrupt(bed, &spoilt, &format!("spoilt {}", bed.prefix))?;
        // librdkafka passes over a spoilt record as soon as another follows it.
        ensure!(write(bed, &producer, &placed(orders[2], 1)?).await? == Ok(2));
        for service in consumers {
            bed.services[&service].start()?;
        }

        let place = format!("incoming/{}", spoilt.partition);
        let stands = format!("{place} stands still at offset 1");
        let stalled = format!(
            r#"consumer_partition_stalled{{partition="{}",topic="incoming"}}"#,
            spoilt.partition
        );
        for service in consumers {
            until("it shows", async || {
                // Just started, it may not listen yet.
                let Ok((status, shown)) = dependency(bed, service, "kafka-consumer").await else {
                    return Ok(false);
                };
                let detail = shown["detail"].as_str().unwrap_or_default();
                Ok(status == 503 && detail.contains(&stands))
            })
            .await?;
            ensure!(bed.metric(service, &stalled).await? > 0, "{service}");
            let errors = r#"consumer_errors_total{error="BadMessage"}"#;
            ensure!(bed.metric(service, errors).await? > 0, "{service}");
        }
        // Other partitions go on, and what is behind the record is not taken before it.
        let elsewhere = bed.place(&order_for(1)).await?;
        decided(bed, elsewhere).await?;
        ensure!(heard(bed, orders[2]).await?.is_none(), "the record was passed over");

        let origin = format!("{place}/1");
        step_over(bed, Cluster::Store, &format!("{place}/2")).await?.expect(1, "can be read")?;
        step_over(bed, Cluster::Store, &format!("--dry-run {origin}"))
            .await?
            .expect(0, "would be stepped over")?;
        for cluster in [Cluster::Store, Cluster::Monitoring] {
            step_over(bed, cluster, &origin).await?.expect(0, "1 stepped over")?;
            step_over(bed, cluster, &origin).await?.expect(1, "does not stand at")?;
        }
        decided(bed, orders[2]).await?;
        bed.wait_ready().await?;
        for service in consumers {
            ensure!(bed.metric(service, &stalled).await? == 0, "{service}");
        }
        invariants::hold(bed).await?;
        let letters = bed.log().read(&["dead-letter"]).await?;
        ensure!(letters.len() == 2, "{letters:?}");
        for letter in letters {
            ensure!(letter.header("dead-letter-offset").as_deref() == Some("1"), "{letter:?}");
            let error = letter.header("dead-letter-error").unwrap_or_default();
            ensure!(error.starts_with("stepped over by an operator"), "{error}");
            ensure!(letter.header("dead-letter-cut").is_some(), "nothing of it could be read");
        }
        Ok(())
    })
}

/// A constraint that no row of this client passes.
pub(crate) async fn refuse(
    bed: &Bed,
    cluster: Cluster,
    tables: &[String],
    condition: &str,
) -> Result<()> {
    for table in tables {
        let constraint = format!("ALTER TABLE {table} ADD CHECK ({condition}) NOT VALID");
        sqlx::query(sqlx::AssertSqlSafe(constraint)).execute(bed.sql(cluster)).await?;
    }
    Ok(())
}

#[test]
fn an_event_that_can_never_be_applied_becomes_a_dead_letter() -> Result<()> {
    saga(async |bed| {
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            let tables: Vec<_> = (0..16).map(|p| format!("order_event_{p:02}")).collect();
            refuse(bed, shard, &tables, "client_id <> 666").await?;
        }
        refuse(bed, Cluster::Store, &["reservation".to_owned()], "client_id <> 667").await?;
        let closed = "client_id <> 668 OR state <> 2";
        refuse(bed, Cluster::CreateOrder, &["orders".to_owned()], closed).await?;

        // Many at once, so that the culprits share their batches with others.
        let orders: Vec<i64> = (7_000_000..7_000_300).collect();
        let clients = |order: i64| match order % 100 {
            50 => 666,
            51 => 667,
            _ => 1,
        };
        let mut records = Vec::new();
        for order in &orders {
            let mut record = placed(*order, clients(*order))?;
            record.headers.push(("kind".to_owned(), clients(*order).to_string().into_bytes()));
            records.push(record);
        }
        bed.log().write(records.clone()).await?;
        let late = bed.place(&json!({"item_id": 2, "seller_id": 2, "client_id": 668})).await?;
        bed.reaches(late, "SHIPPING").await?;
        for order in &orders {
            match clients(*order) {
                666 => ensure!(heard(bed, *order).await?.is_none(), "{order}"),
                667 => {
                    until("it is heard of", async || Ok(heard(bed, *order).await?.is_some()))
                        .await?;
                }
                _ => decided(bed, *order).await?,
            }
        }

        let letters = until_letters(bed, 3 + 3 + 3 + 1).await?;
        let of = |consumer: &str| {
            let consumer = Some(consumer.to_owned());
            letters.iter().filter(move |l| l.header("dead-letter-consumer") == consumer)
        };
        let error = |letter: &Record| letter.header("dead-letter-error").unwrap_or_default();
        for (consumer, kind) in [("/service-monitoring-order", "666"), ("/service-store", "667")] {
            for letter in of(consumer).filter(|letter| letter.header("kind").is_some()) {
                ensure!(letter.header("kind").as_deref() == Some(kind), "{consumer}: {letter:?}");
                ensure!(error(letter).contains("check constraint"), "{}", error(letter));
                let offset = letter.header("dead-letter-offset");
                let original = records.iter().find(|record| record.key == letter.key);
                ensure!(original.is_some_and(|original| original.payload == letter.payload));
                ensure!(offset.is_some(), "{letter:?}");
            }
        }
        let closing: Vec<_> = of("/service-create-order").collect();
        ensure!(closing.len() == 1 && closing[0].key == late.to_string().as_bytes(), "{closing:?}");
        ensure!(error(closing[0]).contains("check constraint"));
        Ok(())
    })
}

/// The dead letters, once there are so many.
async fn until_letters(bed: &Bed, count: usize) -> Result<Vec<Record>> {
    let mut letters = Vec::new();
    until("the letters are there", async || {
        letters = bed.log().read(&["dead-letter"]).await?;
        Ok(letters.len() >= count)
    })
    .await?;
    ensure!(letters.len() == count, "{} letters: {letters:?}", letters.len());
    Ok(letters)
}

#[test]
fn a_time_that_is_none_of_the_published_is_a_dead_letter() -> Result<()> {
    saga(async |bed| {
        let times = ["-4713-11-23T23:59:59Z", "-4712-01-01T00:00:00Z", "+262000-01-01T00:00:00Z"];
        let orders = neighbours(7_000_000, times.len() + 1)?;
        for (time, order) in times.iter().zip(&orders) {
            let strange = json!({"type": "OrderPlaced", "time": time});
            bed.log().write(vec![event("incoming", *order, 1, &strange)?]).await?;
        }
        bed.log().write(vec![placed(orders[times.len()], 1)?]).await?;
        decided(bed, orders[times.len()]).await?;
        for letter in until_letters(bed, 2 * times.len()).await? {
            let error = letter.header("dead-letter-error").unwrap_or_default();
            ensure!(error.contains("RFC 3339"), "{error}");
        }
        invariants::hold(bed).await
    })
}

/// An order that create-order's own database refuses is answered at once, and spoils none of the
/// orders that share its transaction.
#[test]
fn an_order_that_its_database_refuses_spoils_no_other() -> Result<()> {
    saga(async |bed| {
        let never = ["orders".to_owned()];
        refuse(bed, Cluster::CreateOrder, &never, "client_id <> 670").await?;
        let clients = (1..=60).map(|n| if n % 20 == 0 { 670 } else { n });
        let place = clients.map(async |client: i64| {
            let body = json!({"item_id": 1, "seller_id": 1, "client_id": client});
            let answer =
                bed.post(Service::CreateOrder, "/api/v1/orders/create", Some(&body)).await?;
            anyhow::Ok((client, answer))
        });
        for (client, answer) in try_join_all(place).await? {
            if client == 670 {
                let problem = answer.expect(500)?;
                ensure!(problem["type"] == "urn:ordersaga:problem:internal", "{problem}");
            } else {
                answer.expect(201)?;
            }
        }
        let stored = bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await?;
        ensure!(stored == 57, "{stored} orders");
        invariants::hold(bed).await
    })
}

/// A dead letter that the broker does not take stays where it is, and the others go out once each.
#[test]
fn a_dead_letter_that_the_broker_refuses_holds_up_no_other() -> Result<()> {
    saga(async |bed| {
        let too_large = "INSERT INTO sagabus.dead_letter \
                         (topic, partition, \"offset\", payload, header_names, header_values, error, at) \
                         SELECT 'incoming', 0, 0, repeat('x', 1200000)::bytea, '{}', '{}', 'x', now() \
                         FROM generate_series(1, 30)";
        sqlx::query(too_large).execute(bed.sql(Cluster::Store)).await?;
        let mut sent = Vec::new();
        for order in neighbours(7_000_000, 5)? {
            sent.push(event("incoming", order, 1, &json!({"type": "OrderPlaced", "time": "x"}))?);
        }
        bed.log().write(sent).await?;
        let waiting = |cluster| bed.number(cluster, "SELECT count(*) FROM sagabus.dead_letter");
        until_letters(bed, 2 * 5).await?;
        until("all others are sent", async || {
            Ok(waiting(Cluster::Store).await? == 30 && waiting(Cluster::Monitoring).await? == 0)
        })
        .await?;
        // Two more rounds send nothing again.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        until_letters(bed, 2 * 5).await?;
        Ok(())
    })
}

/// An order that the database refuses to end holds up no other, and shows.
#[test]
fn an_overdue_order_that_is_refused_holds_up_no_other() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "1").set(
        Service::CreateOrder,
        "SWEEP_INTERVAL_MS",
        "200",
    );
    block_on(plan.run(async |bed| {
        let never = ["orders".to_owned()];
        refuse(bed, Cluster::CreateOrder, &never, "client_id <> 669 OR state <> 3").await?;
        bed.services[&Service::Store].terminate().await?;
        bed.place(&json!({"item_id": 1, "seller_id": 1, "client_id": 669})).await?;
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "CANCELLED").await?;
        until("it is counted", async || {
            Ok(bed.metric(Service::CreateOrder, "overdue_orders_refused").await? > 0)
        })
        .await
    }))
}

#[test]
fn a_batch_that_is_retried_for_long_shows() -> Result<()> {
    saga(async |bed| {
        let shut = "REVOKE INSERT ON reservation FROM ordersaga_service";
        sqlx::query(shut).execute(bed.sql(Cluster::Store)).await?;
        let order = bed.place(&order_for(1)).await?;
        let begun = std::time::Instant::now();
        loop {
            let (status, shown) = dependency(bed, Service::Store, "kafka-processing").await?;
            ensure!(status == 200, "the API goes on");
            if shown["ready"] == false {
                let detail = shown["detail"].as_str().unwrap_or_default();
                ensure!(detail.contains("refuses the query"), "{detail}");
                break;
            }
            if begun.elapsed() > Duration::from_secs(90) {
                bail!("it does not show: {shown}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        ensure!(bed.metric(Service::Store, r#"consumer_retry_seconds{lane="0"}"#).await? >= 60);
        let open = "GRANT INSERT ON reservation TO ordersaga_service";
        sqlx::query(open).execute(bed.sql(Cluster::Store)).await?;
        until("it is over", async || {
            Ok(dependency(bed, Service::Store, "kafka-processing").await?.1["ready"] == true)
        })
        .await?;
        // Its deadline has passed meanwhile; either way it has ended.
        decided(bed, order).await?;
        ensure!(bed.log().read(&["dead-letter"]).await?.is_empty(), "no right is no poison");
        Ok(())
    })
}

/// The value of a metric, once it is as wanted.
async fn reads(bed: &Bed, service: Service, series: &str, value: i64) -> Result<()> {
    until(series, async || Ok(bed.metric(service, series).await? == value)).await
}

#[test]
fn offsets_without_records_are_neither_loss_nor_lag() -> Result<()> {
    saga(async |bed| {
        let orders = neighbours(7_000_000, 4)?;
        let transactional: FutureProducer =
            client(bed).set("transactional.id", &bed.prefix).create()?;
        transactional.init_transactions(TIMEOUT)?;
        for order in &orders[..2] {
            transactional.begin_transaction()?;
            let written = write(bed, &transactional, &placed(*order, 1)?).await?;
            ensure!(written.is_ok(), "{written:?}");
            transactional.commit_transaction(TIMEOUT)?;
            decided(bed, *order).await?;
        }
        let partition = placed(orders[0], 1)?.partition;
        let next = format!(r#"consumer_next_offset{{partition="{partition}",topic="incoming"}}"#);
        let lag = format!(r#"consumer_lag_records{{partition="{partition}",topic="incoming"}}"#);
        let lost = r#"consumer_lost_records_total{topic="incoming"}"#;
        for service in [Service::Store, Service::Monitoring] {
            reads(bed, service, &next, 3).await?;
            reads(bed, service, &lag, 0).await?;
            ensure!(bed.metric(service, lost).await? == 0, "{service}");
        }

        // What is removed before it is read is lost, and said to be.
        bed.services[&Service::Store].terminate().await?;
        let producer: FutureProducer = client(bed).create()?;
        let gone = write(bed, &producer, &placed(orders[2], 1)?).await?;
        let gone = gone.map_err(|code| anyhow::anyhow!("{code}"))?;
        let mut up_to = TopicPartitionList::new();
        let topic = format!("{}incoming", bed.prefix);
        up_to.add_partition_offset(&topic, partition, Offset::Offset(gone + 1))?;
        let admin: AdminClient<DefaultClientContext> = client(bed).create()?;
        admin.delete_records(&up_to, &AdminOptions::new()).await?;
        bed.start(Service::Store).await?;
        let written = write(bed, &producer, &placed(orders[3], 1)?).await?;
        ensure!(written.is_ok(), "{written:?}");
        decided(bed, orders[3]).await?;
        // The marker before it was gone as well.
        until("it is counted", async || Ok(bed.metric(Service::Store, lost).await? >= 1)).await
    })
}

#[test]
fn a_large_record_is_refused_by_its_topic_or_kept_whole() -> Result<()> {
    saga(async |bed| {
        let producer: FutureProducer = client(bed).create()?;
        let large = |bytes: usize| {
            let mut record = placed(7_000_000, 1)?;
            record.payload = vec![b'x'; bytes];
            record.headers.push(("note".to_owned(), vec![b'y'; 1_000]));
            anyhow::Ok(record)
        };
        let refused = write(bed, &producer, &large(65_000)?).await?;
        ensure!(refused == Err(RDKafkaErrorCode::MessageSizeTooLarge), "{refused:?}");
        let largest = large(64_000)?;
        let written = write(bed, &producer, &largest).await?;
        ensure!(written.is_ok(), "{written:?}");
        // Compressed it is small on the way; what becomes of it is what was written.
        let packed: FutureProducer = client(bed).set("compression.type", "gzip").create()?;
        let bulky = large(600_000)?;
        let written = write(bed, &packed, &bulky).await?;
        ensure!(written.is_ok(), "{written:?}");
        for letter in until_letters(bed, 4).await? {
            let original = if letter.payload.len() < 100_000 { &largest } else { &bulky };
            ensure!(letter.payload == original.payload, "{} bytes", letter.payload.len());
            ensure!(letter.header("note").is_some_and(|note| note.len() == 1_000));
            ensure!(letter.header("dead-letter-cut").is_none());
        }
        invariants::hold(bed).await
    })
}
