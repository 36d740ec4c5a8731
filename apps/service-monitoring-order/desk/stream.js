// The live stream. One tab of a browser, the holder of a lock, reads it for all: a browser has only six
// connections to a service, and a service has many browsers. Each tab says what it wants; the reader
// asks for the union and passes every frame on.

import { authorization, sharing } from './auth.js';
import { budget } from './budget.js';
import { meter, orders, parse, problemOf, services, stats, status, stuck } from './api.js';

const NAME = `ordersaga-desk ${sharing}`;
const TAB = `${Math.random()}`;
/** Orders that one stream follows, at the most. */
const MOST = 20;
const POLL = 5000;
/** How long a hidden tab goes on. */
const HIDDEN = 30_000;
/** Tabs repeat what they want; one that does not is gone. */
const [RENEW, FORGET] = [10_000, 25_000];
/** How long a service without a stream is not asked for it again. */
const MISSING = 60_000;

/** A stream says something every 15 s; a silent one is dead. */
const SILENCE = 45_000;

const FEEDS = ['newest', 'stats', 'stuck'];
const NOTHING = { orders: [] };
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const keyOf = (name, text) => (name === 'order' ? `order ${parse(text).order_id}` : name);
const isIn = (key, want) => key === 'as_of' || key === 'cost' || want[key] || want.orders.includes(key.slice(6));

/** 1, 2, 4 … 30 s, less up to a half, so that browsers do not come back all at once. */
const backOff = (failures) => 1000 * Math.min(30, 2 ** failures) * (0.5 + Math.random() / 2);

const sleep = (ms, signal) =>
  new Promise((done) => {
    setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });

/** A parser of text/event-stream, fed with text as it comes. */
function parser(onEvent) {
  let rest = '';
  let event = {};
  const take = (line) => {
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/.exec(line);
    if (field === 'data') event.data = event.data === undefined ? value : `${event.data}\n${value}`;
    else if (field) event[field] = value;
    else if (line === '') {
      onEvent(event);
      event = {};
    }
  };
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(take);
  };
}

/** Reads for all tabs: the stream or, while there is none, by polling. */
class Reader {
  #want = NOTHING;
  #run = new AbortController();
  #noStreamUntil = 0;
  #deliver;
  #tell;

  constructor(deliver, tell) {
    [this.#deliver, this.#tell] = [deliver, tell];
  }

  read(want) {
    if (same(want, this.#want)) return;
    this.stop();
    [this.#want, this.#run] = [want, new AbortController()];
    if (want.orders.length || FEEDS.some((feed) => want[feed])) this.#loop(want, this.#run.signal);
  }

  stop() {
    this.#run.abort();
    this.#want = NOTHING;
  }

  async #loop(want, signal) {
    // Several changes at once are one stream.
    await sleep(50, signal);
    let [failures, last] = [0, undefined];
    while (!signal.aborted) {
      if (performance.now() < this.#noStreamUntil) {
        await this.#poll(want, signal);
        continue;
      }
      const end = await this.#stream(want, last, signal);
      if (signal.aborted) return;
      last = end.last ?? last;
      failures = end.lasted > POLL ? 0 : failures + 1;
      if (end.refusedFor) this.#noStreamUntil = performance.now() + end.refusedFor;
      else if (end.retry) await sleep(end.retry, signal);
      else await this.#wait(backOff(failures), signal);
    }
  }

  #wait(ms, signal) {
    this.#tell({ mode: 'away', retryAt: Date.now() + ms });
    return sleep(ms, signal);
  }

  /** Reads one stream to its end; says how to go on. */
  async #stream(want, last, signal) {
    const feeds = FEEDS.filter((feed) => want[feed]).map((feed) => [feed, true]);
    const query = new URLSearchParams([...want.orders.map((id) => ['order_id', id]), ...feeds]);
    const headers = { Accept: 'text/event-stream', ...authorization, ...(last && { 'Last-Event-ID': last }) };
    const silent = new AbortController();
    const unanswered = setTimeout(() => silent.abort(), SILENCE);
    const either = AbortSignal.any([signal, silent.signal]);
    const response = await fetch(`/api/v1/stream?${query}`, { headers, signal: either, cache: 'no-store' }).catch(() => null);
    clearTimeout(unanswered);
    if (!response) return {};
    const isStream = response.headers.get('Content-Type')?.startsWith('text/event-stream');
    if (!response.ok || !isStream) return { refusedFor: refusal(await problemOf(response, services.monitoring)) };

    this.#tell({ mode: 'live' });
    const end = {};
    const hear = parser(({ event, id, retry, data }) => {
      if (id) end.last = id;
      if (event === 'bye') end.retry = Number(retry) || 1000 + 4000 * Math.random();
      else if (event && data) this.#deliver(event, data);
    });
    const [began, text, reader] = [performance.now(), new TextDecoder(), response.body.getReader()];
    for (;;) {
      const alarm = setTimeout(() => reader.cancel(), SILENCE);
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      clearTimeout(alarm);
      if (done) return { ...end, lasted: performance.now() - began };
      meter.add(value.byteLength);
      hear(text.decode(value, { stream: true }));
    }
  }

  async #poll(want, signal) {
    for (let failures = 0; performance.now() < this.#noStreamUntil; ) {
      try {
        await this.#askAll(want, signal);
        if (signal.aborted) return;
        failures = 0;
        this.#tell({ mode: 'polling' });
        await sleep(budget.slowed(POLL), signal);
      } catch (problem) {
        if (signal.aborted) return;
        failures += 1;
        await this.#wait(Math.max(POLL, backOff(failures), (problem.retryAt ?? 0) - performance.now()), signal);
      }
    }
  }

