// How long the store's answers took, and what came true until it could be read here.

import { bars } from '../chart.js';
import { t } from '../words.js';
import { html } from '../vendor/lit-html/lit-html.js';
import { clock, gap, num } from './parts.js';

const MINUTE = 60_000;
const NAMES = ['answered', 'applied'];
const inMs = (us) => us / 1000;

/** Two tiles, of the last hour by minute; nothing if the service does not tell. */
export function latencies({ latencies: told }) {
  if (!told) return null;
  const last = Math.floor(Date.now() / MINUTE) * MINUTE;
  const starts = Array.from({ length: 60 }, (_, i) => last - (59 - i) * MINUTE);
  const minutes = new Map(told.map((minute) => [Date.parse(minute.minute), minute]));
  // The minute before, which is whole; at first there is only the present one.
  const shown = minutes.get(last - MINUTE)?.answered.count ? minutes.get(last - MINUTE) : told.find((minute) => minute.answered.count);
  return html`<div class="tiles two">${NAMES.map((name) => tile(name, shown, starts, minutes))}</div>
    <p class="quiet">${t('latency_here')}</p>`;
}

function tile(name, shown, starts, minutes) {
  const of = shown?.[name];
  const values = starts.map((start) => Math.round(inMs(minutes.get(start)?.[name].p99_us ?? 0)));
  return html`<figure class="tile">
    <figcaption>
      <span>${t(`latency_${name}`)}</span>
      <span class="big">${of?.count ? gap(inMs(of.p50_us)) : '—'}</span>
      <span class="quiet">${of?.count ? t('latency_p99', { p99: gap(inMs(of.p99_us)), n: num(of.count) }) : t('latency_none')}</span>
    </figcaption>
    ${bars({
      id: `latency-${name}`,
      title: t('latency_chart', { name: t(`latency_${name}`) }),
      description: t('latency_most', { most: gap(Math.max(...values)) }),
      series: [{ name: t('p99_ms'), kind: 'latency', values }],
      labels: starts.map((start) => clock(new Date(start).toISOString())),
      corner: t('minute'),
      onPick() {},
    })}
  </figure>`;
}
