//! Once a second: what is behind, what was lost and what stands still, from what librdkafka tells;
//! and another try for what stands still.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, Statistics};

use super::owner::{Client, Owner, settings};
use super::progress::{self, Position, Seen, Stalled, Watch};
use super::rebalance::number;
use super::{Consumer, Handler, Place, Reach};
use crate::error::with_sources;
use crate::raw_record::{self, Found};
use crate::{Error, kafka};

/// How often a partition that stands still is tried again, from the database's offset: somebody
/// may have stepped over the record.
const RETRY: Duration = Duration::from_secs(5);
/// How long reading one record to see what is wrong may take; it holds up the other partitions.
const LOOK: Duration = Duration::from_secs(2);
/// A batch that has been retried for so long shows.
const LONG: Duration = Duration::from_mins(1);
/// What is remembered from second to second.
#[derive(Default)]
pub(super) struct Observed {
    /// The offset fetched next, as told last, and what of it has been delivered since.
    next: HashMap<Place, i64>,
    drained: HashMap<Place, i64>,
    /// Everything told before has been delivered.
    was_empty: bool,
    /// Offsets passed over, and those that only the next report can say more of.
    skipped: Vec<(Place, i64, i64)>,
    newly_skipped: Vec<(Place, i64, i64)>,
    watch: Watch,
    /// The partitions that stand still: at which offset, and why.
    stalled: BTreeMap<Place, (i64, String)>,
    tried: Option<Instant>,
}

impl Observed {
    pub(super) fn queue_was_empty(&mut self) {
        self.was_empty = true;
    }

    pub(super) fn skipped(&mut self, place: Place, from: i64, to: i64) {
        self.newly_skipped.push((place, from, to));
    }
}

