// The records behind an order's facts, read from the topics when somebody asks.

import { evidence } from '../api.js';
import { Reading, refresh } from '../page.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { copyAs, curl, exactly, kcat, pairs, shown } from './parts.js';

let of = '';
const told = new Reading();

/** What was read, or a button that reads it. */
export function records(id) {
  if (of !== id) forget(id);
  const isAsked = told.isReading || told.data || told.problem;
  return html`<p class="quiet">${t('records_what')}</p>
    <button aria-expanded=${isAsked ? 'true' : 'false'} @click=${() => (isAsked ? forget(id) : read(id))}>
      ${t(isAsked ? 'records_hide' : 'records_show')}</button>
    ${isAsked ? shown(told, ({ facts }) => html`<ol class="records">${facts.map(fact)}</ol>`) : null}
    ${isAsked ? copyAs({ curl: curl(`/api/v1/status/evidence?order_id=${id}`) }, null) : null}`;
}

function read(id) {
  told.read(() => evidence(id));
}

function forget(id) {
  of = id;
  told.forget();
  refresh();
}

const fact = ({ fact, topic, partition, record, missing }) => html`<li>
  <h3><strong class="fact ${fact}">${fact}</strong> <code>${topic}/${partition}/${record?.offset ?? '?'}</code></h3>
  ${record ? whole(record, topic, partition) : html`<p class="warn">${t(`missing_${missing}`)}</p>`}
</li>`;

const whole = (record, topic, partition) => html`
  ${pairs([
    ['broker_time', record.timestamp ? exactly(record.timestamp) : '—'],
    ['trace_id', record.trace_id ? html`<code class="id">${record.trace_id}</code>` : t('not_traced')],
    ['key', html`<code>${record.key}</code>`],
    ...record.headers.map(({ name, value, value_hex }) => [name, html`<code class="id">${value ?? (value_hex ? `0x${value_hex}` : '—')}</code>`]),
  ])}
  <pre tabindex="0" aria-label=${t('payload')}>${record.payload ? pretty(record.payload) : t('no_payload')}</pre>
  ${copyAs({ kcat: kcat(`-t ${topic} -p ${partition} -o ${record.offset} -c 1`) }, null)}`;

/** Ids were read as text, so that they are exact; they stand in the record as numbers. */
const pretty = (payload) => JSON.stringify(payload, null, 2).replace(/^( *"\w+_id": )"(\d+)"/gm, '$1$2');
