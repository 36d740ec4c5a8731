// One order as each service, the cache and the topics have it, side by side: asked on demand, and again
// while something is on its way.

import { ask, services } from '../api.js';
import { budget } from '../budget.js';
import { refresh, say } from '../page.js';
import { live } from '../stream.js';
import { WITNESSES, compare, summary } from '../witness.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { badge, card, exactly, gap, num, problemBox, quiet, seconds } from './parts.js';

const SHOWN = ['create', 'store', 'monitoring', 'cache', 'topics'];
/** How long to wait before asking again, while something is on its way: ever longer, and then no more. */
const AGAIN = [1000, 2000, 4000, 8000, 15_000, 30_000];
/** What wrong ids and a missing order look like; an older service knows no such path at all. */
const isUnknown = ({ status, detail }) => status === 404 && /(order|item)_id/.test(detail);

/** What no service says of itself; all else is in its own words. */
const SAID = new Set(['unknown', 'recorded', 'part_recorded', 'without']);

let order = '';
let said = null;
let judged = null;
let isAsking = false;
let tries = 0;
let timer;

/** Another order is shown. */
export function openWitnesses(id) {
  clearTimeout(timer);
  [order, said, judged, isAsking] = [id, null, null, false];
}

/** Something new was heard of the order: who has been asked before is asked again. */
export function heardOf(id) {
  if (said && id === order) askAll();
}

/** Asks one after the other, since what is heard late must be known to those asked later. */
async function askAll(isRepeat) {
  if (isAsking) return;
  clearTimeout(timer);
  [isAsking, tries] = [true, isRepeat ? tries + 1 : 0];
  refresh();
  const [id, all, before] = [order, {}, said];
  for (const who of WITNESSES) {
    all[who] = (who === 'topics' && stillKnown(all, before)) || (await account(() => ASK[who](id, all)));
    if (id !== order) return;
  }
  [said, isAsking] = [all, false];
  judge(isRepeat);
}

function judge(isRepeat) {
  const before = judged?.verdict;
  judged = compare(order, said, Date.now());
  const { verdict } = judged;
  if (verdict !== before || !isRepeat) say(t(`witness_${verdict}`));
  if (verdict === 'delay' && tries < AGAIN.length) timer = setTimeout(askAgain, budget.slowed(AGAIN[tries]));
  refresh();
}

/** Nobody is asked for a page that nobody looks at. */
function askAgain() {
  if (document.hidden || live.isPaused) timer = setTimeout(askAgain, AGAIN[1]);
  else if (location.hash.includes(order)) askAll(true);
}

/** Reading topics costs the most, and records do not change: while the facts are the same nobody is asked. */
function stillKnown({ monitoring }, before) {
  const known = before?.topics.data?.facts;
  const isSame = known?.length === monitoring.data?.facts.length && known?.every(({ record }) => record);
  return isSame ? before.topics : null;
}

async function account(ask) {
  const asked = Date.now();
  const settle = (more) => ({ asked, answered: Date.now(), ...more });
  return ask().then(
    (data) => settle({ data }),
    (problem) => settle(isUnknown(problem) ? { data: null } : { problem }),
  );
}

const read = async (base, path, query) => (await ask(base, path, { query })).data;
const { create, monitoring, store } = services;
const ASK = {
  create: (order_id) => read(create, '/api/v1/orders/find', { order_id }),
  store: (order_id) => read(store, '/api/v1/reservations/find', { order_id }),
  monitoring: (order_id) => read(monitoring, '/api/v1/status', { order_id, wait_ms: 0 }),
  topics: async (order_id, all) => all.monitoring.data && read(monitoring, '/api/v1/status/evidence', { order_id }),
  async cache(_, all) {
    const item_id = all.monitoring.data?.item_id;
    return item_id && read(store, '/api/v1/items/witness', { item_id });
  },
};

export const showWitnesses = () =>
  card('witnesses', [
    html`<p class="quiet">${t('witnesses_what')}</p>`,
    html`<div class="row"><button id="ask-witnesses" class="small" ?disabled=${isAsking} @click=${() => askAll()}>${t(said ? 'witnesses_again' : 'witnesses_ask')}</button></div>`,
    said ? html`<ul class="witnesses">${SHOWN.map(witness)}</ul>${findings()}` : isAsking ? quiet('reading') : null,
  ]);

function witness(who) {
  const { data, problem, asked, answered } = said[who];
  const { state, time } = summary(who, data, order);
  const involved = judged.findings.find(({ who: all }) => all.includes(who));
  return html`<li class=${involved?.kind ?? ''}>
    <h3>${t(`name_${who}`)}</h3>
    <p>${state ? badge(state, SAID.has(state) ? t(`says_${state}`) : state) : t('says_nothing')}</p>
    ${time ? html`<p>${t('learnt')} ${exactly(time)}</p>` : null}
    <p class="quiet">${t('asked')} ${exactly(new Date(asked).toISOString())}, ${gap(answered - asked)}</p>
    ${who === 'cache' && data ? html`<p class="quiet">${t('versions', versions(data))}</p>` : null}
    ${problemBox(problem, askAll)}
  </li>`;
}

const versions = ({ cache, database }) => ({ cache: cache.version ? num(cache.version) : '—', database: num(database.version) });

function findings() {
  const { verdict, findings } = judged;
  const kind = { agree: 'done', partial: 'warn', delay: 'warn', contradiction: 'problem' }[verdict];
  return html`<div class="verdict ${kind}"><strong>${t(`witness_${verdict}`)}</strong>${findings.map((found) => html`<p>${told(found)}</p>`)}</div>`;
}

const factName = (fact) => (['client', 'store', 'deadline'].includes(fact) ? `CANCELLED (${t(`by_${fact}`)})` : fact);
const names = (all) => all.map((who) => t(`name_${who}`)).join(', ');

function told({ key, who, facts = [], by = [], age, field, values = [], versions = [], isUnsent }) {
  const [fact, other] = facts.map(factName);
  const [first, second] = by.map((one) => t(`name_${one}`));
  const each = who.map((one, i) => `${t(`name_${one}`)} ${values[i]}`).join(', ');
  const [cached, stored] = versions;
  const text = t(`found_${key}`, { who: names(who), fact, other, first, second, field, each, cached, stored, age: age === undefined ? '?' : age < 10_000 ? gap(age) : seconds(age) });
  return isUnsent ? `${text} ${t('found_unsent')}` : text;
}
