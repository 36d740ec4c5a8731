// The facts of a real order, to be told in any order, again, or not at all: the status stays the same,
// as long as none is left out. The service computes it, with the fold that every status is.

import { ask, services } from '../api.js';
import { refresh, say } from '../page.js';
import { t } from '../words.js';
import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { repeat } from '../vendor/lit-html/directives/repeat.js';
import { badge, card, clock, num, problemBox } from './parts.js';

/** Facts that one telling may have, and how many are tried at once. */
const [MOST, MANY] = [20, 100];
/** What of a status a fold makes. */
const FOLDED = ['step', 'is_reserved', 'is_cancelled', 'reason', 'initiator', 'created_at', 'update_date', 'facts'];

/** The order's status, when its facts were taken. */
let status = null;
/** What is told: each a place in the facts, with a key of its own, since it may be told again. */
let told = [];
let folded = null;
let problem = null;
let many = null;
let tried = { all: 0, same: 0 };
let [turn, nextKey, dragged] = [0, 0, null];

/** Another order is shown, or more was heard of it. */
export function forgetShuffle() {
  [status, told, folded, problem, many] = [null, [], null, null, null];
  tried = { all: 0, same: 0 };
  turn += 1;
}

function start(of) {
  forgetShuffle();
  status = of;
  change(of.facts.map((_, place) => ({ place, key: (nextKey += 1) })));
  focus('shuffle-many');
}

const focus = (id) => requestAnimationFrame(() => document.getElementById(id)?.focus());
const indexOf = (key) => told.findIndex((one) => one.key === key);
/** Facts that nothing tells. */
const left = () => status.facts.map((_, place) => place).filter((place) => !told.some((one) => one.place === place));

/** Tells them in this order. Of several answers the one to the last question counts. */
async function change(next) {
  told = next;
  const mine = (turn += 1);
  refresh();
  const answer = await fold([told.map(({ place }) => place)]);
  if (!answer || mine !== turn) return;
  folded = answer.statuses[0];
  count(answer);
  say(`${folded.step ?? t('shuffle_nothing')}: ${t(isSame(folded) ? 'shuffle_same' : 'shuffle_other')}`);
  refresh();
}

async function fold(tellings) {
  const json = JSON.stringify({ facts: status.facts, tellings: tellings.map((places) => ({ places })) });
  try {
    const { data } = await ask(services.monitoring, '/api/v1/status/fold', { method: 'POST', json });
    problem = null;
    return data;
  } catch (failed) {
    problem = failed;
    refresh();
    return null;
  }
}

function count({ statuses, reached }) {
  const same = reached.filter((place) => isSame(statuses[place])).length;
  tried = { all: tried.all + reached.length, same: tried.same + same };
  return same;
}

const isSame = (one) => FOLDED.every((field) => JSON.stringify(one[field]) === JSON.stringify(status[field]));

/** All facts, and some of them again, in a random order. */
function shuffled(length) {
  const again = Array.from({ length: Math.floor(Math.random() * (length + 1)) }, () => Math.floor(Math.random() * length));
  const all = [...Array(length).keys(), ...again].slice(0, MOST);
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}

async function tryMany() {
  const mine = turn;
  const answer = await fold(Array.from({ length: MANY }, () => shuffled(status.facts.length)));
  if (!answer || mine !== turn) return;
  many = { orders: num(MANY), same: num(count(answer)), n: num(answer.statuses.length) };
  say(t('shuffle_many_done', many));
  refresh();
}

/** Moves what has this key to a place. */
function move(key, to) {
  const from = indexOf(key);
  const next = told.filter((one) => one.key !== key);
  if (to < 0 || to > next.length || to === from) return;
  next.splice(to, 0, told[from]);
  change(next);
}

function again(key) {
  const at = indexOf(key);
  if (told.length < MOST) change(told.toSpliced(at + 1, 0, { ...told[at], key: (nextKey += 1) }));
}

function leaveOut(key) {
  const at = indexOf(key);
  change(told.toSpliced(at, 1));
  focus(told.length ? `told-${told[Math.min(at, told.length - 1)].key}` : 'shuffle-many');
}

/** Arrows move a fact, and the focus goes with it. */
function byKey(event, key) {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  moveBy(key, step);
}

function moveBy(key, step) {
  const { id } = document.activeElement;
  move(key, indexOf(key) + step);
  focus(id);
}

function drop(event, key) {
  event.preventDefault();
  if (dragged !== null && dragged !== key) move(dragged, indexOf(key));
  dragged = null;
}

/** Shows it for an order as its status is. */
export const showShuffle = (of) => card('shuffle', [html`<p class="quiet">${t('shuffle_what')}</p>`, status ? open() : closed(of)]);

const closed = (of) => html`<div class="row"><button id="shuffle-open" class="small" @click=${() => start(of)}>${t('shuffle_open')}</button></div>`;

const open = () => html`
  <ol class="told">${repeat(told, ({ key }) => key, token)}</ol>
  ${left().length ? [html`<div class="row">${left().map(putBack)}</div>`, html`<p class="warn">${t('shuffle_left')}</p>`] : null}
  ${problemBox(problem, () => change(told))}
  ${folded ? outcome() : null}
  <div class="row">
    <button id="shuffle-many" class="small" @click=${tryMany}>${t('shuffle_many', { n: num(MANY) })}</button>
    <button class="small" @click=${() => start(status)}>${t('shuffle_reset')}</button>
    <span class="quiet">${t('shuffle_tried', { all: num(tried.all), same: num(tried.same) })}</span>
  </div>
  ${many ? html`<p class=${many.n === num(1) ? 'done' : 'problem'}>${t('shuffle_many_done', many)}</p>` : null}`;

function token({ place, key }) {
  const { fact, time } = status.facts[place];
  const at = indexOf(key);
  const button = (id, word, sign, click, off) =>
    html`<button id=${id ?? nothing} class="small" aria-label="${t(word)}: ${fact}" title=${t(word)} aria-disabled=${off ? 'true' : nothing} @click=${click}>${sign}</button>`;
  return html`<li draggable="true" @dragstart=${() => (dragged = key)} @dragover=${(event) => event.preventDefault()} @drop=${(event) => drop(event, key)} @keydown=${(event) => byKey(event, key)}>
    <strong class="fact ${fact}">${fact}</strong> <span class="quiet">${clock(time)}</span>
    <span class="tools">
      ${button(`told-${key}`, 'shuffle_earlier', '←', () => moveBy(key, -1), at === 0)}
      ${button(`later-${key}`, 'shuffle_later', '→', () => moveBy(key, 1), at === told.length - 1)}
      ${button(undefined, 'shuffle_again', '+', () => again(key), told.length >= MOST)}
      ${button(undefined, 'shuffle_out', '×', () => leaveOut(key))}
    </span>
  </li>`;
}

const putBack = (place) =>
  html`<button class="small" @click=${() => change([...told, { place, key: (nextKey += 1) }])}>${t('shuffle_back', status.facts[place])}</button>`;

const outcome = () => html`<div class="row outcome ${isSame(folded) ? 'done' : 'warn'}">
  ${folded.step ? badge(folded.step) : html`<span>${t('shuffle_nothing')}</span>`}
  <span>${t(isSame(folded) ? 'shuffle_same' : 'shuffle_other')}</span>
</div>`;
