// One order: what came true of it, who said so, who must speak next, and how to end it.

import { Intent, ask, item, pathOf, services, status } from '../api.js';
import { budget } from '../budget.js';
import { partitionOf } from '../partition.js';
import { Reading, refresh, say } from '../page.js';
import { live } from '../stream.js';
import { mix, t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { records } from './evidence.js';
import { DEADLINE, badge, card, clientLink, copyAs, curl, dated, exactly, gap, itemLink, kcat, ms, num, pairs, problemBox, seconds, shown, since } from './parts.js';
import { forgetShuffle, showShuffle } from './shuffle.js';
import { heardOf, openWitnesses, showWitnesses } from './witnesses.js';

let id = '';
/** What is shown while the user decides to cancel: it must not change under the button. */
let frozen = null;
let cancelling = null;
let intent = new Intent();
const told = new Reading();
/** What create-order has of it: the deadline is its own setting. */
const placed = new Reading();
const bought = new Reading();

export const order = {
  title: () => `${t('order')} ${id}`,
  wants: () => ({ orders: isId(id) ? [id] : [] }),
  open(_, text = '') {
    const given = isId(text) ? `${BigInt(text)}` : text;
    if (id === given && told.data) return;
    [id, frozen, cancelling, intent] = [given, null, null, new Intent()];
    told.forget();
    bought.forget();
    placed.forget();
    openWitnesses(id);
    forgetShuffle();
    told.read(() => status(id).then(hear));
  },
  hear(name, data) {
    if (name === 'order' && data.order_id === id) told.data = hear(data);
  },
  show: () => html`
    <div class="row"><h1 tabindex="-1">${order.title()}</h1>${told.data ? [badge(told.data.step), cancelButton(told.data)] : null}</div>
    ${told.data ? cancelNote(frozen ?? told.data) : null}
    ${shown({ ...told, data: frozen ?? told.data, problem: told.data ? undefined : told.problem }, whole)}
    ${isId(id) ? showWitnesses() : null}
    ${told.data ? showShuffle(told.data) : null}
  `,
};

/** One wrong id would cost all tabs their stream. */
const isId = (text) => /^\d+$/.test(text) && BigInt(text) < 2n ** 63n;
const factOf = ({ facts }, name) => facts.find(({ fact }) => fact === name);
const nameOf = ({ fact, initiator = '' }) => `${fact} ${initiator}`;

function hear(heard) {
  if (heard.order_id !== id) return heard;
  const before = told.data;
  if (!before) bought.read(() => item(heard.item_id));
  if (!before && waitOf(heard)?.key === 'next_answer') placed.read(() => ask(services.create, '/api/v1/orders/find', { query: { order_id: id } }));
  // Facts are only added: an answer with fewer is older.
  if (!before || heard.facts.length <= before.facts.length) return before ?? heard;
  heardOf(id);
  forgetShuffle();
  const known = new Set(before.facts.map(nameOf));
  const news = heard.facts.filter((fact) => !known.has(nameOf(fact)));
  if (cancelling) heardOfCancel(heard, news);
  else say(`${order.title()}: ${heard.step}`);
  return heard;
}

const whole = (status) => html`
  <div class="columns even">
    ${card('facts', timeline(status))}
    <div>
      ${card('next', next(status))}
      ${card('details', [details(status), copyAs(forms(status))])}
    </div>
  </div>
  ${card('record_list', records(id))}
`;

const details = (status) =>
  pairs([
    ['client', clientLink(status.client_id)],
    ['item', [itemLink(status.item_id), ' ', bought.data?.item_name]],
    ['seller', html`<span class="id">${status.seller_id}</span>`],
    ['quantity', num(status.quantity)],
    ['placed', status.created_at ? dated(status.created_at) : '—'],
    ['shard', status.shard],
    ['partition', partitionOf(id)],
  ]);

/** The same elsewhere. */
function forms(status) {
  const partition = partitionOf(id);
  const table = `order_event_${`${partition}`.padStart(2, '0')}`;
  return {
    curl: curl(pathOf('/api/v1/status', { order_id: id })),
    ordersaga: `ordersaga order ${id}`,
    SQL: `-- on ${status.shard}\nSELECT * FROM ${table} WHERE order_id = ${id} ORDER BY at;`,
    kcat: `for topic in incoming reservation reset; do
  ${kcat(`-e -t $topic -p ${partition} -f '%t %o %k %s\\n'`)}
done | awk '$3 == ${id}'`,
  };
}

// What came true, with the gaps between.

const timeline = (status) => html`<ol class="timeline">${status.facts.map((fact, i) => {
  const span = i && ms(fact.time) - ms(status.facts[i - 1].time);
  const undo = undoing(status, fact);
  return html`${i ? html`<li class="gap">${span < 0 ? t('gap_clocks', { gap: gap(span) }) : `+${gap(span)}`}</li>` : null}
    <li class="${fact.fact} ${undo && fact.fact === 'RESERVED' ? 'undone' : ''}">
      <strong class="fact ${fact.fact}">${fact.fact}</strong> ${exactly(fact.time)}
      <p>${t(`fact_${fact.fact}`)} ${fact.reason ? t(`reason_${fact.reason}`) : null}
        <span class="quiet">${t('said_by', { who: t(speaker(fact)) })}</span></p>
      ${undo ? html`<p class="undo">${undo}</p>` : null}
    </li>`;
})}</ol>`;

function speaker({ fact, initiator }) {
  if (initiator === 'client' || initiator === 'deadline') return `who_${initiator}`;
  return fact === 'PLACED' ? 'who_create' : 'who_store';
}

/** What undid a fact, or what it undoes. */
function undoing(status, { fact, time }) {
  const released = factOf(status, 'RELEASED');
  if (!released) return null;
  if (fact === 'RESERVED') return t('undone_by', { gap: gap(ms(released.time) - ms(time)) });
  const reset = status.facts.find(({ initiator }) => initiator && initiator !== 'store');
  return fact === 'RELEASED' && reset ? t('undoes', { why: t(`by_${reset.initiator}`) }) : null;
}

// What is still to come, as `in_flight::judge` in service-monitoring-order sees it.

function waitOf(status) {
  const [reserved, ended] = [factOf(status, 'RESERVED'), factOf(status, 'CANCELLED')];
  if (factOf(status, 'RELEASED')) return null;
  if (reserved && ended) return { key: 'next_release', from: ended.time };
  if (!status.created_at) return { key: 'next_placing', from: status.facts[0].time };
  return reserved || ended ? null : { key: 'next_answer', from: status.created_at };
}

function next(status) {
  const wait = waitOf(status);
  if (!wait) return html`<p>${t(status.is_cancelled ? 'next_over' : 'next_shipping')}</p>`;
  return html`<p>${t(wait.key)} <span class="quiet">${t('waits_since', { gap: seconds(since(wait.from)) })}</span></p>
    ${wait.key === 'next_answer' ? countdown(ms(status.created_at), placed.data?.data.deadline) : null}`;
}

function countdown(created, deadline) {
  const whole = deadline ? ms(deadline) - created : DEADLINE;
  const left = created + whole - Date.now();
  return html`<progress max=${whole} .value=${Math.max(0, left)} aria-label=${t('deadline_left')}></progress>
    <p>${t(left > 0 ? 'deadline_in' : 'deadline_over', { gap: seconds(Math.abs(left)) })}
      ${deadline ? null : html`<span class="quiet">${t('deadline_default', { n: DEADLINE / 1000 })}</span>`}</p>`;
}

// Cancelling: ask, send, and report the facts that follow.

function freeze(status) {
  frozen = status;
  refresh();
  requestAnimationFrame(() => document.getElementById(status ? 'keep' : 'cancel')?.focus());
}

async function cancel() {
  frozen = null;
  const mine = { began: performance.now(), heard: [] };
  cancelling = mine;
  refresh();
  try {
    await intent.post(services.create, '/api/v1/orders/cancel', { query: { order_id: id } });
    mine.accepted = gap(performance.now() - mine.began);
    follow(mine);
  } catch (problem) {
    mine.problem = problem;
  }
  refresh();
}

/** Asks for the status where the stream does not tell it, until null more is to come. */
async function follow(mine) {
  const pause = (span) => new Promise((done) => setTimeout(done, span));
  if (live.state.mode === 'live') await pause(3000);
  for (let i = 0; i < 60 && cancelling === mine && !isDone(told.data); i++) {
    const heard = await status(id, { wait_ms: 0 }).catch(() => null);
    if (heard) order.hear('order', heard);
    refresh();
    await pause(budget.slowed(250));
  }
}

const isDone = (status) => status.is_cancelled && !waitOf(status);

function heardOfCancel(status, news) {
  const span = gap(performance.now() - cancelling.began);
  cancelling.heard.push(...news.map(({ fact }) => ({ fact, gap: span })));
  if (isDone(status)) say(cancelling.heard.map((heard) => t('cancel_heard', heard)).join(', '));
}

const cancelButton = (status) =>
  frozen || cancelling || status.is_cancelled
    ? null
    : html`<button id="cancel" class="danger" @click=${() => freeze(told.data)}>${t('cancel')}</button>`;

function cancelNote(status) {
  if (frozen) return question();
  return cancelling ? outcome(cancelling, status) : null;
}

const question = () => html`<div class="ask" role="alertdialog" aria-labelledby="ask-what" aria-describedby="ask-held"
  @keydown=${(event) => event.key === 'Escape' && freeze(null)}>
  <p id="ask-what"><strong>${t('cancel_ask', { id })}</strong></p>
  <p id="ask-held" class="quiet">${t('cancel_frozen')} ${frozen === told.data ? null : t('cancel_changed')}</p>
  <button class="danger" @click=${cancel}>${t('cancel_yes')}</button>
  <button id="keep" @click=${() => freeze(null)}>${t('cancel_no')}</button>
</div>`;

function outcome({ problem, accepted, heard }, status) {
  if (problem) return problemBox(problem, cancel);
  if (!accepted) return html`<p>${t('cancel_waits')}</p>`;
  const facts = heard.map(({ fact, gap }) => html`<p>${mix('cancel_heard', { fact: html`<strong class="fact ${fact}">${fact}</strong>`, gap })}</p>`);
  const rest = isDone(status) ? (heard.length ? null : t('cancel_over')) : t('cancel_waits');
  return html`<div class="done"><p>${t('cancel_sent', { gap: accepted })}</p>${facts}${rest}</div>`;
}
