// What several views show: figures, times, links, tables, problems, forms.

import { services } from '../api.js';
import { refresh } from '../page.js';
import { has, language, mix, t } from '../words.js';
import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { repeat } from '../vendor/lit-html/directives/repeat.js';

/** The default of service-create-order's `ORDER_DEADLINE_SECONDS`, which the API does not tell. */
export const DEADLINE = 60_000;
export const STEPS = ['UNDER_RESERVATION', 'SHIPPING', 'CANCELLED'];

// Figures and times.

export const num = (n, digits = 1) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(typeof n === 'string' ? BigInt(n) : n);

/** A time in ms; its microseconds are the fraction. */
export function ms(iso) {
  const [, whole, fraction = '0'] = /^(.{19})(?:\.(\d+))?/.exec(iso);
  return Date.parse(`${whole}Z`) + 1000 * Number(`0.${fraction}`);
}

/** A duration in a fitting unit. */
export function gap(span) {
  const [size, whole] = [Math.abs(span), Math.floor(Math.abs(span) / 1000)];
  const said = (key, n, m) => (span < 0 ? '−' : '') + t(key, { n, m });
  if (size < 1000) return said('ms', num(size, size < 10 ? 1 : 0));
  if (whole < 60) return said('s', num(size / 1000, whole < 10 ? 2 : 1));
  if (whole < 3600) return said('min_s', Math.floor(whole / 60), whole % 60);
  if (whole < 86400) return said('h_min', Math.floor(whole / 3600), Math.floor(whole / 60) % 60);
  return said('d_h', num(Math.floor(whole / 86400)), Math.floor(whole / 3600) % 24);
}

/** The same in whole seconds, for what ticks. */
export const seconds = (span) => (Math.abs(span) < 60_000 ? t('s', { n: Math.round(span / 1000) }) : gap(span));

export const since = (iso) => Math.max(0, Date.now() - ms(iso));

const time = (options) => (iso) =>
  html`<time datetime=${iso} title=${iso}>${new Date(iso).toLocaleString(language, { hourCycle: 'h23', ...options })}</time>`;
const OF_DAY = { hour: '2-digit', minute: '2-digit', second: '2-digit' };
export const clock = time(OF_DAY);
export const exactly = time({ ...OF_DAY, fractionalSecondDigits: 3 });
export const dated = time({ dateStyle: 'medium', timeStyle: 'medium' });

export const asOf = ({ as_of }) => html`<p class="quiet">
  ${as_of ? mix('as_of', { time: clock(as_of), gap: seconds(since(as_of)) }) : as_of === '' ? '…' : t('as_of_unknown')}
</p>`;

// Links.

export const findLink = (filter) => `#/find?${new URLSearchParams(filter)}`;
const idLink = (href, id) => html`<a class="id" href=${href}>${id}</a>`;
export const orderLink = (id) => idLink(`#/orders/${id}`, id);
export const clientLink = (id) => idLink(findLink({ client_id: id }), id);
export const itemLink = (id) => idLink(`#/items?item_id=${id}`, id);
export const linkButton = (href, key) => html`<a class="button" href=${href}>${t(key)}</a>`;

// Pieces of a page.

export const card = (title, content) =>
  html`<section class="card" aria-labelledby=${title}><h2 id=${title}>${t(title)}</h2>${content}</section>`;

export const badge = (state, word = state) => html`<span class="badge ${state}">${word}</span>`;

export const quiet = (key) => html`<p class="quiet ${key}">${t(key)}</p>`;

export const pairs = (rows) =>
  html`<dl class="details">${rows.map(([key, value]) => html`<dt>${t(key)}</dt><dd>${value}</dd>`)}</dl>`;

/** A `Reading`. */
export const shown = ({ data, problem, again }, show) => [
  problemBox(problem, again),
  data ? show(data) : problem ? null : quiet('reading'),
];

export const missing = ({ missing_shards: shards }) =>
  shards?.length ? html`<p class="warn">${t('missing_shards', { shards: shards.join(', ') })}</p>` : null;

/** What went wrong, and a button to try again when the service allows it. */
export function problemBox(problem, again) {
  if (!problem) return null;
  const left = problem.retryAt - performance.now();
  const kind = /^urn:ordersaga:problem:([a-z-]+)$/.exec(problem.type)?.[1];
  const title = has(`problem_${kind}`) ? t(`problem_${kind}`) : problem.title;
  const wrong = problem.errors.length ? problem.errors : [problem];
  return html`<div class="problem"><div role="alert">
    ${problem.status
      ? html`<strong>${title}</strong>${wrong.map(({ field, detail }) => html`<p>${field ? html`<code>${field}</code>: ` : null}${detail}</p>`)}`
      : html`<strong>${t('problem_unreachable', problem)}</strong><p>${t('problem_why')}</p>`}
    ${kind ? html`<a href="${problem.base}/problems/${kind}">${t('problem_kind')}</a>` : null}
    ${problem.request_id ? html`<p class="quiet">${t('problem_request', { id: problem.request_id })}</p>` : null}
    </div>
    ${again && problem.isPassing
      ? html`<button type="button" ?disabled=${left > 0} @click=${again}>
          ${left > 0 ? t('try_again_in', { gap: seconds(left + 500) }) : t('try_again')}
        </button>`
      : null}
  </div>`;
}

