// The page: the view that the address names, what stands around it, and the keys.

import { hasPlayground, meter } from './api.js';
import { signIn } from './auth.js';
import { budget } from './budget.js';
import { drawBy, go, refresh } from './page.js';
import { live } from './stream.js';
import { language, switchLanguage, t } from './words.js';
import { html, nothing, render } from './vendor/lit-html/lit-html.js';
import { num, seconds } from './views/parts.js';
import { breakIt } from './views/break.js';
import { find } from './views/find.js';
import { items } from './views/items.js';
import { letters } from './views/letters.js';
import { now } from './views/now.js';
import { order } from './views/order.js';
import { proof } from './views/proof.js';
import { shards } from './views/shards.js';
import { stuck } from './views/stuck.js';

const PLAYGROUND = hasPlayground ? { break: breakIt, proof } : {};
/** A view has a `title`; `open` is called with its address; it `wants` frames, `hear`s them, and `show`s. */
const VIEWS = { '': now, find, stuck, letters, shards, items, orders: order, ...PLAYGROUND };
const NAV = { '': 'now', find: 'find', stuck: 'stuck', letters: 'letters', shards: 'shards', items: 'items', ...(hasPlayground && { break: 'break', proof: 'proof' }) };
const NONE = {
  title: () => t('no_such_view'),
  open() {},
  wants: () => ({}),
  hear() {},
  show: () => html`<h1 tabindex="-1">${t('no_such_view')}</h1>`,
};

const app = document.getElementById('app');
let [path, name, view] = ['', '', NONE];
let stuckCount = 0;

function route() {
  const before = path;
  const [, asked, query] = /^#?\/?([^?]*)\??(.*)$/s.exec(location.hash);
  const [first, rest] = asked.split('/');
  [path, name, view] = [asked, first, Object.hasOwn(VIEWS, first) ? VIEWS[first] : NONE];
  view.open(new URLSearchParams(query), rest);
  draw();
  // A change of filters stays where it is.
  if (path === before) return;
  scrollTo(0, 0);
  document.querySelector('h1')?.focus({ preventScroll: true });
}

function hear(event, data) {
  if (event === 'stuck') stuckCount = data.items.length && `${data.items.length}${data.is_complete ? '' : '+'}`;
  view.hear(event, data);
  refresh();
}

function draw() {
  document.documentElement.lang = language;
  document.title = `${view.title()} · ${t('desk')}`;
  live.want({ stuck: true, ...view.wants() });
  render(page(), app);
}

const page = () => html`
  <a class="skip" href="#main" @click=${skip}>${t('skip')}</a>
  <header>
    <a class="brand" href="#/"><img src="/desk/icon.svg" alt="" width="20" height="20" />${t('desk')}</a>
    <nav>${Object.entries(NAV).map(([to, key]) => html`<a href="#/${to}" aria-current=${to === name ? 'page' : nothing}>
      ${t(key)} ${to === 'stuck' && stuckCount ? html`<span class="count">${stuckCount}</span>` : null}</a>`)}</nav>
    <form role="search" @submit=${findById}>
      <input id="find" inputmode="numeric" maxlength="19" autocomplete="off" aria-label=${t('find_order')} placeholder="${t('find_order')}  /" />
    </form>
    <span class="connection ${live.state.mode}">${t(live.state.mode, { gap: seconds(Math.max(0, live.state.retryAt - Date.now())) })}</span>
    <button class="small" @click=${pause}>${t(live.isPaused ? 'resume' : 'pause')}</button>
    <button class="small" title=${t('language_name')} @click=${otherLanguage}>${t('language')}</button>
  </header>
  <main id="main" tabindex="-1">${signIn()}${view.show()}</main>
  <footer>
    <span class="quiet">${t('received', rates())}. ${costs()}</span>
    <a href="/docs/">API</a><a href="/openapi.json">openapi.json</a><a href="/problems/">${t('problems')}</a>
    <button class="link" @click=${showKeys}>${t('keys')}</button>
  </footer>
  <dialog id="keys" aria-labelledby="keys-title">
    <h2 id="keys-title">${t('keys')}</h2>
    <dl class="keys">${Object.entries(KEYS).map(([keys, word]) => html`<dt><kbd>${keys}</kbd></dt><dd>${t(word)}</dd>`)}</dl>
    <label class="check"><input type="checkbox" .checked=${keysWork} @change=${(event) => (keysWork = event.target.checked)} />${t('keys_on')}</label>
    <button @click=${() => document.getElementById('keys').close()}>${t('close')}</button>
  </dialog>`;

function pause() {
  live.pause(!live.isPaused);
}

function otherLanguage() {
  switchLanguage();
  draw();
}

function skip(event) {
  // The part of the address after # names the view.
  event.preventDefault();
  document.getElementById('main').focus();
}

function findById(event) {
  event.preventDefault();
  const text = document.getElementById('find').value.trim();
  go(text ? `#/orders/${text}` : '#/find');
}

// What came in the last five seconds.

const samples = [[0, 0, 0]];

function sample() {
  samples.push([meter.frames, meter.bytes, meter.cpu]);
  if (samples.length > 6) samples.shift();
}

const rate = (i) => (samples.at(-1)[i] - samples[0][i]) / Math.max(1, samples.length - 1);
const rates = () => ({ frames: num(rate(0)), bytes: num(rate(1) / 1000) });

/** What the services spend on this page: its requests, and its part of what all streams cost. */
function costs() {
  const { cpu_ms_per_s: all = 0, streams = 1, slowdown = 1 } = live.cost ?? {};
  const times = Math.max(slowdown, budget.pace.slowdown);
  return html`<span id="costs" title=${t('costs_streams', { n: num(streams), cpu: num(all) })}>${t('costs', { cpu: num(rate(2) + all / Math.max(1, streams)) })}</span>
    ${times > 1 ? html`<strong id="slowed">${t('slowed', { n: num(times) })}</strong>` : null}`;
}

// Keys. Who dictates turns them off: spoken words would press them.

const KEYS = { '/': 'key_find', 'j k': 'key_move', Enter: 'key_open', p: 'key_pause', '?': 'key_help' };
const DO = { '/': () => document.getElementById('find').select(), j: () => move(1), k: () => move(-1), p: pause, '?': showKeys };
let keysWork = true;

function showKeys() {
  document.getElementById('keys').showModal();
}

/** Moves the focus by rows, on the link that leads each. */
function move(by) {
  const links = [...document.querySelectorAll('main td.lead a')];
  const row = document.activeElement.closest('tr');
  const at = links.findIndex((link) => link.closest('tr') === row);
  links[Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
}

addEventListener('keydown', (event) => {
  const isTyping = event.target.closest?.('input, select, dialog');
  if (!keysWork || isTyping || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(DO, event.key)) return;
  event.preventDefault();
  DO[event.key]();
});

app.replaceChildren();
drawBy(draw);
addEventListener('hashchange', route);
live.start(hear, refresh);
route();
setInterval(() => {
  sample();
  budget.look((live.cost?.cpu_ms_per_s ?? 0) / 1000, performance.now());
  if (!document.hidden) refresh();
}, 1000);
