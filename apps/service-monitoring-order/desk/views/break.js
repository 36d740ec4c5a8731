// Breaking parts of a local stack: what works meanwhile, and whether all is well again.

import { playground } from '../api.js';
import { Reading, refresh, say } from '../page.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { badge, card, clientLink, gap, ms, num, problemBox, quiet, seconds, shown, table } from './parts.js';

/** How often the playground is asked while this view is open. */
const AGAIN = 500;

const stack = new Reading();
/** What is asked about: a part and what is to be done to it. */
let asked = null;
let problem = null;
let toldPhase = null;

export const breakIt = {
  title: () => t('break'),
  wants: () => ({}),
  open() {
    asked = problem = null;
    stack.read(playground.parts);
  },
  hear() {},
  show: () => html`
    <h1 tabindex="-1">${t('break')}</h1>
    ${card('parts', [quiet('break_what'), question(), problemBox(problem), shown(stack, partsTable)])}
    ${card('incident', stack.data ? outcome(stack.data.incident) : quiet('reading'))}
  `,
};

setInterval(() => {
  const isOpen = /^#?\/?break\b/.test(location.hash);
  if (isOpen && !document.hidden && !stack.isReading) stack.read(playground.parts).then(tell);
}, AGAIN);

/** Tells screen readers when it becomes better or worse. */
function tell() {
  const incident = stack.data?.incident;
  if (incident && toldPhase && incident.phase !== toldPhase) say(summary(incident));
  toldPhase = incident?.phase ?? 'NONE';
}

// The parts.

const partsTable = ({ parts }) =>
  table('parts', parts, (part) => part.name, [
    ['part', (part) => part.name, 'lead'],
    ['kind', (part) => t(`kind_${part.kind}`)],
    ['state', state, 'state'],
    ['restarts', (part) => num(part.restarts), 'figure'],
    ['actions', actions],
  ]);

function state(part) {
  if (part.state === 'ENDED') return badge('stuck', t('part_ended'));
  if (part.state === 'FROZEN') return badge('RELEASED', part.thaws_at ? t('part_frozen_for', { gap: left(part) }) : t('part_frozen'));
  return part.is_ready ? badge('RESERVED', t('part_ready')) : badge('late', t('part_not_ready'));
}

const left = ({ thaws_at }) => seconds(Math.max(0, ms(thaws_at) - Date.now()));

const button = (part, action, press) =>
  html`<button id="${action}-${part.name}" class="small ${action === 'thaw' ? '' : 'danger'}" ?disabled=${part.state === 'ENDED'}
    aria-label="${t(action)} ${part.name}" @click=${press}>${t(action)}</button>`;

const actions = (part) => html`<div class="row">
  ${button(part, 'kill', () => ask({ part, action: 'kill' }))}
  ${part.state === 'FROZEN'
    ? button(part, 'thaw', () => act(part.name, 'thaw'))
    : button(part, 'freeze', () => ask({ part, action: 'freeze' }))}
</div>`;

// Asking first.

const question = () =>
  asked && html`<div class="ask" role="alertdialog" aria-labelledby="ask-what" aria-describedby="ask-more"
    @keydown=${(event) => event.key === 'Escape' && ask(null)}>
    <p id="ask-what"><strong>${t(`${asked.action}_ask`, { part: asked.part.name })}</strong></p>
    <p id="ask-more" class="quiet">${t(`${asked.action}_more`, { gap: t('s', { n: stack.data.longest_freeze_seconds }) })}</p>
    <button class="danger" @click=${confirm}>${t(`${asked.action}_yes`)}</button>
    <button id="keep" @click=${() => ask(null)}>${t('break_no')}</button>
  </div>`;

function ask(about) {
  const before = asked;
  asked = about;
  refresh();
  const focus = about ? 'keep' : `${before?.action}-${before?.part.name}`;
  requestAnimationFrame(() => document.getElementById(focus)?.focus());
}

function confirm() {
  const { part, action } = asked;
  ask(null);
  act(part.name, action);
}

async function act(name, action) {
  problem = null;
  toldPhase ??= 'NONE';
  try {
    await playground.act(name, action);
  } catch (failed) {
    problem = failed;
  }
  await stack.read(playground.parts);
  tell();
}

// What became of it.

function outcome(incident) {
  if (!incident) return quiet('incident_none');
  return html`
    <p class=${incident.phase === 'HEALED' && !incident.orders_lost ? 'done' : 'warn'}><strong>${summary(incident)}</strong></p>
    ${incident.faults.map((fault) => html`<p class="quiet">${faultText(fault)}</p>`)}
    ${table('probes', incident.probes, (probe) => probe.what, [
      ['probe', (probe) => t(`probe_${probe.what}`), 'lead'],
      ['state', (probe) => badge(COLOURS[probe.state], t(`probed_${probe.state}`)), 'state'],
      ['details', (probe) => (probe.took_ms === undefined ? probe.why : gap(probe.took_ms))],
    ])}
    <p class="quiet">${t('incident_client')} ${clientLink(incident.client_id)}</p>
  `;
}

const COLOURS = { UNTRIED: '', WORKS: 'RESERVED', WAITS: 'late', FAILS: 'stuck' };

function summary(incident) {
  const { phase, orders_placed: placed, orders_open: open, orders_lost: lost, healed_after_ms } = incident;
  const span = gap(healed_after_ms ?? 0);
  return t(`phase_${phase}`, { gap: span, placed: num(placed), open: num(open), lost: num(lost) });
}

function faultText({ part, kind, began_ms_ago, lasted_ms }) {
  const ago = seconds(began_ms_ago);
  if (kind === 'KILL') return t('fault_killed', { part, ago });
  return lasted_ms === undefined ? t('fault_frozen', { part, ago }) : t('fault_thawed', { part, ago, gap: gap(lasted_ms) });
}
