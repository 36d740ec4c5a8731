// What a service is shown where it asks who its client is: a key or token, kept for this tab alone.

import { refresh } from './page.js';
import { t } from './words.js';
import { html } from './vendor/lit-html/lit-html.js';

const NAME = 'ordersaga-credentials';
const credentials = sessionStorage.getItem(NAME) ?? '';

/** Goes with every request. */
export const authorization = credentials ? { Authorization: `Bearer ${credentials}` } : {};

/** Tabs that show the same may share a stream, and no others. A short hash: the name is no secret. */
export const sharing = [...credentials].reduce((hash, c) => (Math.imul(hash, 31) + c.charCodeAt(0)) | 0, 0);

let refused;

/** A service has refused a request (401). */
export function askFor(problem) {
  refused = problem;
  refresh();
}

/** Asks for other credentials, if some were refused. */
export const signIn = () => refused && html`<form class="panel" @submit=${keep}>
  <label for="credentials">${t('sign_in')}</label>
  <input id="credentials" type="password" autocomplete="off" required />
  <button>${t('send')}</button>
  ${credentials ? html`<p class="quiet" role="alert">${refused.detail}</p>` : null}
</form>`;

function keep(event) {
  event.preventDefault();
  sessionStorage.setItem(NAME, document.getElementById('credentials').value.trim());
  // Everything is asked for again.
  location.reload();
}
