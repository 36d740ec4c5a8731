//! An outbox alone: a table and a topic that never disagree. Reads the topic back to show it.
//!
//! `DATABASE_URL=postgres://… KAFKA_BROKERS=host:port cargo run -p sagabus --example outbox`

#![expect(clippy::print_stdout, reason = "an example")]

mod topic;

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use sagabus::rdkafka::error::KafkaError;
use sagabus::{Bus, Message, Poison, Received, rdkafka};
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

struct Noted(i64);

impl Message for Noted {
    fn topic(&self) -> &'static str {
        "sagabus-notes"
    }

    fn key(&self) -> String {
        self.0.to_string()
    }

    fn kind(&self) -> &'static str {
        "example.Noted.v1"
    }

    fn id(&self) -> String {
        self.0.to_string()
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    fn decode(received: &Received<'_>) -> Result<Self, Poison> {
        let text = std::str::from_utf8(received.payload).map_err(Poison::new)?;
        text.parse().map(Self).map_err(Poison::new)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().connect(&std::env::var("DATABASE_URL")?).await?;
    sagabus::migrations().run(&pool).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS note (id bigint PRIMARY KEY)").execute(&pool).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM note").fetch_one(&pool).await?;

    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", std::env::var("KAFKA_BROKERS")?);
    topic::make(&kafka, "sagabus-notes").await?;
    let bus = Bus::builder(pool, kafka.clone()).source("/notes").build()?;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(bus.relay().run(stop.clone()));

    for (id, is_kept) in (last.unwrap_or(0) + 1..).zip([true, false, true]) {
        let mut transaction = bus.begin().await?;
        sqlx::query("INSERT INTO note VALUES ($1)").bind(id).execute(&mut *transaction).await?;
        transaction.publish(&Noted(id));
        if is_kept {
            transaction.commit().await?;
        }
        println!("{id}: {}", if is_kept { "committed" } else { "rolled back" });
    }
    stop.cancel();
    relay.await??;

    let reader: BaseConsumer =
        kafka.set("group.id", "notes").set("enable.partition.eof", "true").create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("sagabus-notes", 0, Offset::Beginning)?;
    reader.assign(&all)?;
    loop {
        match reader.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                let note = message.payload().unwrap_or_default();
                println!("read {}", String::from_utf8_lossy(note));
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => println!("{error}"),
        }
    }
}
