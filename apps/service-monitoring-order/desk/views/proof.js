// The twelve invariants: what the last check has found, and checking now.

import { playground } from '../api.js';
import { Reading, refresh, say } from '../page.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { badge, card, dated, gap, num, orderLink, problemBox, quiet, seconds, shown, since, table } from './parts.js';

/** How often it is asked for while a check runs. */
const AGAIN = 500;

const known = new Reading();
let problem = null;

export const proof = {
  title: () => t('proof'),
  wants: () => ({}),
  open() {
    problem = null;
    known.read(playground.proof).then(follow);
  },
  hear() {},
  show: () => html`
    <div class="row">
      <h1 tabindex="-1">${t('proof')}</h1>
      <button id="check" class="primary" ?disabled=${known.data?.is_running} @click=${check}>${t('proof_check')}</button>
    </div>
    ${card('invariants', [quiet('proof_what'), problemBox(problem, check), shown(known, result)])}
  `,
};

async function check() {
  problem = null;
  try {
    await playground.check();
    await known.read(playground.proof);
    follow();
  } catch (failed) {
    problem = failed;
    refresh();
  }
}

let timer;

/** Asks again until the check that runs is over. */
function follow() {
  clearTimeout(timer);
  if (!known.data?.is_running) return;
  timer = setTimeout(async () => {
    await known.read(playground.proof);
    if (known.data?.is_running) follow();
    else if (known.data?.last) say(summary(known.data.last));
  }, AGAIN);
}

const result = ({ is_running, last }) => html`
  ${is_running ? html`<p class="warn">${t('proof_runs')}</p>` : null}
  ${last ? found(last) : is_running ? null : html`<p class="none">${t('proof_none')}</p>`}
`;

const of = (last, verdict) => last.invariants.filter((one) => one.verdict === verdict).length;

function summary(last) {
  if (last.failed) return t('proof_failed', { why: last.failed });
  const [holds, violated, unchecked] = ['HOLDS', 'VIOLATED', 'NOT_CHECKED'].map((verdict) => num(of(last, verdict)));
  return t(violated === num(0) ? 'proof_holds' : 'proof_violated', { holds, violated, unchecked });
}

const isGood = (last) => !last.failed && !of(last, 'VIOLATED');

const found = (last) => html`
  <p class=${isGood(last) ? 'done' : 'ask'}><strong>${summary(last)}</strong></p>
  <p class="quiet">${t('proof_over', { orders: num(last.orders), gap: gap(last.took_ms), ago: seconds(since(last.checked_at)) })}
    ${dated(last.checked_at)} ${last.orders ? [orderLink(last.first_order_id), ' – ', orderLink(last.last_order_id)] : null}</p>
  ${last.invariants.length
    ? table('invariants', last.invariants, (one) => one.name, [
        ['invariant', (one) => one.name, 'lead'],
        ['verdict', (one) => badge(COLOURS[one.verdict], t(`verdict_${one.verdict}`)), 'state'],
        ['promise', promise],
        ['over', (one) => num(one.over), 'figure'],
      ])
    : null}
`;

const COLOURS = { HOLDS: 'RESERVED', VIOLATED: 'stuck', NOT_CHECKED: '' };

/** An invariant that a newer playground knows is told in its own words. */
const inWords = (key, own) => (t(key) === key ? own : t(key));

const promise = ({ name, promise, compared, why, violations }) => html`
  <p>${inWords(`promise_${name}`, promise)}</p>
  <p class="quiet">${t('compared', { what: inWords(`compared_${name}`, compared) })} ${why ? t(`why_${why}`) : null}</p>
  ${violations.map(({ order_id, what }) => html`<p class="id">${order_id ? orderLink(order_id) : null} ${what}</p>`)}
`;
