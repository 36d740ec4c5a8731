// The three services and how the page asks them.

import { askFor, authorization } from './auth.js';
import { budget } from './budget.js';

// Which services this one knows of (its setting DOCS_URLS), by their documents' titles.
const known = await fetch('/desk/services.json').then((answer) => answer.json()).catch(() => ({}));
const at = (title, port) => known[title] ?? `${location.protocol}//${location.hostname}:${port}`;

/** The page itself comes from service-monitoring-order. */
export const services = { create: at('Create order', 8000), monitoring: location.origin, store: at('Store', 8002) };

/** It is there with `up --playground` only. */
export const hasPlayground = Object.hasOwn(known, 'Playground');

export const meter = {
  bytes: 0,
  frames: 0,
  /** ms of the services' CPU for requests, as they say. */
  cpu: 0,
  add(bytes) {
    this.bytes += bytes;
    this.frames += 1;
  },
};

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const isId = (key) => key.endsWith('_id') || key === 'next';

/** Parses JSON with ids, and integers too long for a double, as text. They are quoted first, since not
 * every browser gives a reviver the source. */
export function parse(text) {
  const exact = text.replace(TOKEN, (token) => (/^-?\d{16,}$/.test(token) ? `"${token}"` : token));
  return JSON.parse(exact, (key, value) => (isId(key) && typeof value === 'number' ? `${value}` : value));
}

/** A JSON body of a form's texts. Digits are a number, exact; the service says what is wrong with the rest. */
export function body(fields, textual = []) {
  const value = (key, text) =>
    !textual.includes(key) && /^\d+$/.test(text) ? `${BigInt(text)}` : JSON.stringify(text);
  return `{${Object.entries(fields).map(([key, text]) => `${JSON.stringify(key)}:${value(key, text)}`).join(',')}}`;
}

/** Why a request failed (RFC 9457). With status 0 there was no answer. */
export class Problem extends Error {
  constructor(problem, base, retryAfter) {
    super(problem.detail);
    Object.assign(this, { errors: [] }, problem, { base });
    this.retryAt = performance.now() + 1000 * (Number(retryAfter) || 0);
  }

  /** The same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  get isMissing() {
    return this.status === 404 || this.status === 405;
  }
}

/** The problem that an answer tells, even if a proxy wrote it. */
export async function problemOf(response, base) {
  if (response.status === 429 || response.status === 503) budget.isShed = true;
  const text = await response.text().catch(() => '');
  const known = { status: response.status, title: `HTTP ${response.status}`, detail: text.slice(0, 300) };
  let told = {};
  if (response.headers.get('Content-Type')?.includes('json')) {
    try {
      told = parse(text);
    } catch {
      // The text will do.
    }
  }
  const problem = new Problem({ ...known, ...told }, base, response.headers.get('Retry-After'));
  if (response.status === 401) askFor(problem);
  return problem;
}

export const pathOf = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
};

/** Asks a service; throws a `Problem`. */
export async function ask(base, path, { query, key, json, method = 'GET' } = {}) {
  const headers = { Accept: 'application/json', ...authorization };
  if (key) headers['Idempotency-Key'] = key;
  if (json) headers['Content-Type'] = 'application/json';
  try {
    // Longer than any answer is waited for here.
    const signal = AbortSignal.timeout(20_000);
    const response = await fetch(base + pathOf(path, query), { method, headers, body: json, signal, cache: 'no-store' });
    meter.cpu += Number(/cpu;dur=([\d.]+)/.exec(response.headers.get('Server-Timing') ?? '')?.[1] ?? 0);
    if (!response.ok) throw await problemOf(response, base);
    const bytes = await response.arrayBuffer();
    meter.add(bytes.byteLength);
    return { data: parse(new TextDecoder().decode(bytes)), isReplayed: response.headers.has('Idempotent-Replayed') };
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem({ status: 0, title: '', detail: base }, base);
  }
}

const read = async (base, path, query) => (await ask(base, path, { query })).data;
const { monitoring, store } = services;

export const status = (order_id, more) => read(monitoring, '/api/v1/status', { order_id, ...more });
export const orders = (query) => read(monitoring, '/api/v1/orders', query);
export const stuck = () => read(monitoring, '/api/v1/orders/stuck');
export const stats = (limit = 60) => read(monitoring, '/api/v1/stats', { limit });
export const partitions = () => read(monitoring, '/api/v1/partitions');
export const letters = (query) => read(monitoring, '/api/v1/dead-letters', query);
export const letterDryRun = (query) => read(monitoring, '/api/v1/dead-letters/dry-run', query);
export const evidence = (order_id) => read(monitoring, '/api/v1/status/evidence', { order_id });
export const item = (item_id) => read(store, '/api/v1/items/find', { item_id });
export const items = (query) => read(store, '/api/v1/items', query);
export const reservations = (query) => read(store, '/api/v1/items/reservations', query);

const toPlayground = async (method, path) => (await ask(known.Playground, path, { method })).data;

export const playground = {
  parts: () => toPlayground('GET', '/api/v1/parts'),
  act: (part, action) => toPlayground('POST', `/api/v1/parts/${part}/${action}`),
  proof: () => toPlayground('GET', '/api/v1/proof'),
  check: () => toPlayground('POST', '/api/v1/proof'),
};

// `crypto.randomUUID` is there on https and localhost only.
const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Something to be done once. The key stays until it is known to be done or something else is asked for,
 * so that a retry after a lost answer does nothing twice. */
export class Intent {
  #key;
  #asked;

  async post(base, path, options = {}) {
    const asked = JSON.stringify([path, options]);
    if (asked !== this.#asked) [this.#asked, this.#key] = [asked, newKey()];
    const done = await ask(base, path, { ...options, key: this.#key, method: 'POST' });
    this.#asked = undefined;
    return done;
  }
}