/** A click anywhere in a row opens what leads it, unless it selects text or is meant for something else. */
function openRow({ currentTarget, target }) {
  if (target.closest('a, button, input, pre, summary') || String(getSelection())) return;
  currentTarget.querySelector('td.lead a')?.click();
}

/** `columns` are a text's key, what a cell shows of a row, and a class. On a phone each row is a card, and
 * its cells carry the names of their columns. */
export function table(caption, rows, key, columns, rowClass = () => '') {
  const cell = (row) => ([name, show, kind = '']) => html`<td class=${kind} data-label=${t(name)}>${show(row)}</td>`;
  return html`<table>
    <caption class="unseen">${t(caption)}</caption>
    <thead><tr>${columns.map(([name, , kind = '']) => html`<th scope="col" class=${kind}>${t(name)}</th>`)}</tr></thead>
    <tbody>${repeat(rows, key, (row) => html`<tr class=${rowClass(row)} @click=${openRow}>${columns.map(cell(row))}</tr>`)}</tbody>
  </table>`;
}

/** Without PLACED there is no other time. */
const begun = (order) => order.created_at ?? order.update_date;

export const ordersTable = (caption, orders) =>
  table(
    caption,
    orders,
    (order) => order.order_id,
    [
      ['order', (order) => orderLink(order.order_id), 'lead'],
      ['client', (order) => clientLink(order.client_id)],
      ['item', (order) => itemLink(order.item_id)],
      ['quantity', (order) => num(order.quantity), 'figure'],
      ['step', (order) => badge(order.step), 'state'],
      ['age', (order) => html`<span title=${begun(order)}>${seconds(since(begun(order)))}</span>`, 'figure'],
    ],
    (order) => (since(begun(order)) < 5000 ? 'young' : ''),
  );

// Forms.

const NUMERIC = { inputmode: 'numeric', pattern: '\\s*[0-9]+\\s*', maxlength: 19 };

/** A field of a form under its label. */
export function field(label, name, value, { numeric, optional, wide, type = 'text', list, fixed } = {}) {
  const { inputmode = nothing, pattern = nothing, maxlength = 200 } = numeric ? NUMERIC : {};
  return html`<label class=${wide ? 'wide' : ''}>
    <span>${t(label)}</span>
    <input name=${name} .value=${value ?? ''} type=${type} step=${type === 'text' ? nothing : 1} inputmode=${inputmode}
      pattern=${pattern} maxlength=${maxlength} title=${numeric ? t('find_digits') : nothing} list=${list ?? nothing}
      autocomplete="off" ?required=${!optional} ?readonly=${fixed} />
  </label>`;
}

/** A new form for each key, without what was typed into the last. */
export const renewed = (key, form) => repeat([key], (it) => it, form);

/** The texts of a form that are not empty. */
export const texts = (form) =>
  Object.fromEntries([...new FormData(form)].map(([name, text]) => [name, text.trim()]).filter(([, text]) => text));

// Copying.

let copied = null;

/** Buttons that copy the view in several forms. The text is shown as well: over plain HTTP from another
 * machine a page has no clipboard. */
export function copyAs(forms, link = location.href) {
  const all = Object.entries({ ...(link && { [t('copy_link')]: link }), ...forms });
  const copy = async ([name, text]) => {
    const isDone = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => true, () => false);
    copied = { name, text, isDone };
    refresh();
  };
  const isShown = all.some(([name, text]) => name === copied?.name && text === copied.text);
  return html`<div class="row copy">
    <span class="quiet">${t('copy')}</span>
    ${all.map((form) => html`<button type="button" class="small" @click=${() => copy(form)}>${form[0]}</button>`)}
    ${isShown
      ? html`<span class="quiet" role="status">${t(copied.isDone ? 'copied' : 'copy_self')}</span><pre tabindex="0">${copied.text}</pre>`
      : null}
  </div>`;
}

export const curl = (path, base = services.monitoring) => `curl '${base}${path}'`;

/** The broker is the one that `ordersaga up` starts. */
export const kcat = (rest) => `kcat -q -b 127.0.0.1:9092 -C ${rest}`;
