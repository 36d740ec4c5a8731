// Accounts of an order, and what the desk's comparison (desk/witness.js) must make of them.

const at = (s) => `2026-11-28T12:00:${`${s}`.padStart(2, '0')}.000Z`;
const order = { order_id: '7', item_id: '1000', seller_id: '1', client_id: '9007199254740993', quantity: 2 };
const placed = { fact: 'PLACED', time: at(0) };
const reserved = { fact: 'RESERVED', time: at(1) };
const released = { fact: 'RELEASED', time: at(3) };
const by = (initiator, s = 2) => ({ fact: 'CANCELLED', time: at(s), initiator });
const END = { step: 'CANCELLED' };

const create = (state, more = {}) => ({ ...order, state, created_at: at(0), updated_at: at(1), events_wait: false, ...more });
const ended = (initiator) => create('CANCELLED', { initiator, updated_at: at(2) });
const store = (state, more = {}) => ({ ...order, state, time: at(1), events_wait: false, ...more });
const status = (facts, more = {}) => ({ ...order, step: 'SHIPPING', facts, update_date: facts.at(-1)?.time, ...more });
const topics = (facts) => ({ order_id: '7', facts: facts.map((fact) => ({ ...fact, record: { timestamp: fact.time } })) });
const item = (states) => ({ date: at(3), reservations: Object.entries(states).map(([order_id, state]) => ({ order_id, state, time: at(1) })) });
const cache = (states, version = 2, stored = 2) => ({ cache: { state: 'HIT', version, item: item(states) }, database: { version: stored, item: item(states) } });
const marked = { cache: { state: 'MARKED', version: 2 }, database: { version: 2, item: item({}) } };

const three = [placed, reserved];
const four = [placed, reserved, by('client'), released];
const shipping = { create: create('RESERVED'), store: store('RESERVED'), monitoring: status(three), cache: cache({ 7: 'RESERVED' }), topics: topics(three) };
const over = { create: ended('client'), store: store('RELEASED', { time: at(3) }), monitoring: status(four, END), cache: cache({ 7: 'RELEASED' }), topics: topics(four) };

/** What it is, the answers, the verdict, and each finding: `key fact who`. */
export const CASES = [
  ['all agree', shipping, 'agree', []],
  ['released', over, 'agree', []],
  ['refused', { create: ended('store'), store: store('REFUSED'), monitoring: status([placed, by('store', 1)], END), cache: cache({}), topics: topics([placed]) }, 'agree', []],
  ['a tombstone', { create: ended('client'), store: store('TOMBSTONE'), monitoring: status([placed, by('client')], END), cache: marked, topics: topics([placed]) }, 'agree', []],
  ['expired, and given back', { ...over, create: ended('deadline'), monitoring: status([placed, reserved, by('deadline'), released], END), topics: topics([placed, reserved]) }, 'agree', []],
  ['the client cancelled what the store refused', { create: ended('client'), store: store('REFUSED'), monitoring: status([placed, by('store', 1), by('client')], END), cache: cache({}), topics: topics([placed]) }, 'agree', []],
  ['one does not answer', { ...shipping, topics: undefined }, 'partial', []],
  ['the topic has lost a record', { ...shipping, topics: { facts: [{ ...placed, missing: 'NO_LONGER_IN_TOPIC' }] } }, 'agree', []],
  ['an item with so many reservations that this one is not cached', { ...shipping, cache: cache(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [100 + i, 'RESERVED']))) }, 'agree', []],

  ['just placed', { create: create('PLACED', { events_wait: true }), store: null, monitoring: null, cache: undefined, topics: null }, 'delay', ['not_heard PLACED monitoring', 'not_decided  store']],
  ['reserved, and nobody has read it', { ...shipping, create: create('PLACED'), monitoring: status([placed]), topics: topics([placed]) }, 'delay', ['not_heard RESERVED monitoring', 'not_heard RESERVED create']],
  ['refused, and nobody has read it', { create: create('PLACED'), store: store('REFUSED'), monitoring: status([placed]), cache: cache({}), topics: topics([placed]) }, 'delay', ['not_heard store monitoring', 'not_heard store create']],
  ['cancelled, and the store has not read it', { ...shipping, create: ended('client') }, 'delay', ['not_heard client monitoring', 'not_released  store']],
  ['given back, and monitoring has not read it', { ...over, monitoring: status(four.slice(0, 3), END), topics: topics(four.slice(0, 3)) }, 'delay', ['not_heard RELEASED monitoring']],
  ['cancelled before the store has read it', { create: ended('client'), store: null, monitoring: status([placed, by('client')], END), cache: cache({}), topics: topics([placed]) }, 'delay', ['not_decided  store']],
  ['the cache was not told yet', { create: create('PLACED'), store: store('RESERVED'), monitoring: status([placed]), cache: cache({}, 1, 2), topics: topics([placed]) }, 'delay', ['not_heard RESERVED monitoring', 'not_heard RESERVED create', 'cache_behind  cache']],

  ['reserved and refused', { ...shipping, store: store('REFUSED') }, 'contradiction', ['exclusive RESERVED+store monitoring,topics,cache,store,create']],
  ['create-order says reserved, the store passed it over', { create: create('RESERVED'), store: store('TOMBSTONE'), monitoring: status([placed]), cache: cache({}), topics: topics([placed]) }, 'contradiction', ['tombstone_open  create,store', 'sourceless RESERVED store,create']],
  ['reserved, and the store knows nothing', { ...shipping, store: null }, 'contradiction', ['sourceless RESERVED store,monitoring,topics,cache,create']],
  ['given back, and never cancelled', { ...over, create: create('RESERVED'), monitoring: status([...three, released]), topics: topics([...three, released]) }, 'contradiction', ['released_open RELEASED create,monitoring,topics,cache,store']],
  ['cancelled, and create-order does not know', { ...shipping, monitoring: status([...three, by('client')], END) }, 'contradiction', ['sourceless client create,monitoring']],
  ['ended twice', { ...over, monitoring: status([...four, by('deadline', 4)], END) }, 'contradiction', ['exclusive client+deadline monitoring,topics,create']],
  ['create-order has lost it', { ...shipping, create: null }, 'contradiction', ['sourceless PLACED create,monitoring,topics']],
  ['another client', { ...shipping, store: store('RESERVED', { client_id: '9007199254740992' }) }, 'contradiction', ['differs  create,store,monitoring']],
  ['the cache is ahead', { ...shipping, cache: cache({ 7: 'RESERVED' }, 3, 2) }, 'contradiction', ['cache_ahead  cache']],
  ['the cache has what monitoring knows to be old', { ...over, cache: cache({ 7: 'RESERVED' }, 2, 3) }, 'contradiction', ['cache_misses RELEASED cache,monitoring']],
];

/** The accounts, asked one after the other as the page does it. `order` says who was asked first. */
export function accounts(data, order) {
  const start = Date.parse(at(10));
  return Object.fromEntries(order.map((who, i) => [who, { asked: start + 10 * i, answered: start + 10 * i + 5, data: data[who] }]));
}
export const NOW = Date.parse(at(11));
