//! A lease, and what publishes under it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::message::{Header, OwnedHeaders};

use super::Invalidate;
use crate::bus::Inner;
use crate::error::with_sources;
use crate::outbox::{Batch, Published};
use crate::producer::{Outgoing, Publisher};
use crate::wire::{self, Stored};
use crate::{Error, cloud_event, crash, trace};

/// Messages on their way to the broker from memory, at the most: it bounds memory. What comes while
/// there are more is left to the table, and read back when there is room.
const IN_FLIGHT: usize = 50_000;

pub(crate) struct LeaseHeld {
    number: i64,
    bus: Arc<Inner>,
    publisher: Arc<Publisher>,
    caches: Option<Arc<dyn Invalidate>>,
    /// It is not to be renewed: others are to look for its rows.
    is_given_up: AtomicBool,
}

impl LeaseHeld {
    pub(super) fn new(
        bus: Arc<Inner>,
        publisher: Arc<Publisher>,
        caches: Option<Arc<dyn Invalidate>>,
    ) -> Self {
        let number = fastrand::i64(1..);
        Self { number, bus, publisher, caches, is_given_up: AtomicBool::new(false) }
    }

    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// Whether as many messages more may be on their way.
    pub(crate) fn has_room(&self, messages: usize) -> bool {
        !self.is_given_up.load(Ordering::Acquire) && self.in_flight() + messages <= IN_FLIGHT
    }

    pub(super) fn in_flight(&self) -> usize {
        self.publisher.in_flight.load(Ordering::Acquire)
    }

    pub(super) fn is_sound(&self) -> bool {
        !self.is_given_up.load(Ordering::Acquire) && self.publisher.is_sound()
    }

    /// Lets the lease end, so that all of its rows are looked for.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// Publishes a committed row, behind what it means to caches.
    pub(crate) fn publish(self: &Arc<Self>, row: i64, batch: Batch) {
        crash::point("relay.before_publish");
        self.publisher.in_flight.fetch_add(batch.count(), Ordering::AcqRel);
        let changed = batch.cache_ids.iter().copied().zip(batch.cache_versions.iter().copied());
        let changed: Vec<_> = changed.collect();
        match &self.caches {
            Some(caches) if !changed.is_empty() => {
                let (lease, caches) = (self.clone(), caches.clone());
                tokio::spawn(async move {
                    match caches.invalidate(changed).await {
                        Ok(()) => lease.send(row, &batch),
                        Err(error) => lease.settle(row, batch.count(), Err(Error::Caches(error))),
                    }
                });
            }
            _ => self.send(row, &batch),
        }
    }

    fn send(self: &Arc<Self>, row: i64, batch: &Batch) {
        let messages = match wire::read(&batch.records) {
            Ok(messages) => messages,
            Err(error) => return self.settle(row, batch.count(), Err(error)),
        };
        let time = cloud_event::time(batch.time);
        let mut sending = Vec::new();
        let mut topics: BTreeMap<&str, (String, u64)> = BTreeMap::new();
        for message in &messages {
            let full = || (self.bus.full_name(message.topic), 0);
            topics.entry(message.topic).or_insert_with(full).1 += 1;
        }
        let traces = self.bus.traces.as_ref();
        let records = messages.iter().map(|message| {
            let topic = &topics[message.topic].0;
            let span = trace::Sending::begin(traces, topic, message.key, message.traceparent);
            let own = span.as_ref().map(trace::Sending::traceparent);
            sending.extend(span);
            Outgoing {
                topic,
                partition: message.partition,
                key: Some(message.key.as_bytes()),
                payload: Some(message.payload),
                headers: self.headers(message, &time, own.as_deref().or(message.traceparent)),
            }
        });
        let records: Vec<_> = records.collect();
        let (lease, count) = (self.clone(), batch.count());
        self.publisher.publish(records, move |outcome| {
            if let Err(error) = &outcome {
                for span in &mut sending {
                    span.fail(&with_sources(error));
                }
            }
            lease.settle(row, count, outcome);
        });
        for (topic, (_, count)) in topics {
            self.bus.metrics.published.with_label_values(&[topic]).inc_by(count);
        }
    }

    fn headers(&self, message: &Stored<'_>, time: &str, traceparent: Option<&str>) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(7);
        for (key, value) in [
            (cloud_event::SPEC_VERSION, "1.0"),
            (cloud_event::ID, message.id),
            (cloud_event::TYPE, message.kind),
            (cloud_event::SOURCE, &self.bus.source),
            (cloud_event::TIME, time),
            (cloud_event::CONTENT_TYPE, &self.bus.content_type),
        ]
        .into_iter()
        .chain(traceparent.map(|value| (cloud_event::TRACEPARENT, value)))
        {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers
    }

    fn settle(&self, row: i64, messages: usize, outcome: Result<(), Error>) {
        self.publisher.in_flight.fetch_sub(messages, Ordering::AcqRel);
        match outcome {
            Ok(()) => self.bus.outbox.published(Published { row, lease: self.number }),
            Err(error) => {
                tracing::debug!(row, error = with_sources(&error), "messages are published again");
                self.give_up();
            }
        }
    }
}
