//! The clients: one thread that sends requests over many connections and takes their answers.

pub(crate) mod waiting;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::answer::{self, Answer};
use crate::clock::{self, Clock};
use crate::connection::{Connection, Trouble};
use crate::live::Live;
use crate::orders::Orders;
use crate::request::{Create, Endpoint, Numbered};
use crate::sent::{Sent, Used};
use crate::source::Source;
use crate::{PATIENCE, Plan};

/// Events taken at once.
const EVENTS: usize = 256;
/// Without anything to do it looks up so often: at clients without an answer, and whether to stop.
const LOOK_US: u64 = 50_000;
/// At a high rate, creates that are due within so short a time are sent together: to wake up for
/// each would cost more than the request.
const TOGETHER_US: u64 = 100;
/// In a closed loop answers are taken together that come within this part of the usual latency, and
/// no longer than this: fewer turns of this thread leave more of the machine to what is measured.
const SHARE_OF_LATENCY: u64 = 64;
const LINGER_US: std::ops::RangeInclusive<u64> = 50..=500;
/// Status requests are for one of so many of the newest orders.
const RECENT: usize = 1 << 16;
/// The token of the timer's events; those of connections are below.
const TIMER: u64 = u64::MAX;
/// The shortest and longest wait after a refusal or a broken connection.
const BACKOFF_US: (u64, u64) = (5_000, 200_000);

/// What a client is waiting for.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Nothing,
    /// Until it is taken from those that wait.
    Waiting,
    /// The number of the item.
    Create(u32),
    /// The order's place.
    Cancel(usize),
    Read,
    /// The place of the order whose end it waits for.
    Await(usize),
}

struct Client {
    desk: Connection,
    reader: Connection,
    /// Which of the instances its connections are to.
    create_at: usize,
    read_at: usize,
    doing: Doing,
    /// When it was begun: that is where latency counts from.
    begun: u64,
    /// When it was really sent.
    sent: u64,
    /// The order whose end it waits for before it does anything else.
    awaited: Option<waiting::Awaited>,
    /// Status or item requests it still wants to send.
    reads: u32,
    /// Refusals and errors in a row.
    failures: u32,
}

/// All clients, what they have to do and what they saw.
pub(crate) struct Clients<'a> {
    plan: &'a Plan,
    clock: Clock,
    live: &'a Live,
    orders: &'a Orders,
    items: &'a [i64],
    requests: Requests,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer will ring.
    armed: Option<u64>,
    all: Vec<Client>,
    idle: Vec<usize>,
    /// Clients that wait, and until when.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    source: Source,
    /// Orders to be cancelled, and when.
    to_cancel: VecDeque<(u64, usize)>,
    recent: Vec<i64>,
    cancels_due: f64,
    reads_due: f64,
    rng: fastrand::Rng,
    out: Vec<u8>,
    /// A running mean of all requests' latencies, in microseconds.
    usual_us: u64,
    sent: Sent,
}

/// The requests to each instance.
struct Requests {
    create: Vec<Create>,
    cancel: Vec<Numbered>,
    read: Vec<Numbered>,
    /// Those that wait for an order's end.
    wait: Vec<Numbered>,
}

impl Client {
    fn new(number: usize, create: &[Endpoint], read: &[Endpoint]) -> Self {
        let (create_at, read_at) = (number % create.len(), number % read.len());
        let token = 2 * number as u64;
        Self {
            desk: Connection::new(create[create_at].address, token),
            reader: Connection::new(read[read_at].address, token + 1),
            create_at,
            read_at,
            doing: Doing::Nothing,
            begun: 0,
            sent: 0,
            awaited: None,
            reads: 0,
            failures: 0,
        }
    }
}

