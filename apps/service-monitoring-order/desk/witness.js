// What five witnesses say of an order, compared: a delay told from a contradiction. Pure: it asks
// nobody, reads no clock and shows nothing.
//
// An account is `{ asked, answered, data }`: two times of this browser's clock in ms, and the answer.
// `data` is null if the witness knows of no such order, and missing if it gave no answer.

/** In the order in which they must be asked: each hears of a fact from those behind it. Who decides a
 * fact is asked after all who have heard of it, so that a fact it does not know is not in flight. */
export const WITNESSES = ['monitoring', 'topics', 'cache', 'store', 'create'];

/** What can come true, and who decides it. A cancellation goes by the name of whoever ended the order. */
const DECIDES = { PLACED: 'create', RESERVED: 'store', RELEASED: 'store', client: 'create', store: 'store', deadline: 'create' };
const FACTS = Object.keys(DECIDES);
/** Of each of these pairs only one can be. */
const EXCLUSIVE = [['RESERVED', 'store'], ['client', 'deadline']];
const IDENTITY = ['item_id', 'seller_id', 'client_id', 'quantity'];
/** As many reservations of an item are cached. */
const CACHED = 20;
/** What is older may have been deleted by `ordersaga retention`. */
const OLD = 86_400_000;

const nameOf = ({ fact, initiator }) => (fact === 'CANCELLED' ? initiator : fact);
const says = (yes, no) => ({ yes, no });

/** What each tells of facts: `yes`, with the time, or `no`. Of all others it cannot know. */
const TELLS = {
  create(row) {
    if (!row) return says({}, ['PLACED', 'client', 'deadline']);
    const placed = { PLACED: row.created_at };
    if (row.state === 'PLACED') return says(placed, ['RESERVED', 'store', 'client', 'deadline']);
    if (row.state === 'RESERVED') return says({ ...placed, RESERVED: row.updated_at }, ['store', 'client', 'deadline']);
    return says({ ...placed, [row.initiator]: row.updated_at }, ['client', 'deadline'].filter((by) => by !== row.initiator));
  },
  store(row) {
    if (row?.state === 'RESERVED') return says({ RESERVED: row.time }, ['RELEASED', 'store']);
    if (row?.state === 'RELEASED') return says({ RESERVED: null, RELEASED: row.time }, ['store']);
    if (row?.state === 'REFUSED') return says({ store: row.time }, ['RESERVED', 'RELEASED']);
    return says({}, ['RESERVED', 'RELEASED', 'store']);
  },
  monitoring(status) {
    const yes = Object.fromEntries((status?.facts ?? []).map((fact) => [nameOf(fact), fact.time]));
    return says(yes, FACTS.filter((fact) => !(fact in yes)));
  },
  topics(evidence) {
    const found = (evidence?.facts ?? []).filter(({ record }) => record);
    return says(Object.fromEntries(found.map((fact) => [nameOf(fact), fact.time])), []);
  },
  cache(both, order) {
    if (both?.cache.state !== 'HIT') return says({}, []);
    const all = both.cache.item.reservations;
    const own = all.find(({ order_id }) => order_id === order);
    if (own?.state === 'RESERVED') return says({ RESERVED: own.time }, ['RELEASED']);
    if (own) return says({ RESERVED: null, RELEASED: own.time }, []);
    const isCut = all.length >= CACHED && all.every(({ order_id }) => BigInt(order_id) > BigInt(order));
    return says({}, isCut ? [] : ['RESERVED', 'RELEASED']);
  },
};

/** What a witness says in one word, and the time of the newest thing that it knows. */
export function summary(witness, data, order) {
  if (data === undefined) return {};
  if (!data) return { state: 'unknown' };
  if (witness === 'create') return { state: data.state, time: data.updated_at };
  if (witness === 'store') return { state: data.state, time: data.time };
  if (witness === 'monitoring') return { state: data.step, time: data.update_date };
  if (witness === 'topics') {
    const records = data.facts.filter(({ record }) => record).map(({ record }) => record.timestamp);
    return { state: records.length === data.facts.length ? 'recorded' : 'part_recorded', time: records.filter(Boolean).sort().at(-1) };
  }
  const { state, item } = data.cache;
  if (state !== 'HIT') return { state };
  const own = item.reservations.find(({ order_id }) => order_id === order);
  return { state: own?.state ?? 'without', time: own?.time ?? item.date };
}

/** Compares all accounts of an order at the time `now`, in ms. */
export function compare(order, said, now) {
  const heard = Object.fromEntries(
    WITNESSES.filter((who) => said[who]?.data !== undefined).map((who) => [who, TELLS[who](said[who].data, order)]),
  );
  const known = { order, said, heard, now };
  const wrong = [...exclusive(known), ...uncancelled(known), ...identity(known), ...cacheWrong(known)];
  const reported = new Set(wrong.flatMap(({ facts = [] }) => facts));
  wrong.push(...sourceless(known).filter(({ facts }) => !facts.some((fact) => reported.has(fact))));
  const delays = wrong.length ? [] : [...unheard(known), ...cacheBehind(known)];
  const isWhole = WITNESSES.every((who) => who in heard);
  return { verdict: wrong.length ? 'contradiction' : delays.length ? 'delay' : isWhole ? 'agree' : 'partial', findings: [...wrong, ...delays] };
}