  #askAll(want, signal) {
    const give = (name) => (data) => signal.aborted || this.#deliver(name, JSON.stringify(data));
    const unlessMissing = (problem) => {
      if (!problem.isMissing) throw problem;
    };
    return Promise.all([
      want.newest && orders({ limit: 50 }).then(give('newest')),
      want.stats && stats().then(give('stats')),
      want.stuck && stuck().then(give('stuck')),
      ...want.orders.map((id) => status(id, { wait_ms: 0 }).then(give('order')).catch(unlessMissing)),
    ]);
  }
}

const refusal = ({ status, retryAt }) =>
  status === 429 || status === 503 ? Math.max(1000, retryAt - performance.now()) : MISSING;

/** This tab's part in it. */
class Live {
  /** `starting`, `live`, `polling`, `away` or `paused`. */
  state = { mode: 'starting' };
  /** Nothing until it is heard, null if the service does not know. */
  as_of = '';
  /** What all streams of the service cost; null while none is open. */
  cost = null;
  isPaused = false;
  #want = NOTHING;
  #onFrame;
  #onState;
  /** Without locks each tab reads for itself. */
  #channel = navigator.locks ? new BroadcastChannel(NAME) : { postMessage() {}, addEventListener() {} };
  /** What other tabs want, and when they said so. */
  #others = new Map();
  /** The last frames, for a view that opens: the service sends only changes. */
  #latest = new Map();
  #reader = null;
  #leave = null;

  start(onFrame, onState) {
    [this.#onFrame, this.#onState] = [onFrame, onState];
    this.#channel.addEventListener('message', ({ data }) => this.#leave && this.#hear(data));
    let hidden;
    document.addEventListener('visibilitychange', () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(() => this.#rest(), HIDDEN);
      else this.#join();
    });
    setInterval(() => this.#renew(), RENEW);
    this.#join();
  }

  want({ orders = [], ...feeds }) {
    const want = { ...feeds, orders: orders.slice(0, MOST) };
    if (same(want, this.#want)) return;
    this.#want = want;
    this.#renew();
    for (const [key, { name, text }] of this.#latest) if (isIn(key, want)) this.#show(name, text);
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    if (isPaused) this.#rest();
    else this.#join();
  }

  #join() {
    if (this.#leave || this.isPaused || document.hidden) return;
    const { signal } = (this.#leave = new AbortController());
    this.#set({ mode: 'starting' });
    const lead = () =>
      new Promise((release) => {
        signal.addEventListener('abort', release, { once: true });
        this.#lead();
      });
    // Over plain HTTP from another machine there are no locks.
    if (navigator.locks) navigator.locks.request(NAME, { signal }, lead).catch((error) => signal.aborted || reportError(error));
    else lead();
    this.#renew();
  }

  #rest() {
    this.#leave?.abort();
    this.#reader?.stop();
    [this.#leave, this.#reader] = [null, null];
    this.#latest.clear();
    this.#channel.postMessage({ from: TAB });
    this.#set({ mode: 'paused' });
  }

  #lead() {
    const deliver = (name, text) => {
      this.#latest.set(keyOf(name, text), { name, text });
      this.#channel.postMessage({ name, text });
      this.#show(name, text);
    };
    const tell = (state) => {
      this.#channel.postMessage({ state });
      this.#set(state);
    };
    this.#others.clear();
    this.#reader = new Reader(deliver, tell);
    this.#channel.postMessage({ isNew: true });
    this.#renew();
  }

  /** Says what this tab wants; the reader sums up all. */
  #renew() {
    if (!this.#leave) return;
    if (!this.#reader) return void this.#channel.postMessage({ from: TAB, want: this.#want });
    for (const [tab, { at }] of this.#others) if (at < Date.now() - FORGET) this.#others.delete(tab);
    const all = [this.#want, ...[...this.#others.values()].map(({ want }) => want)];
    // A tab that shows one order must not lose it to one that shows twenty.
    const ids = all.toSorted((a, b) => a.orders.length - b.orders.length).flatMap((want) => want.orders);
    const union = { orders: [...new Set(ids)].slice(0, MOST).sort() };
    for (const feed of FEEDS) union[feed] = all.some((want) => want[feed]);
    for (const key of this.#latest.keys()) if (!isIn(key, union)) this.#latest.delete(key);
    this.#reader.read(union);
  }

  #hear({ from, want, name, text, state, isNew }) {
    if (isNew) this.#renew();
    if (state) this.#set(state);
    if (name && isIn(keyOf(name, text), this.#want)) {
      meter.add(text.length);
      this.#show(name, text);
    }
    if (!from || !this.#reader) return;
    const before = this.#others.get(from)?.want;
    if (want) this.#others.set(from, { want, at: Date.now() });
    else this.#others.delete(from);
    this.#renew();
    if (same(want, before)) return;
    this.#channel.postMessage({ state: this.state });
    for (const frame of this.#latest.values()) this.#channel.postMessage(frame);
  }

  #show(name, text) {
    try {
      const data = parse(text);
      if ('as_of' in data) this.as_of = data.as_of;
      if (name === 'cost') this.cost = data;
      this.#onFrame(name, data);
    } catch (error) {
      // The next is read all the same.
      reportError(error);
    }
  }

  #set(state) {
    this.state = state;
    if (state.mode !== 'live') this.cost = null;
    this.#onState();
  }
}

export const live = new Live();
