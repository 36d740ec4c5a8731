// Shards: how far this service is in each partition, the furthest behind first.

import { partitions } from '../api.js';
import { Reading } from '../page.js';
import { live } from '../stream.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { asOf, badge, card, clock, copyAs, curl, num, quiet, seconds, shown, since, table } from './parts.js';

/** The consumer tells once a second; this is asked while the view is looked at. */
const AGAIN = 2000;
const told = new Reading();
let askedAt = -AGAIN;

export const shards = {
  title: () => t('shards'),
  wants() {
    if (!live.isPaused && !document.hidden && performance.now() - askedAt >= AGAIN && !told.isReading) read();
    return {};
  },
  open() {},
  hear() {},
  show: () => html`
    <div class="row"><h1 tabindex="-1">${t('shards')}</h1></div>
    <section class="card" aria-label=${t('shards_all')}>${quiet('shards_what')} ${shown(told, summary)}
      ${copyAs({ curl: curl('/api/v1/partitions'), SQL: SQL, ordersaga: 'ordersaga doctor' })}</section>
    ${told.data ? byShard(told.data.items).map(shard) : null}
  `,
};

const SQL = `-- on the coordinator
SELECT * FROM sagabus.consumer_offset ORDER BY topic, partition;`;

function read() {
  askedAt = performance.now();
  told.read(partitions);
}

// How far behind.

const sum = (values) => values.reduce((a, b) => a + b, 0);
const lagOf = ({ topics }) => sum(topics.map((topic) => topic.lag_records ?? 0));
const lagMsOf = ({ topics }) => Math.max(0, ...topics.map((topic) => topic.lag_ms ?? 0));
const isUnknown = ({ topics }) => topics.some((topic) => topic.lag_records === undefined);
const behindSince = ({ topics }) => topics.map((topic) => topic.behind_since).filter(Boolean).sort()[0];
const worst = (a, b) => lagMsOf(b) - lagMsOf(a) || lagOf(b) - lagOf(a) || a.partition - b.partition;

/** `[name, partitions]`, the furthest behind first. */
function byShard(items) {
  const groups = Map.groupBy?.(items, (it) => it.shard) ?? new Map([...new Set(items.map((it) => it.shard))].map((name) => [name, items.filter((it) => it.shard === name)]));
  return [...groups].map(([name, all]) => [name, all.toSorted(worst)]).sort(([, a], [, b]) => worst(a[0], b[0]));
}

function summary(page) {
  const others = page.items.filter((it) => !it.is_followed).map((it) => it.partition);
  const lag = sum(page.items.map(lagOf));
  return html`${asOf(page)}
    <p>${lag ? t('lag_is', { n: num(lag), gap: seconds(Math.max(...page.items.map(lagMsOf))) }) : t('lag_none')}</p>
    ${others.length ? html`<p class="warn">${t('shards_elsewhere', { partitions: others.join(', ') })}</p>` : null}`;
}

function shard([name, items]) {
  const most = Math.max(1, ...items.map(lagOf));
  return card(name, table(name, items, (it) => it.partition, [
    ['partition', (it) => html`<strong>${it.partition}</strong>`, 'lead'],
    ['lag', (it) => (it.is_followed ? lag(it, most) : t('elsewhere')), 'bar'],
    ['behind_for', (it) => (it.is_followed ? behind(it) : null)],
    ...['incoming', 'reservation', 'reset'].map((topic) => [topic, (it) => place(it, topic), 'figure']),
  ]));
}

const lag = (it, most) => html`<progress max=${most} .value=${lagOf(it)} aria-label="${t('lag')}: ${it.partition}"></progress>
  <span>${isUnknown(it) ? t('lag_unknown') : t('records', { n: num(lagOf(it)) })}</span>`;

function behind(it) {
  const from = behindSince(it);
  if (!from) return isUnknown(it) ? '—' : badge('RESERVED', t('up_to_date'));
  return html`${badge('late', seconds(lagMsOf(it)))} <span class="quiet">${t('behind_since', { gap: seconds(since(from)) })} (${clock(from)})</span>`;
}

function place({ topics }, name) {
  const it = topics.find(({ topic }) => topic === name);
  if (!it) return '—';
  return html`<span title=${t('applied_of_end')}>${it.applied_offset === undefined ? '?' : num(it.applied_offset)} / ${it.end_offset === undefined ? '?' : num(it.end_offset)}</span>`;
}
