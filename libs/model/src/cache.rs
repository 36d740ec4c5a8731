//! The cache of items, and I8: it equals the database. One item whose version rises, service-store's
//! outbox and relay, Redis, and two instances; the first of them relays.
//!
//! Assumed, as the constants of the service's `cache` have it ([`Guard::LongLife`]): no load outlives
//! an entry or a mark that was written after it began.

use std::fmt;

use clap::ValueEnum;
use stateright::{Model, Property};

use crate::check::Checked;

/// The cache equals the database.
pub const I8: &str = "I8 at rest what is cached is the database's version";
/// Events do not overtake the cache.
pub const I8_TOLD: &str = "I8 whoever was told of a version reads none before it";

/// What keeps the cache right. Each can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Guard {
    /// No older version is put over a newer one
    PutVersion,
    /// Redis is told of a version before its event is published
    MarkBeforePublish,
    /// What was asked for in another epoch is not put
    PutEpoch,
    /// After trouble, what was cached before is set aside by a new epoch
    Renewal,
    /// A failed invalidation is noted in the database
    Doubt,
    /// A new epoch is like none before, also when Redis has lost the last one
    UniqueEpoch,
    /// An instance that has just started takes Redis for another
    FirstLook,
    /// Whoever notes a doubt reads no cache from the commit until a check, whatever a check saw before
    LastingDoubt,
    /// Entries and marks outlive every load that began before them
    LongLife,
    /// A reader without the cache's word does not join a load that began before it came
    FreshLoad,
}

/// The most that happens in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Faults {
    /// Changes of the item.
    pub changes: u8,
    /// Requests to Redis, or their answers, that are lost.
    pub losses: u8,
    /// Restarts of Redis, which then is empty.
    pub restarts: u8,
    /// Crashes of an instance.
    pub crashes: u8,
}

/// What is checked when nothing else is said: each takes seconds at the most.
pub const STANDARD: [Faults; 5] = [
    Faults::new(2, 1, 0, 0),
    Faults::new(2, 0, 1, 0),
    Faults::new(1, 1, 1, 0),
    Faults::new(1, 0, 2, 0),
    Faults::new(1, 1, 0, 1),
];

/// Each guard, the faults that show what it is for, and what then breaks.
pub const MUTANTS: [(Guard, Faults, &str); 10] = [
    (Guard::PutVersion, Faults::new(1, 0, 0, 0), I8),
    (Guard::MarkBeforePublish, Faults::new(1, 0, 0, 0), I8_TOLD),
    (Guard::PutEpoch, Faults::new(1, 1, 0, 0), I8),
    (Guard::Renewal, Faults::new(1, 1, 0, 0), I8),
    (Guard::Doubt, Faults::new(1, 1, 0, 0), I8),
    (Guard::LongLife, Faults::new(1, 0, 0, 0), I8),
    (Guard::UniqueEpoch, Faults::new(1, 0, 2, 0), I8),
    (Guard::FirstLook, Faults::new(1, 0, 1, 2), I8),
    (Guard::LastingDoubt, Faults::new(1, 1, 0, 0), I8_TOLD),
    (Guard::FreshLoad, Faults::new(1, 1, 0, 0), I8_TOLD),
];

/// The model.
#[derive(Debug, Clone)]
pub struct Cache {
    /// What may happen.
    pub faults: Faults,
    /// The guards that are missing.
    pub without: Vec<Guard>,
    /// Check only the property of this name.
    pub only: Option<&'static str>,
}

/// What Redis holds of the item in its epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Entry {
    #[default]
    Nothing,
    Mark(u8),
    Value(u8),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Redis {
    /// Which server process it is.
    run: u8,
    epoch: u8,
    entry: Entry,
}

/// A load under the epoch of its GET.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Load {
    #[default]
    Nothing,
    Asked(u8),
    Loaded(u8, u8),
}

/// Where a check of Redis is, with the doubts it makes up for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Check {
    #[default]
    Nothing,
    Renewing(u8),
    Settling(u8),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Instance {
    /// The cache is read: it is not suspect, as it is after a start.
    trusts: bool,
    /// Redis answered last.
    is_up: bool,
    /// The server process last seen.
    seen: Option<u8>,
    load: Load,
    check: Check,
}

/// A state of it all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    left: Faults,
    /// The database: the item, and `cache_state`.
    version: u8,
    doubts: u8,
    settled: u8,
    redis: Redis,
    instances: [Instance; 2],
    /// The relay: Redis could not be told, and the doubt is not committed yet.
    is_doubting: bool,
    /// The newest version the relay has told Redis of (or noted a doubt), and the newest published.
    told: u8,
    published: u8,
    /// The highest epoch there was.
    epochs: u8,
}

