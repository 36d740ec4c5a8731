// Bars as SVG, and as a table for screen readers.

import { html, svg } from './vendor/lit-html/lit-html.js';

const [STEP, HEIGHT] = [4, 44];

/** `series` are `{ name, kind, values }`, stacked, with a value for each of the `labels`; `kind` is the
 * class that colours them. `onPick` gets the index of a clicked bar. */
export function bars({ id, title, description, series, labels, corner, onPick }) {
  const sums = labels.map((_, i) => series.reduce((sum, { values }) => sum + values[i], 0));
  const most = Math.max(1, ...sums);
  const width = labels.length * STEP;
  const bar = (i) => {
    let top = HEIGHT;
    return series.map(({ kind, values }) => {
      // Even one is seen.
      const height = values[i] && Math.max(1.5, (values[i] / most) * HEIGHT);
      top -= height;
      return height ? svg`<rect class=${kind} x=${i * STEP} y=${top} width=${STEP - 1} height=${height} />` : null;
    });
  };
  const pick = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    onPick(Math.min(labels.length - 1, Math.floor(((event.clientX - box.left) / box.width) * labels.length)));
  };
  const told = labels.map((label, i) => [label, i]).filter(([, i]) => sums[i]);
  return html`<svg
      class="bars"
      role="img"
      aria-labelledby="${id}-title ${id}-desc"
      viewBox="0 -2 ${width} ${HEIGHT + 3}"
      preserveAspectRatio="none"
      @click=${pick}
    >
      <title id="${id}-title">${title}</title>
      <desc id="${id}-desc">${description}</desc>
      <rect class="ground" x="0" y=${HEIGHT} width=${width} height="1" />
      ${labels.map((_, i) => bar(i))}
    </svg>
    <div class="unseen"><table>
      <caption>${title}</caption>
      <thead><tr><th scope="col">${corner}</th>${series.map(({ name }) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>
        ${told.map(([label, i]) => html`<tr><th scope="row">${label}</th>${series.map(({ values }) => html`<td>${values[i]}</td>`)}</tr>`)}
      </tbody>
    </table></div>`;
}
