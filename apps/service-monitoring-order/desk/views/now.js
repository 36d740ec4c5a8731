// The start: place an order, counts of the last hour, the newest orders.

import { Intent, body, item, items, orders, services, status } from '../api.js';
import { bars } from '../chart.js';
import { Reading, go, refresh, say } from '../page.js';
import { live } from '../stream.js';
import { mix, t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { latencies } from './latency.js';
import { asOf, badge, card, clock, copyAs, curl, field, findLink, gap, missing, ms, num, orderLink, ordersTable, problemBox, quiet, texts } from './parts.js';

let newest = null;
let stats = null;
/** The newest orders when the pointer or the focus came to the list. */
let held = null;

export const now = {
  title: () => t('now'),
  wants: () => ({ newest: true, stats: true }),
  open() {
    held = null;
    if (!chosen.data) choose(draft.item_id);
    if (!offered.data) offered.read(() => items({ limit: 50 }));
  },
  hear(name, data) {
    if (name === 'newest') newest = data;
    if (name === 'stats') stats = data;
  },
  show: () => html`
    <h1 class="unseen" tabindex="-1">${t('now')}</h1>
    <div class="columns">${card('place', placeForm())} ${card('hour', stats ? hour() : quiet('reading'))}</div>
    ${card('newest', newest ? list() : quiet('reading'))}
  `,
};

// Placing an order.

/** What the form says. A new store has plenty of item 1000. */
const draft = { item_id: '1000', seller_id: '', client_id: '1', quantity: '1' };
const chosen = new Reading();
const offered = new Reading();
const intent = new Intent();
let placed = {};
let typing;

function type({ target }) {
  draft[target.name] = target.value;
  if (target.name === 'item_id') choose(target.value.trim());
}

function choose(text) {
  chosen.forget();
  draft.seller_id = '';
  clearTimeout(typing);
  typing = setTimeout(() => (/^\d+$/.test(text) ? byId(text) : offered.read(() => items({ name: text, limit: 50 }))), 250);
}

async function byId(id) {
  await chosen.read(() => item(id));
  if (chosen.data) draft.seller_id ||= chosen.data.seller_id;
}

function placeForm() {
  const isHeld = placed.isSending || placed.problem?.retryAt > performance.now();
  return html`<form class="fields" @input=${type} @submit=${place}>
      ${field('place_item', 'item_id', draft.item_id, { list: 'offered', wide: true })}
      <datalist id="offered">${offered.data?.items.map((it) => html`<option value=${it.item_id}>${it.item_name}</option>`)}</datalist>
      <div class="quiet wide">${chosenFacts(chosen)}</div>
      ${field(chosen.data ? 'seller_of_item' : 'seller', 'seller_id', draft.seller_id, { numeric: true, fixed: Boolean(chosen.data) })}
      ${field('client', 'client_id', draft.client_id, { numeric: true })}
      ${field('quantity', 'quantity', draft.quantity, { numeric: true })}
      <button class="primary" ?disabled=${isHeld}>${t('place')}</button>
    </form>
    ${problemBox(placed.problem, placed.again)} ${placed.id ? placedNote() : null}`;
}

function chosenFacts({ data, problem, again }) {
  if (problem) return problem.isMissing ? t('place_no_item') : problemBox(problem, again);
  if (!data) return null;
  return t('place_facts', { name: data.item_name, price: num(data.price), free: num(data.available) });
}

async function place(event) {
  event.preventDefault();
  const form = event.target;
  placed = { isSending: true };
  refresh();
  try {
    const { data, isReplayed } = await intent.post(services.create, '/api/v1/orders/create', { json: body(texts(form)) });
    placed = { id: data.order_id, isReplayed };
    say(t('placed_said', placed));
    follow(placed);
  } catch (problem) {
    placed = { problem, again: () => form.requestSubmit() };
  }
  refresh();
}

/** Waits for the end of an order just placed. */
async function follow(order) {
  const began = performance.now();
  const look = () => live.state.mode === 'live' || orders({ limit: 50 }).then((page) => now.hear('newest', page), () => {});
  look();
  const told = await status(order.id, { wait_ms: 10_000 }).catch(() => null);
  if (told?.step && told.step !== 'UNDER_RESERVATION') {
    Object.assign(order, { step: told.step, gap: gap(performance.now() - began) });
    say(t('placed_heard', order));
  } else {
    order.isSilent = true;
  }
  await look();
  refresh();
}

const placedNote = () => html`<p class="done">
  ${mix('placed_said', { id: orderLink(placed.id) })} ${placed.isReplayed ? t('placed_before') : null}
  ${placed.step ? mix('placed_heard', { ...placed, step: badge(placed.step) }) : placed.isSilent ? t('placed_wait') : null}
</p>`;

// The last hour.

const MINUTE = 60_000;
/** A fact, its counts with their names, and a filter of a list that comes near. A list has orders by the
 * step they are at now, and no step is a fact's alone: the link says what it lists. */
const TILES = [
  ['PLACED', { placed: null }, {}],
  ['RESERVED', { reserved: null }, { step: 'SHIPPING' }],
  ['CANCELLED', { cancelled_by_client: 'by_client', cancelled_by_store: 'by_store', cancelled_by_deadline: 'by_deadline' }, { step: 'CANCELLED' }],
  ['RELEASED', { released: null }, { step: 'CANCELLED' }],
];
const iso = (time) => new Date(time).toISOString();
const sum = (values) => values.reduce((a, b) => a + b, 0);

function hour() {
  const last = Math.floor(Date.now() / MINUTE) * MINUTE;
  const starts = Array.from({ length: 60 }, (_, i) => last - (59 - i) * MINUTE);
  const counts = new Map(stats.minutes.map((minute) => [Date.parse(minute.minute), minute]));
  const values = (key) => starts.map((start) => counts.get(start)?.[key] ?? 0);
  return html`<div class="tiles">${TILES.map((one) => tile(one, starts, values))}</div>
    <p>${t('rate', { rate: num(values('placed')[58] / 60) })} ${decided(newest?.items ?? [])}</p>
    <div class="row">${asOf(live)} ${quiet('counts_records')}</div>
    ${latencies(stats)}
    ${copyAs({ curl: curl('/api/v1/stats?limit=60') })}`;
}

function tile([fact, keys, filter], starts, values) {
  const series = Object.entries(keys).map(([key, name]) => ({ name: name ? t(name) : fact, kind: `${fact} ${key}`, values: values(key) }));
  const all = starts.map((_, i) => sum(series.map((one) => one.values[i])));
  const total = num(sum(all));
  return html`<figure class="tile">
    <figcaption>
      <strong class="fact ${fact}">${fact}</strong>
      <span class="big">${total}</span>
      <span class="quiet">${t('last_minute', { n: num(all[58]) })}</span>
      <a href=${findLink({ ...filter, from: iso(starts[0]) })}>${t(`list_${filter.step ?? 'ALL'}`)}</a>
    </figcaption>
    ${bars({
      id: `bars-${fact}`,
      title: t('chart_title', { fact }),
      description: t('chart_text', { sum: total, most: num(Math.max(...all)) }),
      series,
      labels: starts.map((start) => clock(iso(start))),
      corner: t('minute'),
      onPick: (i) => go(findLink({ ...filter, from: iso(starts[i]), to: iso(starts[i] + MINUTE) })),
    })}
    ${series.length > 1 ? html`<p class="legend">${series.map((one) => html`<span class=${one.kind}>${one.name} ${num(sum(one.values))}</span>`)}</p>` : null}
  </figure>`;
}

/** How long the store took to answer. */
function decided(recent) {
  const answers = recent
    .map(({ facts }) => [facts.find(({ fact }) => fact === 'PLACED'), facts.find(({ fact, initiator }) => fact === 'RESERVED' || initiator === 'store')])
    .filter(([asked, answered]) => asked && answered)
    .map(([asked, answered]) => ms(answered.time) - ms(asked.time))
    .sort((a, b) => a - b);
  if (!answers.length) return null;
  return t('answers', { n: answers.length, median: gap(answers[answers.length >> 1]), slowest: gap(answers.at(-1)) });
}

// The newest orders. The list holds still while it is used, or a click would open the wrong order.

const hold = () => (held ??= newest.items);

function letGo() {
  held = null;
  refresh();
}

/** The focus may move within the list, and the pointer may leave while the focus stays. */
function leave({ currentTarget, relatedTarget, type }) {
  const stays = type === 'focusout' ? relatedTarget : document.activeElement;
  if (!currentTarget.contains(stays) && (type === 'pointerleave' || !currentTarget.matches(':hover'))) letGo();
}

function list() {
  const known = new Map(newest.items.map((order) => [order.order_id, order]));
  const newer = held ? newest.items.findIndex((order) => order.order_id === held[0]?.order_id) : 0;
  const all = held?.map((order) => known.get(order.order_id) ?? order) ?? newest.items;
  return html`<div class="row">
      ${newer ? html`<p class="held">${t('newest_held', { n: newer < 0 ? `> ${newest.items.length}` : newer })}
        <button class="small" @click=${letGo}>${t('newest_show')}</button></p>` : null}
    </div>
    ${missing(newest)}
    ${all.length
      ? html`<div @pointerenter=${hold} @pointerleave=${leave} @focusin=${hold} @focusout=${leave}>${ordersTable('newest', all)}</div>`
      : html`<p>${t('no_orders')} <code>cargo ordersaga load --rate 20</code></p>`}`;
}
