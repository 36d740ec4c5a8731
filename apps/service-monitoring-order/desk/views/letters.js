// Dead letters: records that a consumer refused, why, and what putting one back would do. The page itself
// puts nothing back; it shows the command that does.

import { letterDryRun, letters as list, pathOf } from '../api.js';
import { Reading, go } from '../page.js';
import { mix, t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { asOf, badge, card, copyAs, curl, dated, field, kcat, linkButton, num, orderLink, problemBox, quiet, renewed, shown, table, texts } from './parts.js';

const TOPICS = ['incoming', 'reservation', 'reset'];
const SERVICES = ['service-create-order', 'service-monitoring-order', 'service-store'];

const found = new Reading();
let filter = {};
/** What was told of letters, by where they stood. */
const dryRuns = new Map();

const link = (query) => pathOf('#/letters', query);
const nameOf = ({ topic, partition, offset }) => `${topic}/${partition}/${offset}`;

export const letters = {
  title: () => t('letters'),
  wants: () => ({}),
  open(query) {
    filter = Object.fromEntries(query);
    dryRuns.clear();
    found.forget();
    read();
  },
  hear() {},
  show: () => html`
    <h1 tabindex="-1">${t('letters')}</h1>
    <section class="card" aria-label=${t('filters')}>${quiet('letters_what')} ${renewed(location.hash, form)}</section>
    ${card('letters_open', shown(found, results))}
  `,
};

const read = () => found.read(() => list({ ...filter, limit: 50 }));

const choice = (label, name, all) => html`<label><span>${t(label)}</span><select name=${name}>
  <option value="">${t('find_any')}</option>
  ${all.map((one) => html`<option value=${one} ?selected=${one === filter[name]}>${one}</option>`)}
</select></label>`;

const form = () => html`<form class="fields row" @submit=${apply}>
  ${choice('topic', 'topic', TOPICS)} ${choice('refused_by', 'consumer', SERVICES)}
  ${field('order', 'key', filter.key, { optional: true })}
  <button class="primary">${t('apply')}</button>
  ${linkButton('#/letters', 'clear')}
</form>`;

function apply(event) {
  event.preventDefault();
  const to = link(texts(event.target));
  if (to === location.hash) read();
  else go(to);
}

function results(page) {
  const { after, ...first } = filter;
  return html`<div class="row">${asOf(page)} <button class="small" @click=${read}>${t('refresh')}</button></div>
    ${page.is_complete ? null : html`<p class="warn">${t('letters_incomplete')}</p>`}
    ${page.items.length ? rows(page.items) : html`<p class="none">${t('letters_none')}</p>`}
    <div class="row">
      ${after ? linkButton(link(first), 'first_page') : null}
      ${page.next ? linkButton(link({ ...first, after: page.next }), 'next_page') : null}
    </div>
    ${copyAs({ curl: curl(pathOf('/api/v1/dead-letters', filter)), ordersaga: listCommand() })}`;
}

function listCommand() {
  const { topic, consumer, key } = filter;
  const given = Object.entries({ topic, consumer, order: key }).filter(([, value]) => value);
  return ['ordersaga dlq list', ...given.map(([name, value]) => `--${name} ${value}`)].join(' ');
}

const rows = (items) =>
  table('letters_open', items, nameOf, [
    ['letter', (letter) => html`<code>${nameOf(letter)}</code>`, 'lead'],
    ['order', ({ key, key_hex }) => (/^\d+$/.test(key) ? orderLink(key) : html`<code>${key ?? (key_hex ? `0x${key_hex}` : '—')}</code>`)],
    ['refusals', ({ refusals }) => refusals.map(refusal)],
    ['attempts', ({ attempts }) => num(attempts), 'figure'],
    ['dry_run', dryRun],
  ]);

const refusal = ({ consumer, error, time }) => html`<div class="refusal">
  <strong>${consumer.replace(/^\//, '')}</strong> <span class="quiet">${dated(time)}</span>
  <p>${error}</p>
</div>`;

// What putting a letter back would do.

function ask(letter) {
  const { topic, partition, offset } = letter;
  const told = dryRuns.get(nameOf(letter)) ?? new Reading();
  dryRuns.set(nameOf(letter), told);
  told.read(() => letterDryRun({ topic, partition, offset }));
}

function dryRun(letter) {
  const name = nameOf(letter);
  const told = dryRuns.get(name);
  if (!told) return html`<button class="small" @click=${() => ask(letter)} aria-label="${t('dry_run')}: ${name}">${t('dry_run_do')}</button>`;
  return html`<div class="dry-run" role="status">${problemBox(told.problem, told.again)} ${told.data ? outcome(letter, told.data) : told.problem ? null : t('reading')}</div>`;
}

function outcome(letter, told) {
  const name = nameOf(letter);
  const isReadable = told.outcome !== 'STILL_UNREADABLE';
  const { topic, partition, offset } = letter;
  return html`<p>${badge(told.outcome, t(isReadable ? 'would_be_read' : 'still_unreadable'))}</p>
    <p>${isReadable ? change(told) : told.error}</p>
    ${isReadable ? html`<p class="quiet">${t('dry_run_again', { who: letter.refusals.map(({ consumer }) => consumer.replace(/^\//, '')).join(', ') })}</p>` : null}
    ${told.blocked_by
      ? html`<p class="warn">${t(`blocked_${told.blocked_by.kind}`)} <code>${told.blocked_by.detail}</code></p>`
      : html`<pre tabindex="0" aria-label=${t('replay_command')}>ordersaga dlq replay ${name}</pre>`}
    ${copyAs({
      ...(told.blocked_by ? { 'dlq show': `ordersaga dlq show ${name}` } : { 'dlq replay': `ordersaga dlq replay ${name}` }),
      'dlq discard': `ordersaga dlq discard ${name}`,
      curl: curl(pathOf('/api/v1/dead-letters/dry-run', { topic, partition, offset })),
      kcat: kcat(`-t ${topic} -p ${partition} -o ${offset} -c 1`),
    }, null)}`;
}

function change({ outcome, order_id, fact, step_before, step_after }) {
  const values = { order: orderLink(order_id), fact: html`<strong class="fact ${fact.fact}">${fact.fact}</strong>` };
  if (outcome === 'NOTHING_CHANGES') return mix('dry_run_nothing', { ...values, step: badge(step_after) });
  if (outcome === 'FACT_IS_ADDED') return mix('dry_run_fact', { ...values, step: badge(step_after) });
  if (!step_before) return mix('dry_run_new', { ...values, step: badge(step_after) });
  return mix('dry_run_step', { ...values, before: badge(step_before), step: badge(step_after) });
}