const contradiction = (key, who, more = {}) => ({ kind: 'contradiction', key, who, ...more });
const delay = (key, who, more = {}) => ({ kind: 'delay', key, who, ...more });
const whoSays = ({ heard }, fact) => WITNESSES.filter((who) => heard[who] && fact in heard[who].yes);
const denies = ({ heard }, who, fact) => heard[who]?.no.includes(fact);
/** What `later` does not know was not so when `earlier` said it. */
const isAfter = ({ said }, later, earlier) => said[later].asked >= said[earlier].answered;
const age = ({ now }, time) => (time ? Math.max(0, now - Date.parse(time)) : undefined);

function exclusive(known) {
  const pairs = EXCLUSIVE.map((facts) => ({ facts, says: facts.map((fact) => whoSays(known, fact)) }));
  return pairs
    .filter(({ says }) => says.every((all) => all.length))
    .map(({ facts, says }) => contradiction('exclusive', WITNESSES.filter((who) => says.flat().includes(who)), { facts, by: says.map((all) => all[0]) }));
}

/** Stock is given back, and a placement passed over, only after create-order has ended the order. */
function uncancelled(known) {
  const { said, heard } = known;
  const isOpen = said.create?.data && said.create.data.state !== 'CANCELLED';
  if (!isOpen) return [];
  const released = whoSays(known, 'RELEASED').filter((who) => isAfter(known, 'create', who));
  if (released.length) return [contradiction('released_open', ['create', ...released], { facts: ['RELEASED'], by: [released[0]] })];
  const isPassedOver = heard.store && said.store.data?.state === 'TOMBSTONE' && isAfter(known, 'create', 'store');
  return isPassedOver ? [contradiction('tombstone_open', ['create', 'store'])] : [];
}

function identity({ said }) {
  const have = ['create', 'store', 'monitoring'].filter((who) => said[who]?.data);
  return IDENTITY.filter((field) => new Set(have.map((who) => `${said[who].data[field]}`)).size > 1).map((field) =>
    contradiction('differs', have, { field, values: have.map((who) => said[who].data[field]) }),
  );
}

/** What nothing follows: what it excludes is not on its way either. */
const isFinal = ({ said }, who) => ['CANCELLED', 'REFUSED', 'TOMBSTONE'].includes(said[who].data?.state);

/** A fact that was heard is unknown to who decides it. */
function sourceless(known) {
  const { said, now } = known;
  return FACTS.flatMap((fact) => {
    const source = DECIDES[fact];
    const hearers = whoSays(known, fact).filter((who) => who !== source);
    const first = hearers.find((who) => denies(known, source, fact) && (isFinal(known, source) || isAfter(known, source, who)));
    const times = hearers.map((who) => Date.parse(known.heard[who].yes[fact]));
    const isGone = said[source]?.data === null && times.some((time) => now - time > OLD);
    return first && !isGone ? [contradiction('sourceless', [source, ...hearers], { facts: [fact], by: [first, source] })] : [];
  });
}

/** The cache is told of a change after the database has it and before anybody else hears of it. */
function cacheWrong(known) {
  const both = known.said.cache?.data;
  if (both?.cache.state !== 'HIT') return [];
  if (both.cache.version > both.database.version)
    return [contradiction('cache_ahead', ['cache'], { versions: [both.cache.version, both.database.version] })];
  const isTold = (fact) => known.heard.monitoring && fact in known.heard.monitoring.yes && isAfter(known, 'cache', 'monitoring');
  const missed = ['RESERVED', 'RELEASED'].filter((fact) => isTold(fact) && denies(known, 'cache', fact));
  return missed.map((fact) => contradiction('cache_misses', ['cache', 'monitoring'], { facts: [fact] }));
}

function cacheBehind({ said, now }) {
  const both = said.cache?.data;
  if (both?.cache.state !== 'HIT' || both.cache.version >= both.database.version) return [];
  return [delay('cache_behind', ['cache'], { age: Math.max(0, now - Date.parse(both.database.item.date)) })];
}

/** Facts that are decided and on their way: who decided them, who has not heard of them, since when. */
function unheard(known) {
  const { said, heard } = known;
  const told = FACTS.flatMap((fact) => {
    const source = DECIDES[fact];
    if (!heard[source] || !(fact in heard[source].yes)) return [];
    const waits = ['monitoring', 'create'].filter((who) => who !== source && denies(known, who, fact));
    const time = heard[source].yes[fact];
    return waits.map((who) => delay('not_heard', [who], { facts: [fact], by: [source], age: age(known, time), isUnsent: said[source].data.events_wait }));
  });
  const create = said.create?.data;
  const waitsFor = create && heard.store && storeWaits(create.state, said.store.data?.state);
  if (waitsFor) told.push(delay(waitsFor, ['store'], { by: ['create'], age: age(known, create.updated_at), isUnsent: create.events_wait }));
  return told;
}

function storeWaits(create, store) {
  if (create === 'CANCELLED' && store === 'RESERVED') return 'not_released';
  return !store ? 'not_decided' : null;
}
