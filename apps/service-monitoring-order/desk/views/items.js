// Items: one with its stock and reservations, all by seller or name, a new one.

import { Intent, body, item, items as list, pathOf, reservations, services } from '../api.js';
import { Reading, go, refresh, say } from '../page.js';
import { mix, t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { badge, card, clientLink, copyAs, curl, dated, field, itemLink, linkButton, num, orderLink, pairs, problemBox, quiet, renewed, shown, table, texts } from './parts.js';

const one = new Reading();
const held = new Reading();
const all = new Reading();
let filter = {};

const link = (query) => pathOf('#/items', query);

export const items = {
  title: () => (filter.item_id ? `${t('item')} ${filter.item_id}` : t('items')),
  wants: () => ({}),
  open(query) {
    filter = Object.fromEntries(query);
    for (const reading of [one, held, all]) reading.forget();
    if (filter.item_id) readOne();
    else all.read(() => list({ ...filter, limit: 50 }));
  },
  hear() {},
  show: () => (filter.item_id ? single() : overview()),
};

function readOne() {
  one.read(() => item(filter.item_id));
  held.read(() => reservations({ ...filter, limit: 50 }));
}

function pages(next) {
  const { after, ...first } = filter;
  return html`<div class="row">
    ${after ? linkButton(link(first), 'first_page') : null}
    ${next ? linkButton(link({ ...first, after: next }), 'next_page') : null}
  </div>`;
}

// One item.

const single = () => html`
  <div class="row">
    <h1 tabindex="-1">${items.title()}</h1>
    ${linkButton('#/items', 'items_all')}
    <button @click=${readOne}>${t('refresh')}</button>
  </div>
  ${shown(one, whole)}
`;

const whole = (it) => html`
  <section class="card" aria-labelledby="item-name">
    <h2 id="item-name">${it.item_name}</h2>
    ${pairs([
      ['seller', html`<a class="id" href=${link({ seller_id: it.seller_id })}>${it.seller_id}</a>`],
      ['price', num(it.price)],
      ['units', num(it.quantity)],
      ['free', num(it.available)],
      ['reserved', num(it.reserved)],
      ['changed', dated(it.date)],
    ])}
    <progress class="stock" max=${it.quantity} .value=${Number(it.reserved)} aria-label=${t('reserved')}></progress>
    ${copyAs({ curl: curl(pathOf('/api/v1/items/find', { item_id: it.item_id }), services.store) })}
  </section>
  ${card('reservations', heldOf(it))}
`;

/** An older store only tells the newest. */
const heldOf = (it) => (held.problem?.isMissing ? heldTable({ items: it.reservations }) : shown(held, heldTable));

const heldTable = (page) =>
  page.items.length
    ? [
        table('reservations', page.items, (row) => row.order_id, [
          ['order', (row) => orderLink(row.order_id), 'lead'],
          ['state', (row) => badge(row.state), 'state'],
          ...(page.items[0].client_id ? [['client', (row) => clientLink(row.client_id)], ['quantity', (row) => num(row.quantity), 'figure']] : []),
          ['since', (row) => dated(row.time)],
        ]),
        pages(page.next),
      ]
    : quiet('none');

// All items.

const overview = () => html`
  <h1 tabindex="-1">${items.title()}</h1>
  <div class="columns">
    <div>
      ${card('look_up', html`<form class="fields" @submit=${lookUp}>
        ${field('item_id', 'item_id', '', { numeric: true })}
        <button class="primary">${t('look_up')}</button>
      </form>`)}
      ${card('add', [renewed(count, addForm), addNote()])}
    </div>
    ${card('items_all', [renewed(location.hash, filters), all.problem?.isMissing ? quiet('items_no_list') : shown(all, itemsTable)])}
  </div>
`;

function lookUp(event) {
  event.preventDefault();
  go(link(texts(event.target)));
}

const filters = () => html`<form class="fields row" @submit=${lookUp}>
  ${field('seller', 'seller_id', filter.seller_id, { numeric: true, optional: true })}
  ${field('name_begins', 'name', filter.name, { optional: true })}
  <button>${t('apply')}</button>
</form>`;

const itemsTable = (page) =>
  page.items.length
    ? [
        table('items_all', page.items, (it) => it.item_id, [
          ['item', (it) => itemLink(it.item_id), 'lead'],
          ['name', (it) => it.item_name],
          ['seller', (it) => html`<span class="id">${it.seller_id}</span>`],
          ['price', (it) => num(it.price), 'figure'],
          ['free', (it) => num(it.available), 'figure'],
        ]),
        pages(page.next),
      ]
    : quiet('none');

// A new item.

const intent = new Intent();
let added = {};
/** How many were added; each has a form of its own. */
let count = 0;

const addForm = () => html`<form class="fields" @submit=${add}>
    ${field('name', 'name', '', { wide: true })}
    ${field('seller', 'seller_id', '1', { numeric: true })}
    ${field('price', 'price', '', { numeric: true })}
    ${field('units', 'quantity', '1', { numeric: true })}
    <button class="primary" ?disabled=${added.isSending || added.problem?.retryAt > performance.now()}>${t('add')}</button>
  </form>`;

const addNote = () => html`${problemBox(added.problem, added.again)}
  ${added.id ? html`<p class="done">${mix('added', { id: itemLink(added.id) })}</p>` : null}`;

async function add(event) {
  event.preventDefault();
  const form = event.target;
  added = { isSending: true };
  refresh();
  try {
    const { data } = await intent.post(services.store, '/api/v1/items/add', { json: body(texts(form), ['name']) });
    added = { id: data.item_id };
    count += 1;
    say(t('added', added));
    all.again();
  } catch (problem) {
    added = { problem, again: () => form.requestSubmit() };
  }
  refresh();
}
