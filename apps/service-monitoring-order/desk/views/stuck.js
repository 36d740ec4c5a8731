// Orders that wait for too long: for whom, since when, and what ends it.

import { live } from '../stream.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { DEADLINE, asOf, badge, clientLink, clock, copyAs, curl, missing, ms, orderLink, quiet, seconds, since, table } from './parts.js';

let answer = null;

export const stuck = {
  title: () => t('stuck'),
  wants: () => ({}),
  open() {},
  hear(name, data) {
    if (name === 'stuck') answer = data;
  },
  show: () => html`
    <h1 tabindex="-1">${t('stuck')}</h1>
    <section class="card" aria-label=${t('stuck')}>
      ${quiet('stuck_what')} ${answer ? list() : quiet('reading')} ${copyAs({ curl: curl('/api/v1/orders/stuck'), ordersaga: 'ordersaga doctor' })}
    </section>
  `,
};

const list = () => html`
  ${asOf(live)} ${missing(answer)}
  ${answer.is_complete ? null : html`<p class="warn">${t('stuck_incomplete')}</p>`}
  ${answer.items.length ? orders(answer.items) : html`<p class="none">${t('stuck_none')}</p>`}
`;

const orders = (rows) =>
  table('stuck', rows, ({ order }) => order.order_id, [
    ['order', ({ order }) => orderLink(order.order_id), 'lead'],
    ['state', ({ is_late }) => (is_late ? badge('late', t('is_late')) : badge('stuck', t('is_stuck'))), 'state'],
    ['step', ({ order }) => badge(order.step), 'state'],
    ['waits_on', ({ waits_for }) => t(`wait_${waits_for}`)],
    ['since', (row) => html`${clock(row.since)} <span class="quiet">${seconds(since(row.since))}</span>`],
    ['ends', ends],
    ['client', ({ order }) => clientLink(order.client_id)],
  ]);

function ends({ waits_for, order }) {
  if (waits_for !== 'ANSWER') return t(`ends_${waits_for}`);
  const left = ms(order.created_at) + DEADLINE - Date.now();
  return t(left > 0 ? 'ends_ANSWER' : 'ends_ANSWER_over', { gap: seconds(Math.abs(left)) });
}