/// What becomes of a request to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done and answered.
    Heard,
    /// It is done, and the answer is lost.
    Unheard,
    /// It is not done.
    Lost,
}

/// What can happen next; the number is the instance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The item changes, and its event is in the outbox.
    Change,
    /// The relay tells Redis of the next version.
    Mark(Answer),
    /// The relay does not ask a Redis that is known to be away.
    Spare,
    /// The relay's doubt is committed.
    NoteDoubt,
    /// The next event is published.
    Publish,
    /// A reader misses. (Who finds something changes nothing.)
    Get(usize, Answer),
    /// The item is read from the database.
    Load(usize),
    /// What was read is offered.
    Put(usize, Answer),
    /// A check looks at Redis and then at the doubts.
    Check(usize),
    /// It raises the epoch.
    Renew(usize, Answer),
    /// It settles the doubts it has seen.
    Settle(usize),
    /// The entry expires.
    Expire,
    /// Redis restarts.
    Restart,
    /// An instance crashes, and starts again.
    Crash(usize),
}

impl Faults {
    /// So many of each.
    pub const fn new(changes: u8, losses: u8, restarts: u8, crashes: u8) -> Self {
        Self { changes, losses, restarts, crashes }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, losses, restarts, crashes } = self;
        write!(f, "changes {changes}, losses {losses}, restarts {restarts}, crashes {crashes}")
    }
}

impl Entry {
    const fn version(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Mark(version) | Self::Value(version) => version,
        }
    }
}

impl Instance {
    const fn reads(self) -> bool {
        self.trusts && self.is_up
    }

    const fn loaded(self) -> Option<u8> {
        if let Load::Loaded(_, version) = self.load { Some(version) } else { None }
    }
}

impl State {
    /// Everything is told and settled, and every instance has looked.
    fn is_at_rest(&self) -> bool {
        let is_calm = |i: &Instance| i.load == Load::Nothing && i.reads() && !self.is_due(i);
        self.published == self.version
            && self.told == self.version
            && self.instances.iter().all(is_calm)
    }

    /// Whether a check of this instance would find anything to do.
    fn is_due(&self, instance: &Instance) -> bool {
        instance.check != Check::Nothing
            || !instance.reads()
            || instance.seen != Some(self.redis.run)
            || self.doubts > self.settled
    }

    /// Whether an instance has yet to learn of trouble: of another server, or of a doubt that is not
    /// its own. Its next check is due within a second.
    fn is_unaware(&self, number: usize) -> bool {
        let is_another = self.instances[number].seen != Some(self.redis.run);
        is_another || (number > 0 && self.doubts > self.settled)
    }
}

impl Cache {
    /// The model with these faults and without some guards.
    pub fn new(faults: Faults, without: &[Guard]) -> Self {
        Self { faults, without: without.to_vec(), only: None }
    }

    fn lacks(&self, guard: Guard) -> bool {
        self.without.contains(&guard)
    }

    fn has(&self, guard: Guard) -> bool {
        !self.lacks(guard)
    }

    /// Whether somebody who was told of what is published cannot read what was before it.
    fn tells_no_older(&self, state: &State) -> bool {
        let is_old = |version| version < state.published;
        (0..).zip(&state.instances).all(|(number, instance)| {
            let held = state.redis.entry;
            let finds = instance.reads() && matches!(held, Entry::Value(v) if is_old(v));
            // The reader would know better from a mark it is shown.
            let joins = self.lacks(Guard::FreshLoad)
                && instance.loaded().is_some_and(is_old)
                && !(instance.reads() && held.version() >= state.published);
            state.is_unaware(number) || !(finds || joins)
        })
    }

    fn put(&self, redis: &mut Redis, epoch: u8, version: u8) {
        let is_current = epoch == redis.epoch || self.lacks(Guard::PutEpoch);
        let is_new = redis.entry.version() <= version || self.lacks(Guard::PutVersion);
        if is_current && is_new {
            redis.entry = Entry::Value(version);
        }
    }

    fn check(&self, state: &mut State, number: usize) {
        let instance = &mut state.instances[number];
        let is_another = match instance.seen {
            Some(run) => run != state.redis.run,
            None => self.has(Guard::FirstLook),
        };
        state.doubts += u8::from(is_another);
        instance.seen = Some(state.redis.run);
        instance.trusts = state.doubts == state.settled;
        if instance.trusts {
            instance.is_up = true;
        } else {
            instance.check = Check::Renewing(state.doubts);
        }
    }

    fn renew(&self, state: &mut State) {
        if self.lacks(Guard::Renewal) {
            return;
        }
        let last = &mut state.redis.epoch;
        state.epochs = if self.lacks(Guard::UniqueEpoch) { *last } else { state.epochs } + 1;
        *last = state.epochs;
        state.redis.entry = Entry::Nothing;
    }

