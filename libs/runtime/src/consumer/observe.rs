//! Once a second: what is behind, what was lost and what stands still, from what librdkafka tells;
//! and another try for what stands still.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;

use super::poll::{self, Client, Poller};
use super::progress::{self, Position, Seen, Stalled, Watch};
use super::{Consumer, Handler, LAG, LOST, NEXT_OFFSET, Place, RETRYING, STALLED, Shared, Told};
use crate::kafka;
use crate::raw_record::{self, Found};

/// How often a partition that stands still is tried again, from the database's offset: somebody
/// may have stepped over the record.
const RETRY: Duration = Duration::from_secs(5);
/// How long reading one record to see what is wrong may take; it holds up the other partitions.
const LOOK: Duration = Duration::from_secs(2);
/// A batch that has been retried for so long shows.
const LONG: Duration = Duration::from_mins(1);
/// Polls that found nothing until everything told before has been delivered. (One may have found
/// something that is no record.)
const EMPTY: u32 = 2;

/// What the polling thread remembers from second to second.
#[derive(Default)]
pub(super) struct Observed {
    /// The offset fetched next, as told last, and what of it has been delivered since.
    next: HashMap<Place, i64>,
    drained: HashMap<Place, i64>,
    empty_polls: u32,
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
        self.empty_polls = self.empty_polls.saturating_add(1);
    }

    pub(super) fn skipped(&mut self, place: Place, from: i64, to: i64) {
        self.newly_skipped.push((place, from, to));
    }
}

