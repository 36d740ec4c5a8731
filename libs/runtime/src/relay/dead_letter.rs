//! Records that were no events, on their way to the topic `dead-letter`. Apart from the events: a
//! letter the broker refuses holds up no order.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ordersaga_contract::Topic;
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::FromRow;
use sqlx::postgres::PgPool;

use super::PUBLISHED;
use crate::dead_letters::{self, Place};
use crate::postgres::{self, Lease, within};
use crate::producer::{Outgoing, Publisher};

/// How often letters are looked for.
const INTERVAL: Duration = Duration::from_millis(500);
/// Letters sent at once; each may be nearly a megabyte.
const BATCH: i64 = 20;
/// How long sending a batch may take.
const LIMIT: Duration = Duration::from_mins(1);

pub(super) struct Letters {
    pub(super) pool: PgPool,
    pub(super) publisher: Arc<Publisher>,
    pub(super) topic: String,
    /// Who could not read them.
    pub(super) consumer: String,
}

#[derive(FromRow)]
struct Letter {
    id: i64,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    header_names: Vec<String>,
    header_values: Vec<Option<Vec<u8>>>,
    error: String,
    at: DateTime<Utc>,
}

impl Letters {
    /// Sends what comes, until dropped.
    pub(super) async fn run(self) {
        loop {
            match within(LIMIT, self.send()).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "dead letters wait");
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Sends some letters; true if there may be more.
    async fn send(&self) -> anyhow::Result<bool> {
        let letters = self.read().await?;
        if letters.is_empty() {
            return Ok(false);
        }
        let records = letters.iter().map(|letter| self.record(letter)).collect();
        let delivery = self.publisher.publish(records).await?;
        delivery.clone().acknowledged().await;
        delivery.outcome().unwrap_or(Ok(()))?;
        PUBLISHED.with_label_values(&[Topic::DeadLetter.name()]).inc_by(letters.len() as u64);
        self.delete(&letters).await?;
        Ok(i64::try_from(letters.len())? == BATCH)
    }

    async fn read(&self) -> anyhow::Result<Vec<Letter>> {
        let mut lease = Lease::take(&self.pool).await?;
        let letters = sqlx::query_as(
            "SELECT id, topic, partition, \"offset\", key, payload, header_names, header_values, \
                    error, at \
             FROM dead_letter ORDER BY id LIMIT $1",
        )
        .bind(BATCH)
        .fetch_all(&mut *lease)
        .await?;
        if !letters.is_empty() {
            // What cannot be deleted afterwards would be sent again and again.
            postgres::ensure_writable(&mut lease).await?;
        }
        lease.keep();
        Ok(letters)
    }

    async fn delete(&self, letters: &[Letter]) -> anyhow::Result<()> {
        let mut lease = Lease::take(&self.pool).await?;
        sqlx::query("DELETE FROM dead_letter WHERE id = ANY($1)")
            .bind(letters.iter().map(|letter| letter.id).collect::<Vec<_>>())
            .execute(&mut *lease)
            .await?;
        lease.keep();
        Ok(())
    }

    /// The record as it was, its own headers first, then where it came from and what was wrong.
    fn record<'a>(&'a self, letter: &'a Letter) -> Outgoing<'a> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in letter.header_names.iter().zip(&letter.header_values) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let origin = Place {
            topic: letter.topic.clone(),
            partition: letter.partition,
            offset: letter.offset,
        };
        for (key, value) in dead_letters::added(&origin, &letter.error, &self.consumer, letter.at) {
            headers = headers.insert(Header { key: &key, value: value.as_deref() });
        }
        Outgoing {
            topic: &self.topic,
            partition: None,
            key: letter.key.as_deref(),
            payload: letter.payload.as_deref(),
            headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaConfig;
    use crate::health::Health;

    #[tokio::test]
    async fn the_producer_takes_the_largest_letter() {
        // Nobody is there: the producer looks at a record's size before it looks for the broker.
        let kafka = KafkaConfig {
            brokers: "127.0.0.1:1".to_owned(),
            security: crate::config::KafkaSecurity::default(),
            topic_prefix: String::new(),
            group: String::new(),
            session_timeout: Duration::from_secs(6),
        };
        let broker = Health::default().required("kafka-producer");
        let letters = Letters {
            pool: postgres::pool("postgres://127.0.0.1:1/none", "test", 1).unwrap(),
            publisher: Arc::new(Publisher::new(&kafka, broker).unwrap()),
            topic: "dead-letter".to_owned(),
            consumer: "c".repeat(1_000),
        };
        let letter = |bytes| Letter {
            id: 1,
            topic: Topic::Reservation.name().to_owned(),
            partition: i32::MAX,
            offset: i64::MAX,
            key: None,
            payload: Some(vec![0; bytes]),
            header_names: vec![dead_letters::header::CUT.to_owned()],
            header_values: vec![None],
            error: "\u{10ffff}".repeat(500),
            at: crate::clock::now(),
        };
        let largest = letter(dead_letters::LARGEST);
        assert!(letters.publisher.publish(vec![letters.record(&largest)]).await.is_ok());
        let too_large = letter(dead_letters::LARGEST + 100_000);
        assert!(letters.publisher.publish(vec![letters.record(&too_large)]).await.is_err());
    }
}