impl Requests {
    fn new(create: &[Endpoint], read: &[Endpoint], path: &str, wait_path: &str) -> Self {
        let cancel = |at| Numbered::post(at, "/api/v1/orders/cancel?order_id=");
        let get = |path: &str| read.iter().map(|at| Numbered::get(at, path)).collect();
        Self {
            create: create.iter().map(Create::new).collect(),
            cancel: create.iter().map(cancel).collect(),
            read: get(path),
            wait: get(wait_path),
        }
    }
}

impl<'a> Clients<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        clock: Clock,
        live: &'a Live,
        orders: &'a Orders,
        items: &'a [i64],
    ) -> Result<Self> {
        let create = endpoints(&plan.target.create)?;
        let (read, path) = if plan.find > 0.0 {
            (vec![Endpoint::parse(&plan.target.store)?], "/api/v1/items/find?item_id=")
        } else {
            (endpoints(&plan.target.monitoring)?, "/api/v1/status?order_id=")
        };
        let count = plan.connections as usize;
        let all = (0..count).map(|number| Client::new(number, &create, &read));
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;
        let source = Source::new(plan);
        let sent = Sent::new(source.from());
        Ok(Self {
            plan,
            clock,
            live,
            orders,
            items,
            requests: Requests::new(&create, &read, path, &waiting::path(plan)),
            epoll,
            timer,
            armed: None,
            all: all.collect(),
            idle: (0..count).rev().collect(),
            waiting: BinaryHeap::new(),
            source,
            to_cancel: VecDeque::new(),
            recent: Vec::new(),
            cancels_due: 0.0,
            reads_due: 0.0,
            // Another for each run on the same system: the last one's items are cached.
            rng: fastrand::Rng::with_seed(orders.order(0).unsigned_abs()),
            out: Vec::with_capacity(256),
            usual_us: 0,
            sent,
        })
    }

    /// Runs until the load is over and every request is answered or given up.
    pub(crate) fn run(mut self) -> Result<Sent> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut measuring = false;
        let mut next_look = 0;
        loop {
            let now = self.clock.now();
            if !measuring && now >= self.source.from() {
                measuring = true;
                self.begin_measuring(now);
            }
            if now >= next_look {
                next_look = now + LOOK_US;
                self.look(now)?;
            }
            self.wake(now);
            self.set_to_work(now);
            if self.is_over() {
                return Ok(self.end());
            }
            self.linger();
            self.wait(now, &mut events)?;
            for event in events.drain(..) {
                if event.data.u64() != TIMER {
                    self.on_event(event, &mut buffer);
                }
            }
        }
    }

    fn begin_measuring(&mut self, now: u64) {
        self.source.begin_measuring();
        self.sent.cpu = Used::begin(now, self.live.records.load(Ordering::Relaxed));
    }

    fn end(mut self) -> Sent {
        self.sent.unsent = self.source.unsent();
        self.sent.until = self.source.until().unwrap_or(self.sent.until);
        self.sent.cpu.end(self.clock.now());
        self.sent
    }

    fn busy(&self) -> usize {
        self.all.len() - self.idle.len() - self.waiting.len()
    }

    fn is_over(&self) -> bool {
        self.source.has_ended()
            && self.busy() == 0
            && self.to_cancel.is_empty()
            && !self.is_awaiting()
    }

    /// Tells how far it is, and gives up on what takes too long.
    fn look(&mut self, now: u64) -> Result<()> {
        self.live.in_flight.store(self.busy() as u64, Ordering::Relaxed);
        if self.live.stop.load(Ordering::Relaxed) {
            self.source.stop(now);
            self.to_cancel.clear();
        }
        let patience = clock::micros(PATIENCE);
        for number in 0..self.all.len() {
            let client = &self.all[number];
            let is_idle = matches!(client.doing, Doing::Nothing | Doing::Waiting);
            if !is_idle && now > client.sent + patience {
                self.sent.errors.timeout += self.counted(now);
                self.failed(number, now);
            }
        }
        let settle = clock::from_seconds(self.plan.settle_seconds);
        if self.plan.orders.is_some()
            && !self.source.has_ended()
            && !self.is_awaiting()
            && now > self.sent.latest_answer.max(self.source.from()) + settle.max(patience)
        {
            bail!("no order was acknowledged for {} s", self.plan.settle_seconds);
        }
        Ok(())
    }

    /// Clients that have waited long enough go on.
    fn wake(&mut self, now: u64) {
        while let Some(Reverse((until, client))) = self.waiting.peek().copied() {
            if until > now {
                break;
            }
            self.waiting.pop();
            self.all[client].doing = Doing::Nothing;
            // At once: only it can go on with the order that it may have to wait for.
            if !self.begin_next(client, now) {
                self.idle.push(client);
            }
        }
    }

    /// Gives free clients something to do, as long as there is something.
    fn set_to_work(&mut self, now: u64) {
        while let Some(number) = self.idle.pop() {
            if !self.begin_next(number, now) {
                self.idle.push(number);
                return;
            }
        }
    }

    /// Begins what this client is to do next. False if there is nothing.
    fn begin_next(&mut self, number: usize, now: u64) -> bool {
        if self.ask_for_end(number, now) {
            return true;
        }
        let client = &mut self.all[number];
        if client.reads > 0 && !self.source.has_ended() {
            client.reads -= 1;
            self.begin_read(number, now);
            return true;
        }
        if let Some((due, place)) = self.to_cancel.front().copied()
            && due <= now
        {
            self.to_cancel.pop_front();
            self.begin_cancel(number, place, now);
            return true;
        }
        if let Some(begun) = self.source.take(now) {
            self.begin_create(number, begun, now);
            return true;
        }
        false
    }

    fn begin_create(&mut self, number: usize, begun: u64, now: u64) {
        let item = self.some_item();
        let client = &self.all[number];
        self.requests.create[client.create_at].write(self.items[item as usize], &mut self.out);
        if let Some(bin) = self.sent.tally.bin(now) {
            bin.sent += 1;
        }
        if self.sent.tally.measures(begun) {
            self.sent.creates += 1;
            self.sent.until = now;
        }
        self.begin(number, Doing::Create(item), begun, now);
    }

    fn begin_cancel(&mut self, number: usize, place: usize, now: u64) {
        let order = self.orders.order(place);
        self.requests.cancel[self.all[number].create_at].write(order, &mut self.out);
        self.begin(number, Doing::Cancel(place), now, now);
    }

    fn begin_read(&mut self, number: usize, now: u64) {
        let of = if self.plan.find > 0.0 { self.items } else { &self.recent };
        let id = of[self.rng.usize(..of.len())];
        self.requests.read[self.all[number].read_at].write(id, &mut self.out);
        self.begin(number, Doing::Read, now, now);
    }

    /// Sends the request that is in `out`.
    fn begin(&mut self, number: usize, doing: Doing, begun: u64, now: u64) {
        let client = &mut self.all[number];
        (client.doing, client.begun, client.sent) = (doing, begun, now);
        let connection = match doing {
            Doing::Read | Doing::Await(_) => &mut client.reader,
            _ => &mut client.desk,
        };
        if let Err(trouble) = connection.send(&self.epoll, &self.out) {
            self.on_trouble(number, trouble, now);
        }
    }

    fn some_item(&mut self) -> u32 {
        let count = self.plan.items;
        if self.plan.hot > 0.0 {
            if count == 1 || self.rng.f64() < self.plan.hot {
                return 0;
            }
            return self.rng.u32(1..count);
        }
        self.rng.u32(..count)
    }

    /// Lets answers gather while every client waits for one.
    fn linger(&self) {
        let time = (self.usual_us / SHARE_OF_LATENCY).min(*LINGER_US.end());
        if self.plan.rate.is_none() && self.idle.is_empty() && LINGER_US.contains(&time) {
            #[expect(clippy::disallowed_methods, reason = "so many answers come at any time")]
            std::thread::sleep(Duration::from_micros(time));
        }
    }

    /// Sleeps until something happens or is to be done.
    fn wait(&mut self, now: u64, events: &mut Vec<Event>) -> Result<()> {
        let mut next = now + LOOK_US;
        if let Some(Reverse((until, _))) = self.waiting.peek() {
            next = next.min(*until);
        }
        if !self.idle.is_empty() {
            if let Some((due, _)) = self.to_cancel.front() {
                next = next.min(*due);
            }
            if let Some(due) = self.source.next_due() {
                next = next.min(due.max(now + self.together()));
            }
        }
        let mut timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(LOOK_US * 1_000)? };
        if next <= now {
            timeout.tv_nsec = 0;
        } else if next < now + LOOK_US && self.armed.is_none_or(|armed| armed < now || armed > next)
        {
            self.ring(next - now)?;
            self.armed = Some(next);
        }
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn together(&self) -> u64 {
        let is_dense = self.plan.rate.is_some_and(|rate| rate * TOGETHER_US as f64 > 1e6 / 5.0);
        if is_dense { TOGETHER_US } else { 0 }
    }

    /// epoll's own timeouts are of whole milliseconds.
    fn ring(&self, after: u64) -> Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let after = Timespec { tv_sec: 0, tv_nsec: i64::try_from(after * 1_000)? };
        let once = Itimerspec { it_interval: zero, it_value: after };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn on_event(&mut self, event: Event, buffer: &mut Vec<u8>) {
        let token = event.data.u64();
        let Ok(number) = usize::try_from(token / 2) else { return };
        let client = &mut self.all[number];
        let is_reader = token % 2 == 1;
        let connection = if is_reader { &mut client.reader } else { &mut client.desk };
        match connection.on_event(event.flags, buffer) {
            Ok(None) => {}
            Ok(Some((answer, bytes))) => {
                let now = self.clock.now();
                self.on_answer(number, &answer, bytes, now);
                let is_free = matches!(self.all[number].doing, Doing::Nothing);
                if is_free && !self.begin_next(number, now) {
                    self.idle.push(number);
                }
            }
            // A server may close a connection on which nothing is asked.
            Err(_) if !connection.awaits() => connection.close(),
            Err(trouble) => {
                let now = self.clock.now();
                self.on_trouble(number, trouble, now);
            }
        }
    }

    fn on_answer(&mut self, number: usize, answer: &Answer, bytes: &[u8], now: u64) {
        let client = &self.all[number];
        let begun = client.begun;
        self.sent.cpu.requests += 1;
        self.usual_us = (63 * self.usual_us + now.saturating_sub(client.sent)) / 64;
        match (client.doing, answer.status) {
            (Doing::Create(item), 201) => {
                let order = answer::id(&bytes[answer.body.clone()], "order_id");
                let Some(place) = order.and_then(|order| self.orders.place(order)) else {
                    return self.on_trouble(number, Trouble::Malformed, now);
                };
                self.acknowledged(number, place, item, now);
            }
            (Doing::Cancel(place), 202) => {
                self.sent.cancelled.push(place);
                if self.sent.tally.measures(begun) {
                    self.sent.cancel.record(now - begun);
                }
            }
            (Doing::Read, 200) => {
                if self.sent.tally.measures(begun) {
                    self.sent.read.record(now - begun);
                }
            }
            (Doing::Await(place), _) => return self.on_status(number, place, answer, bytes, now),
            _ => return self.refused(number, answer, now),
        }
        self.succeeded(number);
    }

    /// The client has got what it asked for.
    fn succeeded(&mut self, number: usize) {
        let client = &mut self.all[number];
        (client.doing, client.failures) = (Doing::Nothing, 0);
    }

    fn acknowledged(&mut self, number: usize, place: usize, item: u32, now: u64) {
        let begun = self.all[number].begun;
        let tally = &mut self.sent.tally;
        tally.acknowledged(begun, now);
        if tally.measures(begun) {
            self.sent.latest_answer = now;
        }
        if let Some(end) = self.orders.begun(place, begun) {
            tally.ended(begun, end);
            self.live.ended_here.fetch_add(1, Ordering::Release);
        }
        self.live.acknowledged.fetch_add(1, Ordering::Relaxed);
        if place >= self.sent.placed.len() {
            self.sent.placed.resize(place + 1, 0);
        }
        self.sent.placed[place] = item + 1;
        if self.plan.wait {
            let until = now + clock::from_seconds(self.plan.settle_seconds);
            self.all[number].awaited = Some(waiting::Awaited { place, until });
        }
        self.cancels_due += self.plan.cancel;
        if self.cancels_due >= 1.0 {
            self.cancels_due -= 1.0;
            self.to_cancel.push_back((now + u64::from(self.plan.cancel_after_ms) * 1_000, place));
        }
        self.reads_due += self.plan.read + self.plan.find;
        if self.plan.read > 0.0 {
            self.remember(self.orders.order(place));
        }
        while self.reads_due >= 1.0 {
            self.reads_due -= 1.0;
            self.all[number].reads += 1;
        }
    }

    /// One of the newest orders, of which some will be read.
    fn remember(&mut self, order: i64) {
        if self.recent.len() < RECENT {
            self.recent.push(order);
        } else {
            let oldest = usize::try_from(order).unwrap_or(0) % RECENT;
            self.recent[oldest] = order;
        }
    }

    /// An answer other than success: goes on after the shorter of what it says and a short wait.
    fn refused(&mut self, number: usize, answer: &Answer, now: u64) {
        self.live.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(bin) = self.sent.tally.bin(now) {
            bin.refused += 1;
            *self.sent.refused.entry(answer.status).or_default() += 1;
        }
        let told = answer.retry_after.map(|seconds| u64::from(seconds) * 1_000_000);
        self.back_off(number, told.unwrap_or(u64::MAX), now);
    }

    fn on_trouble(&mut self, number: usize, trouble: Trouble, now: u64) {
        let count = self.counted(now);
        let errors = &mut self.sent.errors;
        match trouble {
            Trouble::Connect => errors.connect += count,
            Trouble::Lost => errors.lost += count,
            Trouble::Malformed => errors.malformed += count,
        }
        self.failed(number, now);
    }

    /// What is counted during the warmup is nothing.
    fn counted(&self, now: u64) -> u64 {
        u64::from(self.sent.tally.measures(now))
    }

    /// There was no answer: tries again on a new connection, after a while.
    fn failed(&mut self, number: usize, now: u64) {
        self.live.errors.fetch_add(1, Ordering::Relaxed);
        if let Some(bin) = self.sent.tally.bin(now) {
            bin.errors += 1;
        }
        let client = &mut self.all[number];
        match client.doing {
            Doing::Read | Doing::Await(_) => client.reader.close(),
            _ => client.desk.close(),
        }
        self.back_off(number, u64::MAX, now);
    }

    /// Whatever the client was doing came to nothing: it waits, no longer than so long.
    fn back_off(&mut self, number: usize, most: u64, now: u64) {
        let client = &mut self.all[number];
        if let Doing::Create(_) = client.doing {
            self.source.give_back(client.begun);
        }
        let (shortest, longest) = BACKOFF_US;
        let wait = (shortest << client.failures.min(10)).min(longest);
        client.failures += 1;
        client.doing = Doing::Waiting;
        let wait = self.rng.u64(wait / 2..=wait).min(most);
        self.waiting.push(Reverse((now + wait, number)));
    }
}

fn endpoints(urls: &[String]) -> Result<Vec<Endpoint>> {
    urls.iter().map(|url| Endpoint::parse(url)).collect()
}