impl<H: Handler> Poller<'_, H> {
    /// Looks at what librdkafka has told, if it has.
    pub(super) fn observe(&mut self, client: &Client<H>) -> anyhow::Result<()> {
        let told = self.shared.told.lock().take();
        let Some(Told { broker_is_up, partitions }) = told else { return Ok(()) };
        self.note_drained(&partitions);
        self.tell_losses(&partitions);
        let positions = self.positions(&partitions);
        for (place, (position, seen)) in &positions {
            let labels = [place.0.name(), &place.1.to_string()];
            NEXT_OFFSET.with_label_values(&labels).set(position.applied);
            if let Some(lag) = progress::lag(*position, *seen) {
                LAG.with_label_values(&labels).set(lag);
            }
        }
        self.judge(broker_is_up, &positions);
        self.report(broker_is_up);
        let is_due = self.observed.tried.is_none_or(|tried| tried.elapsed() >= RETRY);
        if is_due && broker_is_up {
            self.observed.tried = Some(Instant::now());
            self.try_again(client)?;
        }
        Ok(())
    }

    /// What had been fetched by the report before has been delivered by now, if the queue was empty
    /// meanwhile. Where an error was reported, something may have been passed over.
    fn note_drained(&mut self, partitions: &HashMap<Place, Seen>) {
        let next = partitions.iter().filter_map(|(place, seen)| Some((*place, seen.next?)));
        let before = std::mem::replace(&mut self.observed.next, next.collect());
        if self.observed.empty_polls >= EMPTY {
            for (place, next) in before {
                if !self.has_complained(place) && !self.blocked.contains(&place) {
                    self.observed.drained.insert(place, next);
                }
            }
        }
        self.observed.empty_polls = 0;
    }

    fn tell_losses(&mut self, partitions: &HashMap<Place, Seen>) {
        let observed = &mut self.observed;
        for (place, from, to) in std::mem::take(&mut observed.skipped) {
            let seen = partitions.get(&place).copied().unwrap_or_default();
            let lost = progress::lost(from, to, seen);
            if lost > 0 {
                let (topic, partition) = place;
                tracing::error!(%topic, partition, from, lost, "records were gone before they were read");
                LOST.with_label_values(&[topic.name()]).inc_by(lost.unsigned_abs());
            }
        }
        observed.skipped = std::mem::take(&mut observed.newly_skipped);
    }

    fn positions(&self, partitions: &HashMap<Place, Seen>) -> HashMap<Place, (Position, Seen)> {
        let (applied, fetched) = (self.shared.applied.lock(), self.shared.fetched.lock());
        let position = |(place, applied): (&Place, &i64)| {
            let fetched = fetched.get(place).copied().unwrap_or(*applied);
            let drained = self.observed.drained.get(place).copied().unwrap_or_default();
            let seen = partitions.get(place).copied().unwrap_or_default();
            (*place, (Position { applied: *applied, fetched, drained }, seen))
        };
        applied.iter().map(position).collect()
    }

    /// Finds the partitions that stand still, and tells of those that are new or go on again.
    fn judge(&mut self, broker_is_up: bool, positions: &HashMap<Place, (Position, Seen)>) {
        let mut running = positions.clone();
        running.retain(|(_, partition), _| !self.shared.is_paused(*partition));
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
                    self.confirm(&candidate)
                }
            };
            stalled.extend(found.map(|found| (candidate.place, found)));
        }
        for ((topic, partition), (offset, error)) in &stalled {
            if !self.observed.stalled.contains_key(&(*topic, *partition)) {
                tracing::error!(%topic, partition, offset, error, "a partition stands still");
            }
        }
        for (topic, partition) in self.observed.stalled.keys() {
            if !stalled.contains_key(&(*topic, *partition)) {
                tracing::info!(%topic, partition, "a partition goes on");
            }
        }
        for place in positions.keys() {
            let labels = [place.0.name(), &place.1.to_string()];
            STALLED.with_label_values(&labels).set(stalled.contains_key(place).into());
        }
        self.observed.stalled = stalled;
    }

    /// Looks whether the partition really holds a record that cannot be read, and why.
    fn confirm(&mut self, candidate: &Stalled) -> Option<(i64, String)> {
        let Stalled { place, offset, error, end } = candidate;
        let why = match self.look(*place, *offset) {
            Ok(Found::End) => {
                // A transaction's marker, or nothing that may be read yet.
                self.observed.drained.insert(*place, end.unwrap_or_default().max(*offset + 1));
                return None;
            }
            Ok(Found::Record(_)) => error.clone().unwrap_or_else(|| "no record comes".to_owned()),
            Ok(Found::Unreadable(error)) => error,
            Err(no_answer) => error.clone().unwrap_or_else(|| format!("{no_answer:#}")),
        };
        Some((*offset, why))
    }

    /// Whether there is something between two offsets that ought to have been delivered.
    pub(super) fn hides_a_record(&self, place: Place, from: i64, to: i64) -> bool {
        !matches!(self.look(place, from), Ok(Found::Record(record)) if record.offset >= to)
    }

    fn look(&self, (topic, partition): Place, offset: i64) -> anyhow::Result<Found> {
        let settings = poll::settings(&self.shared.consumer.kafka);
        let topic = self.shared.topic_name(topic);
        raw_record::read(&settings, &topic, i32::try_from(partition)?, offset, LOOK)
    }

    /// Shows on `/ready` what stands still.
    fn report(&self, broker_is_up: bool) {
        let Consumer { broker, processing, .. } = &self.shared.consumer;
        let missing = if self.shared.assigned.load(Ordering::Acquire) {
            let stalled = self.observed.stalled.iter().next();
            stalled.map(|((topic, partition), (offset, error))| {
                let others = self.observed.stalled.len() - 1;
                let more = if others > 0 { format!(" ({others} more)") } else { String::new() };
                format!("{topic}/{partition} stands still at offset {offset}: {error}{more}")
            })
        } else {
            Some("no partitions assigned yet".to_owned())
        };
        kafka::report(broker, broker_is_up, &self.shared.refusal, missing.as_deref());
        let retried = self.shared.retried.lock().clone();
        for lane in 0..self.shared.lanes.len() {
            let seconds = retried.get(&lane).map_or(0, |(since, _)| since.elapsed().as_secs());
            RETRYING
                .with_label_values(&[&lane.to_string()])
                .set(seconds.try_into().unwrap_or(i64::MAX));
        }
        match retried.values().min_by_key(|(since, _)| *since) {
            Some((since, why)) if since.elapsed() >= LONG => {
                let minutes = since.elapsed().as_secs() / 60;
                processing.down(format_args!("a batch has been retried for {minutes} min: {why}"));
            }
            _ => processing.up(),
        }
    }

    /// Lets partitions that stand still go on from the database's offsets, which may have been
    /// moved over the record.
    fn try_again(&mut self, client: &Client<H>) -> anyhow::Result<()> {
        let still = self.observed.stalled.keys().chain(&self.blocked).copied();
        let mut places: Vec<Place> = still.collect();
        places.sort_unstable();
        places.dedup();
        // What is on its way to the database moves its offset without anybody's help.
        {
            let (applied, fetched) = (self.shared.applied.lock(), self.shared.fetched.lock());
            places.retain(|place| applied.get(place) == fetched.get(place));
        }
        if places.is_empty() {
            return Ok(());
        }
        match self.shared.positions_now(&places) {
            Ok(positions) => {
                for (place, position) in positions {
                    let before = self.shared.fetched.lock().get(&place).copied();
                    let is_moved = before != Some(position);
                    // What is in the queue still is of the old position, until the client has
                    // sought the new one.
                    if (is_moved || self.blocked.contains(&place))
                        && self.shared.seek(client, place, position)?
                    {
                        self.blocked.remove(&place);
                        self.observed.drained.remove(&place);
                        self.observed.next.remove(&place);
                        self.shared.fetched.lock().insert(place, position);
                        self.shared.applied.lock().insert(place, position);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "offsets cannot be read"),
        }
        Ok(())
    }
}

impl<H: Handler> Shared<H> {
    fn is_paused(&self, partition: u32) -> bool {
        self.lanes[self.handler.lane_of(partition)].paused.lock().is_some()
    }

    /// Lets the client go on at an offset; false if it does not yet.
    fn seek(
        &self,
        client: &Client<H>,
        (topic, partition): Place,
        offset: i64,
    ) -> anyhow::Result<bool> {
        let partition = i32::try_from(partition)?;
        let sought = client.seek(&self.topic_name(topic), partition, Offset::Offset(offset), LOOK);
        if let Err(error) = &sought {
            tracing::debug!(%error, "a partition is tried again later");
        }
        Ok(sought.is_ok())
    }
}