impl<H: Handler> Owner<'_, H> {
    /// Looks at what librdkafka has told.
    pub(super) async fn observe(&mut self, statistics: &Statistics) -> Result<(), Error> {
        let partitions = self.seen(statistics);
        let broker_is_up = kafka::broker_is_up(statistics);
        self.note_drained(&partitions);
        self.tell_losses(&partitions);
        let positions = self.positions(&partitions);
        let metrics = &self.consumer.bus.metrics;
        for (place, (position, seen)) in &positions {
            let labels = [self.consumer.name(*place), &place.1.to_string()];
            metrics.next_offset.with_label_values(&labels).set(position.applied);
            let lag = progress::lag(*position, *seen);
            if let Some(lag) = lag {
                metrics.lag.with_label_values(&labels).set(lag);
            }
            let reach = Reach { applied: position.applied, end: seen.end, lag };
            self.consumer.handler.observed(labels[0], place.1, reach);
        }
        self.judge(broker_is_up, &positions).await;
        self.report(broker_is_up);
        let is_due = self.observed.tried.is_none_or(|tried| tried.elapsed() >= RETRY);
        if is_due && broker_is_up {
            self.observed.tried = Some(Instant::now());
            self.try_again().await?;
        }
        Ok(())
    }

    /// What is told of the partitions that are here.
    fn seen(&self, statistics: &Statistics) -> HashMap<Place, Seen> {
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let seen = |place: &Place| {
            let topic = statistics.topics.get(&self.consumer.topics[place.0].full_name)?;
            let told = topic.partitions.get(&number(*place))?;
            // Of a partition without a leader, what was known last is told again and again.
            (told.leader >= 0).then(|| Seen {
                start: known(told.lo_offset),
                // Records of a transaction that is not over may not be read yet.
                end: known(told.ls_offset).or(known(told.hi_offset)),
                next: known(told.next_offset),
            })
        };
        self.applied.keys().map(|place| (*place, seen(place).unwrap_or_default())).collect()
    }

    /// What had been fetched by the report before has been delivered by now, if the queue was empty
    /// meanwhile. Where an error was reported, something may have been passed over.
    fn note_drained(&mut self, partitions: &HashMap<Place, Seen>) {
        let next = partitions.iter().filter_map(|(place, seen)| Some((*place, seen.next?)));
        let before = std::mem::replace(&mut self.observed.next, next.collect());
        if std::mem::take(&mut self.observed.was_empty) {
            for (place, next) in before {
                if !self.has_complained(place) && !self.blocked.contains(&place) {
                    self.observed.drained.insert(place, next);
                }
            }
        }
    }

    fn tell_losses(&mut self, partitions: &HashMap<Place, Seen>) {
        let observed = &mut self.observed;
        for (place, from, to) in std::mem::take(&mut observed.skipped) {
            let seen = partitions.get(&place).copied().unwrap_or_default();
            let lost = progress::lost(from, to, seen);
            if lost > 0 {
                let (topic, partition) = (self.consumer.name(place), place.1);
                tracing::error!(
                    topic,
                    partition,
                    from,
                    lost,
                    "records were gone before they were read"
                );
                self.consumer
                    .bus
                    .metrics
                    .lost
                    .with_label_values(&[topic])
                    .inc_by(lost.unsigned_abs());
            }
        }
        observed.skipped = std::mem::take(&mut observed.newly_skipped);
    }

    fn positions(&self, partitions: &HashMap<Place, Seen>) -> HashMap<Place, (Position, Seen)> {
        let position = |(place, applied): (&Place, &i64)| {
            let fetched = self.fetched.get(place).copied().unwrap_or(*applied);
            let drained = self.observed.drained.get(place).copied().unwrap_or_default();
            let seen = partitions.get(place).copied().unwrap_or_default();
            (*place, (Position { applied: *applied, fetched, drained }, seen))
        };
        self.applied.iter().map(position).collect()
    }

    /// Finds the partitions that stand still, and tells of those that are new or go on again.
    async fn judge(&mut self, broker_is_up: bool, positions: &HashMap<Place, (Position, Seen)>) {
        let mut running = positions.clone();
        running.retain(|(_, partition), _| !self.is_paused(*partition));
        if !broker_is_up {
            running.clear();
        }
        let candidates = self.observed.watch.judge(Instant::now(), &running, self.heard.as_ref());
        let mut stalled = BTreeMap::new();
        // One look a second: it holds up the polling, and with it the group.
        let mut has_looked = false;
        for candidate in candidates {
            let known = self.observed.stalled.get(&candidate.place);
            let known = known.filter(|(offset, _)| *offset == candidate.offset).cloned();
            let found = match known {
                Some(known) => Some(known),
                None if has_looked => None,
                None => {
                    has_looked = true;
                    self.confirm(&candidate).await
                }
            };
            stalled.extend(found.map(|found| (candidate.place, found)));
        }
        for (place, (offset, error)) in &stalled {
            if !self.observed.stalled.contains_key(place) {
                let (topic, partition) = (self.consumer.name(*place), place.1);
                tracing::error!(topic, partition, offset, error, "a partition stands still");
            }
        }
        for place in self.observed.stalled.keys() {
            if !stalled.contains_key(place) {
                let (topic, partition) = (self.consumer.name(*place), place.1);
                tracing::info!(topic, partition, "a partition goes on");
            }
        }
        let gauge = &self.consumer.bus.metrics.stalled;
        for place in positions.keys() {
            let labels = [self.consumer.name(*place), &place.1.to_string()];
            gauge.with_label_values(&labels).set(stalled.contains_key(place).into());
        }
        self.observed.stalled = stalled;
    }

    /// Looks whether the partition really holds a record that cannot be read, and why.
    async fn confirm(&mut self, candidate: &Stalled) -> Option<(i64, String)> {
        let Stalled { place, offset, error, end } = candidate;
        let consumer = self.consumer;
        let why = match self.meanwhile(consumer.look(*place, *offset).boxed()).await {
            Ok(Found::End) => {
                // A transaction's marker, or nothing that may be read yet.
                self.observed.drained.insert(*place, end.unwrap_or_default().max(*offset + 1));
                return None;
            }
            Ok(Found::Record(_)) => error.clone().unwrap_or_else(|| "no record comes".to_owned()),
            Ok(Found::Unreadable(error)) => error,
            Err(no_answer) => error.clone().unwrap_or_else(|| with_sources(&no_answer)),
        };
        Some((*offset, why))
    }

    /// Whether there is something between two offsets that ought to have been delivered.
    pub(super) async fn hides_a_record(&mut self, place: Place, from: i64, to: i64) -> bool {
        let consumer = self.consumer;
        let found = self.meanwhile(consumer.look(place, from).boxed()).await;
        !matches!(found, Ok(Found::Record(record)) if record.offset >= to)
    }

    /// Tells whoever watches what stands still.
    fn report(&self, broker_is_up: bool) {
        let missing = if self.is_assigned {
            let stalled = self.observed.stalled.iter().next();
            stalled.map(|(place, (offset, error))| {
                let others = self.observed.stalled.len() - 1;
                let more = if others > 0 { format!(" ({others} more)") } else { String::new() };
                let (topic, partition) = (self.consumer.name(*place), place.1);
                format!("{topic}/{partition} stands still at offset {offset}: {error}{more}")
            })
        } else {
            Some("no partitions assigned yet".to_owned())
        };
        let broker = &*self.consumer.broker;
        kafka::report(broker, broker_is_up, &self.refusal, missing.as_deref());
        let retrying = &self.consumer.bus.metrics.retrying;
        for (number, lane) in self.lanes.iter().enumerate() {
            let seconds = lane.retried.map_or(0, |(since, _)| since.elapsed().as_secs());
            let gauge = retrying.with_label_values(&[&number.to_string()]);
            gauge.set(seconds.try_into().unwrap_or(i64::MAX));
        }
        let longest = self.lanes.iter().filter_map(|lane| lane.retried).min_by_key(|(at, _)| *at);
        match longest {
            Some((since, why)) if since.elapsed() >= LONG => {
                let minutes = since.elapsed().as_secs() / 60;
                let why = format!("a batch has been retried for {minutes} min: {why}");
                self.consumer.processing.down(&why);
            }
            _ => self.consumer.processing.up(),
        }
    }

    /// Lets partitions that stand still go on from the database's offsets, which may have been
    /// moved over the record.
    async fn try_again(&mut self) -> Result<(), Error> {
        let still = self.observed.stalled.keys().chain(&self.blocked).copied();
        let mut places: Vec<Place> = still.collect();
        places.sort_unstable();
        places.dedup();
        // What is on its way to the database moves its offset without anybody's help.
        places.retain(|place| self.applied.get(place) == self.fetched.get(place));
        if places.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer;
        let positions = match self.meanwhile(consumer.positions(&places).boxed()).await {
            Ok(positions) => positions,
            Err(error) => {
                tracing::debug!(error = with_sources(&error), "offsets cannot be read");
                return Ok(());
            }
        };
        // What is in the queue still is of the old position, until the client has sought the new one.
        let is_to_be_sought = |(place, position): &(Place, i64)| {
            self.fetched.get(place) != Some(position) || self.blocked.contains(place)
        };
        let sought: Vec<_> = positions.into_iter().filter(is_to_be_sought).collect();
        let client = self.client.clone();
        for (place, position) in self.meanwhile(consumer.seek(client, sought).boxed()).await {
            self.blocked.remove(&place);
            self.observed.drained.remove(&place);
            self.observed.next.remove(&place);
            self.fetched.insert(place, position);
            self.applied.insert(place, position);
        }
        Ok(())
    }

    fn is_paused(&self, partition: u32) -> bool {
        self.lanes[self.consumer.handler.lane_of(partition)].paused.is_some()
    }
}

