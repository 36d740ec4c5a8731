// Orders by filters, which are in the address, so that a link shows the same.

import { orders, pathOf } from '../api.js';
import { Reading, go } from '../page.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { STEPS, asOf, card, copyAs, curl, field, findLink, linkButton, missing, num, ordersTable, quiet, renewed, shown, texts } from './parts.js';

const found = new Reading();
let filter = {};

export const find = {
  title: () => t('find'),
  wants: () => ({ orders: found.data?.items.filter(({ step }) => step === STEPS[0]).map((order) => order.order_id) }),
  open(query) {
    filter = Object.fromEntries(query);
    found.forget();
    found.read(() => orders(filter));
  },
  hear(name, data) {
    const at = name === 'order' ? found.data?.items.findIndex((order) => order.order_id === data.order_id) : -1;
    if (at >= 0) found.data.items[at] = data;
  },
  show: () => html`
    <h1 tabindex="-1">${t('find')}</h1>
    <section class="card">${renewed(location.hash, form)}</section>
    ${card('found', shown(found, results))}
  `,
};

const form = () => html`<form class="fields row" @submit=${apply}>
  ${field('find_order', 'order_id', '', { numeric: true, optional: true })}
  ${field('client', 'client_id', filter.client_id, { numeric: true, optional: true })}
  <label><span>${t('step')}</span><select name="step">
    <option value="">${t('find_any')}</option>
    ${STEPS.map((step) => html`<option value=${step} ?selected=${step === filter.step}>${step}</option>`)}
  </select></label>
  ${field('from', 'from', local(filter.from), { type: 'datetime-local', optional: true })}
  ${field('to', 'to', local(filter.to), { type: 'datetime-local', optional: true })}
  <button class="primary">${t('apply')}</button>
  ${linkButton('#/find', 'clear')}
</form>`;

/** A time as its field has it, in the local zone. */
function local(iso) {
  const time = new Date(iso);
  return Number.isNaN(+time) ? '' : new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function apply(event) {
  event.preventDefault();
  const { order_id, ...given } = texts(event.target);
  if (order_id) return go(`#/orders/${order_id}`);
  for (const end of ['from', 'to']) if (given[end]) given[end] = new Date(given[end]).toISOString();
  if (findLink(given) === location.hash) found.again();
  else go(findLink(given));
}

function results(page) {
  const { after, ...newest } = filter;
  return html`<div class="row">
      <p>${t('scanned', { n: num(page.items.length), scanned: num(page.scanned) })} ${t(page.next ? 'scanned_some' : 'scanned_all')}</p>
      ${asOf(page)} <button class="small" @click=${found.again}>${t('refresh')}</button>
    </div>
    ${missing(page)} ${page.items.length ? ordersTable('found', page.items) : quiet('none')}
    <div class="row">
      ${after ? linkButton(findLink(newest), 'first_page') : null}
      ${page.next ? linkButton(findLink({ ...newest, after: page.next }), 'next_page') : null}
    </div>
    ${copyAs({ curl: curl(pathOf('/api/v1/orders', filter)) })}`;
}
