//! Records that were no events, on their way to the topic `dead-letter`. Apart from the events: a
//! letter the broker refuses holds up no order.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::FromRow;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bus::Inner;
use crate::database::{self, within};
use crate::dead_letters::{self, Place};
use crate::error::with_sources;
use crate::producer::{Outgoing, Publisher};
use crate::{Checkout, Error};

/// How often letters are looked for.
const INTERVAL: Duration = Duration::from_millis(500);
/// Letters sent at once; each may be nearly a megabyte.
const BATCH: i64 = 20;
/// How long reading letters and deleting them may take. Sending has no limit: the producer keeps
/// what it was given until the broker takes it, and another copy would only stand behind the first.
const LIMIT: Duration = Duration::from_mins(1);
/// When letters that the broker refused are sent again.
const SECOND_TRY: Duration = Duration::from_mins(1);

pub(super) struct Letters {
    pub(super) bus: Arc<Inner>,
    pub(super) publisher: Arc<Publisher>,
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
        let (mut refused, mut second_try) = (Vec::new(), Instant::now() + SECOND_TRY);
        loop {
            if Instant::now() >= second_try {
                refused.clear();
                second_try = Instant::now() + SECOND_TRY;
            }
            match self.send(&mut refused).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = with_sources(&error), "dead letters wait");
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Sends some letters that are not among the refused; true if there may be more. Those that
    /// the broker refuses stay, and hold up no other.
    async fn send(&self, refused: &mut Vec<i64>) -> Result<bool, Error> {
        let letters = within(LIMIT, self.read(refused)).await?;
        let topic = self.bus.full_name(&self.bus.dead_letter_topic);
        let deliveries: Vec<_> =
            letters.iter().map(|letter| self.enqueue(&topic, letter)).collect();
        let mut sent = Vec::with_capacity(letters.len());
        for (letter, delivery) in letters.iter().zip(deliveries) {
            let delivered =
                delivery.await.unwrap_or_else(|_| Err(Error::other("the producer gave no answer")));
            if let Err(error) = delivered {
                let Letter { topic, partition, offset, .. } = letter;
                let error = with_sources(&error);
                tracing::error!(topic, partition, offset, error, "a dead letter is refused");
                refused.push(letter.id);
            } else {
                sent.push(letter.id);
            }
        }
        if !sent.is_empty() {
            let published = &self.bus.metrics.published;
            let published = published.with_label_values(&[&*self.bus.dead_letter_topic]);
            published.inc_by(sent.len() as u64);
            within(LIMIT, self.delete(&sent)).await?;
        }
        Ok(i64::try_from(letters.len()).is_ok_and(|count| count == BATCH))
    }

    /// Hands a letter to the producer, and tells what became of it.
    fn enqueue(&self, topic: &str, letter: &Letter) -> oneshot::Receiver<Result<(), Error>> {
        let (settled, outcome) = oneshot::channel();
        // Nobody listens any more when another instance sends the letters.
        let settled = move |outcome| drop(settled.send(outcome));
        self.publisher.publish([self.record(topic, letter)], settled);
        outcome
    }

    async fn read(&self, refused: &[i64]) -> Result<Vec<Letter>, Error> {
        let mut connection = Checkout::take(&self.bus.pool).await?;
        let letters = sqlx::query_as(
            "SELECT id, topic, partition, \"offset\", key, payload, header_names, header_values, \
                    error, at \
             FROM sagabus.dead_letter WHERE id <> ALL($2) ORDER BY id LIMIT $1",
        )
        .bind(BATCH)
        .bind(refused)
        .fetch_all(&mut *connection)
        .await?;
        if !letters.is_empty() {
            // What cannot be deleted afterwards would be sent again and again.
            database::ensure_writable(&mut connection).await?;
        }
        connection.keep();
        Ok(letters)
    }

    async fn delete(&self, sent: &[i64]) -> Result<(), Error> {
        let mut connection = Checkout::take(&self.bus.pool).await?;
        sqlx::query("DELETE FROM sagabus.dead_letter WHERE id = ANY($1)")
            .bind(sent)
            .execute(&mut *connection)
            .await?;
        connection.keep();
        Ok(())
    }

    /// The record as it was, its own headers first, then where it came from and what was wrong.
    fn record<'a>(&'a self, topic: &'a str, letter: &'a Letter) -> Outgoing<'a> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in letter.header_names.iter().zip(&letter.header_values) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let origin = Place {
            topic: letter.topic.clone(),
            partition: letter.partition,
            offset: letter.offset,
        };
        for (key, value) in dead_letters::added(&origin, &letter.error, &self.bus.source, letter.at)
        {
            headers = headers.insert(Header { key: &key, value: value.as_deref() });
        }
        Outgoing {
            topic,
            partition: None,
            key: letter.key.as_deref(),
            payload: letter.payload.as_deref(),
            headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;
    use crate::Bus;

    #[tokio::test]
    async fn the_producer_takes_the_largest_letter() {
        // Nobody is there: the producer looks at a record's size before it looks for the broker.
        let pool = PgPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/none").unwrap();
        let mut kafka = rdkafka::ClientConfig::new();
        kafka.set("bootstrap.servers", "127.0.0.1:1");
        let bus = Bus::builder(pool, kafka).source("c".repeat(1_000)).build().unwrap();
        let publisher = Publisher::new(&bus.0.kafka, Arc::new(())).unwrap();
        let letters = Letters { bus: bus.0, publisher: Arc::new(publisher) };
        let letter = |bytes| Letter {
            id: 1,
            topic: "reservation".to_owned(),
            partition: i32::MAX,
            offset: i64::MAX,
            key: None,
            payload: Some(vec![0; bytes]),
            header_names: vec![dead_letters::header::CUT.to_owned()],
            header_values: vec![None],
            error: "\u{10ffff}".repeat(500),
            at: DateTime::UNIX_EPOCH,
        };
        let refusal = |letter| letters.enqueue("dead-letter", &letter).try_recv();
        // It waits for the broker.
        assert!(refusal(letter(dead_letters::LARGEST)).is_err());
        assert!(refusal(letter(dead_letters::LARGEST + 100_000)).unwrap().is_err());
    }
}