impl<H: Handler> Consumer<H> {
    async fn look(&self, place: Place, offset: i64) -> Result<Found, Error> {
        let (settings, topic) = (settings(self), &self.topics[place.0]);
        let topic = topic.full_name.clone();
        let read = move || raw_record::read(&settings, &topic, number(place), offset, LOOK);
        let found = tokio::task::spawn_blocking(read).await;
        found.unwrap_or_else(|error| Err(Error::other(error.to_string())))
    }

    /// Lets the client go on at these offsets, and tells at which of them it does.
    async fn seek(&self, client: Arc<Client>, to: Vec<(Place, i64)>) -> Vec<(Place, i64)> {
        let named = to.into_iter().map(|it| (self.topics[it.0.0].full_name.clone(), it));
        let named: Vec<_> = named.collect();
        let seek = move || {
            let is_there = |(topic, (place, offset)): &(String, (Place, i64))| {
                let sought = client.seek(topic, number(*place), Offset::Offset(*offset), LOOK);
                if let Err(error) = &sought {
                    tracing::debug!(%error, "a partition is tried again later");
                }
                sought.is_ok()
            };
            named.into_iter().filter(is_there).map(|(_, it)| it).collect()
        };
        tokio::task::spawn_blocking(seek).await.unwrap_or_default()
    }
}