    /// The relay's step; `answer` is what becomes of the mark.
    fn mark(&self, state: &mut State, answer: Answer) {
        if answer != Answer::Lost && state.redis.entry.version() <= state.told {
            state.redis.entry = Entry::Mark(state.told + 1);
        }
        match answer {
            Answer::Heard => state.told += 1,
            _ if self.lacks(Guard::Doubt) => state.told += 1,
            _ => {
                state.is_doubting = true;
                state.instances[0].trusts = false;
            }
        }
    }
}

impl Model for Cache {
    type State = State;
    type Action = Step;

    /// Both instances run.
    fn init_states(&self) -> Vec<State> {
        let running = Instance { trusts: true, is_up: true, seen: Some(0), ..Instance::default() };
        vec![State {
            left: self.faults,
            version: 1,
            doubts: 0,
            settled: 0,
            redis: Redis::default(),
            instances: [running; 2],
            is_doubting: false,
            told: 1,
            published: 1,
            epochs: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let left = state.left;
        let answers: &[Answer] = match left.losses {
            0 => &[Answer::Heard],
            _ => &[Answer::Heard, Answer::Unheard, Answer::Lost],
        };
        let mut ask =
            |step: &dyn Fn(Answer) -> Step| steps.extend(answers.iter().map(|a| step(*a)));
        for (number, instance) in state.instances.iter().enumerate() {
            let finds = matches!(state.redis.entry, Entry::Value(_));
            match instance.load {
                Load::Nothing if instance.reads() && !finds => ask(&|a| Step::Get(number, a)),
                Load::Loaded(..) => ask(&|a| Step::Put(number, a)),
                _ => {}
            }
            if let Check::Renewing(_) = instance.check {
                ask(&|a| Step::Renew(number, a));
            }
        }
        let is_early = self.lacks(Guard::MarkBeforePublish);
        let is_next = state.told == state.published;
        let untold = if is_early { state.published } else { state.version };
        let can_mark = state.told < untold && (is_early || is_next) && !state.is_doubting;
        if can_mark && state.instances[0].is_up {
            ask(&Step::Mark);
        }
        steps.extend((can_mark && !state.instances[0].is_up).then_some(Step::Spare));
        steps.extend(state.is_doubting.then_some(Step::NoteDoubt));
        let publishable = if is_early && is_next { state.version } else { state.told };
        steps.extend((state.published < publishable).then_some(Step::Publish));
        for (number, instance) in state.instances.iter().enumerate() {
            let is_asked = matches!(instance.load, Load::Asked(_));
            steps.extend(is_asked.then_some(Step::Load(number)));
            let is_due = instance.check == Check::Nothing && state.is_due(instance);
            steps.extend(is_due.then_some(Step::Check(number)));
            let settles = matches!(instance.check, Check::Settling(_));
            steps.extend(settles.then_some(Step::Settle(number)));
            steps.extend((left.crashes > 0).then_some(Step::Crash(number)));
        }
        let held = state.redis.entry;
        let is_older = |i: &Instance| i.loaded().is_some_and(|version| version < held.version());
        let is_needed = self.has(Guard::LongLife) && state.instances.iter().any(is_older);
        steps.extend((held != Entry::Nothing && !is_needed).then_some(Step::Expire));
        steps.extend((left.changes > 0).then_some(Step::Change));
        steps.extend((left.restarts > 0).then_some(Step::Restart));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        if let Some((number, answer)) = step.asks()
            && answer != Answer::Heard
        {
            state.left.losses -= 1;
            state.instances[number].is_up = false;
        }
        match step {
            Step::Change => {
                state.left.changes -= 1;
                state.version += 1;
            }
            Step::Mark(answer) => self.mark(&mut state, answer),
            Step::Spare => self.mark(&mut state, Answer::Lost),
            Step::NoteDoubt => {
                state.is_doubting = false;
                state.doubts += 1;
                state.told += 1;
                state.instances[0].trusts &= self.lacks(Guard::LastingDoubt);
            }
            Step::Publish => state.published += 1,
            Step::Get(number, Answer::Heard) => {
                state.instances[number].load = Load::Asked(state.redis.epoch);
            }
            Step::Get(..) => {}
            Step::Load(number) => {
                if let Load::Asked(epoch) = state.instances[number].load {
                    state.instances[number].load = Load::Loaded(epoch, state.version);
                }
            }
            Step::Put(number, answer) => {
                let load = std::mem::take(&mut state.instances[number].load);
                if let (Load::Loaded(epoch, version), true) = (load, answer != Answer::Lost) {
                    self.put(&mut state.redis, epoch, version);
                }
            }
            Step::Check(number) => self.check(&mut state, number),
            Step::Renew(number, answer) => {
                if answer != Answer::Lost {
                    self.renew(&mut state);
                }
                let check = &mut state.instances[number].check;
                *check = match *check {
                    Check::Renewing(doubts) if answer == Answer::Heard => Check::Settling(doubts),
                    _ => Check::Nothing,
                };
            }
            Step::Settle(number) => {
                let instance = &mut state.instances[number];
                if let Check::Settling(doubts) = std::mem::take(&mut instance.check) {
                    state.settled = state.settled.max(doubts);
                }
                instance.is_up = true;
            }
            Step::Expire => state.redis.entry = Entry::Nothing,
            Step::Restart => {
                state.left.restarts -= 1;
                state.redis = Redis { run: state.redis.run + 1, ..Redis::default() };
            }
            Step::Crash(number) => {
                state.left.crashes -= 1;
                state.instances[number] = Instance::default();
                if number == 0 {
                    state.is_doubting = false;
                    state.told = state.told.min(state.published);
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(I8, |_: &Self, state: &State| {
                let is_stale = matches!(state.redis.entry, Entry::Value(v) if v < state.version);
                !(state.is_at_rest() && is_stale)
            }),
            Property::always(I8_TOLD, |cache: &Self, state: &State| cache.tells_no_older(state)),
            Property::sometimes("at rest an item is cached that changed", |_, state: &State| {
                let is_newest = state.redis.entry == Entry::Value(state.version);
                state.is_at_rest() && state.version > 1 && is_newest
            }),
            Property::sometimes("the cache is renewed after trouble", |_, state: &State| {
                state.is_at_rest() && state.redis.epoch > 0
            }),
        ];
        properties.retain(|property| self.only.is_none_or(|only| property.name == only));
        properties
    }
}

impl Checked for Cache {
    fn only(&self, property: &'static str) -> Self {
        Self { only: Some(property), ..self.clone() }
    }

    fn tell(&self, steps: &[Step]) -> (Vec<String>, Vec<String>) {
        let mut state = self.init_states().remove(0);
        let mut lines = Vec::with_capacity(steps.len());
        for step in steps {
            let after = self.next_state(&state, *step).unwrap_or_else(|| state.clone());
            lines.push(step.tell(&state, &after));
            state = after;
        }
        let State { version, published, doubts, settled, redis, .. } = &state;
        let end = vec![
            format!("database: version {version}, {doubts} doubts, {settled} settled"),
            format!("published: version {published}"),
            format!("Redis: epoch {}, {}", redis.epoch, redis.entry),
        ];
        (lines, end)
    }
}

impl Step {
    /// The instance that asks Redis for something, and what becomes of it.
    const fn asks(self) -> Option<(usize, Answer)> {
        match self {
            Self::Mark(answer) => Some((0, answer)),
            Self::Get(n, answer) | Self::Put(n, answer) | Self::Renew(n, answer) => {
                Some((n, answer))
            }
            _ => None,
        }
    }

    /// The step in words.
    fn tell(self, before: &State, after: &State) -> String {
        let next = before.told + 1;
        let held = after.redis.entry;
        let told = match self {
            Self::Change => format!("the item changes to version {}", after.version),
            Self::Mark(_) => format!("the relay tells Redis of version {next}; Redis: {held}"),
            Self::Spare => format!("the relay knows Redis is away and doubts, for version {next}"),
            Self::NoteDoubt => format!("the relay's doubt {} is committed", after.doubts),
            Self::Publish => format!("the event of version {} is published", after.published),
            Self::Get(n, _) => {
                format!("instance {} asks Redis, epoch {}: a miss", n + 1, before.redis.epoch)
            }
            Self::Load(n) => format!("instance {} reads version {}", n + 1, before.version),
            Self::Put(n, _) => {
                let version = before.instances[n].loaded().unwrap_or_default();
                format!("instance {} offers version {version}; Redis: {held}", n + 1)
            }
            Self::Check(n) if after.instances[n].trusts => {
                format!("instance {} checks Redis: nothing is in doubt", n + 1)
            }
            Self::Check(n) => {
                format!("instance {} checks Redis: doubts up to {}", n + 1, after.doubts)
            }
            Self::Renew(n, _) => format!("instance {} makes epoch {}", n + 1, after.redis.epoch),
            Self::Settle(n) => format!("instance {} settles doubts up to {}", n + 1, after.settled),
            Self::Expire => "the entry expires".to_owned(),
            Self::Restart => "Redis restarts, empty".to_owned(),
            Self::Crash(n) => format!("instance {} crashes and starts again", n + 1),
        };
        match self.asks() {
            Some((_, Answer::Unheard)) => told + " (the answer is lost)",
            Some((_, Answer::Lost)) => told + " (the request is lost)",
            _ => told,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Mark(version) => write!(f, "a mark of version {version}"),
            Self::Value(version) => write!(f, "version {version}"),
        }
    }
}
