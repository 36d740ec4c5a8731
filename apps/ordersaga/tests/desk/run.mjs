// Drives the order desk of a running stack in Debian's Chromium, as people use it.
//
//     npm install && node run.mjs http://localhost:8001 OUTDIR
//
// It waits for states and never for time. Screenshots of every view go to OUTDIR. With DESK_DIR the page
// comes from that folder instead of the service, so that it can be changed without building the service.

import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { CASES, NOW, accounts } from './witness.cases.mjs';

const [url, out] = process.argv.slice(2);
if (!url || !out) {
  console.error('usage: node run.mjs URL OUTDIR');
  process.exit(2);
}
const { DESK_DIR, CHROMIUM = '/usr/bin/chromium' } = process.env;
const LIMIT = 60_000;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
await mkdir(out, { recursive: true });
// A page that comes from no address may not ask this machine's services.
const args = [...(DESK_DIR ? ['--disable-features=LocalNetworkAccessChecks'] : []), ...(process.getuid() ? [] : ['--no-sandbox'])];
const browser = await chromium.launch({ executablePath: CHROMIUM, args });

// Chromium reports each 4xx as an error. These are asked for knowingly: what an older service lacks, an
// order that does not exist, one with a wrong field.
const MAY_FAIL = /\/api\/v1\/(stream|items|items\/(find|reservations|witness)|status|status\/evidence|orders\/(create|find)|reservations\/find)(\?|$)/;
const complaints = [];

function ensure(condition, text) {
  if (!condition) throw new Error(text);
}

/** A browser of its own with one page. */
async function open(hash = '#/', options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(LIMIT);
  const page = await tab(context, hash);
  return { context, page };
}

async function tab(context, hash = '#/') {
  const page = await context.newPage();
  page.on('pageerror', (error) => complaints.push(error.stack));
  page.on('console', (message) => {
    const from = message.location().url;
    const isExpected = MAY_FAIL.test(from) && / 4\d\d /.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !isExpected) complaints.push(`${message.text()} (${from})`);
  });
  if (DESK_DIR) await page.route(/:8001\/(desk\/(?!services\.json).*)?$/, fromDisk);
  await page.goto(`${url}/${hash}`);
  return page;
}

/** The page's file, with the policy that the service sends. */
async function fromDisk(route) {
  const { pathname, hostname } = new URL(route.request().url());
  const policy = `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' http://${hostname}:8000 http://${hostname}:8002 http://${hostname}:8003; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html`;
  const file = pathname === '/' ? 'index.html' : pathname.slice('/desk/'.length);
  await route.fulfill({ path: path.join(DESK_DIR, file), headers: { 'Content-Security-Policy': policy } });
}

const isLive = (page) => page.locator('.connection:is(.live, .polling)').waitFor();
const shown = (page, selector, text) => page.locator(selector, { hasText: text }).first().waitFor();
const go = (page, hash) => page.evaluate((to) => (location.hash = to), hash);

/** Waits until the view has what it shows. */
async function settled(page) {
  await page.waitForFunction(() => document.querySelector('h1') && !document.querySelector('.reading'));
}

async function place(page, fields = {}) {
  if (!fields.seller_id) await page.waitForFunction(() => document.querySelector('[name=seller_id]')?.value);
  for (const [name, text] of Object.entries(fields)) await page.fill(`main [name=${name}]`, text);
  await page.click('main button.primary');
}

/** The id of the order that the form has placed. */
async function placedId(page) {
  return (await page.locator('.done a.id').textContent()).trim();
}

/** Ids as the API writes them: JSON.parse of this program would round them. */
async function idsOf(order) {
  const answer = await fetch(`${url}/api/v1/status?order_id=${order}&wait_ms=0`);
  return Object.fromEntries([...(await answer.text()).matchAll(/"(\w+_id)":(\d+)/g)].map(([, name, id]) => [name, id]));
}

async function isAccessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run());
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map(({ html }) => `    ${html}`).join('\n')}`);
  ensure(!told.length, `${what}: ${told.join('\n')}`);
}

/** A client that nobody else is. */
const client = `${1000 + Math.floor(Math.random() * 1e6)}`;
/** Near the end of what an id can be. */
const LARGE = `${2n ** 63n - 1n - BigInt(Math.floor(Math.random() * 1e9))}`;
let order;

const checks = {
  async 'an order is placed, ships and is cancelled before one\'s eyes'() {
    const { context, page } = await open();
    await isLive(page);
    await page.evaluate(() => (window.isTheSame = true));
    await place(page, { client_id: client });
    order = await placedId(page);
    await shown(page, '.done .badge', 'SHIPPING');
    await shown(page, `tr:has(a[href="#/orders/${order}"]) .badge`, 'SHIPPING');
    await page.click(`tr a[href="#/orders/${order}"]`);
    await shown(page, '.timeline', 'RESERVED');
    await page.locator('h1 ~ #cancel').waitFor();
    await shown(page, 'section.card', 'can still be cancelled');
    await page.click('#cancel');
    await isAccessible(page, 'the question');
    await page.click('#keep');
    await page.click('#cancel');
    await page.click('[role=alertdialog] .danger');
    for (const fact of ['CANCELLED', 'RELEASED']) {
      await shown(page, '.done', fact);
      await shown(page, '.timeline li', fact);
    }
    await shown(page, 'h1 + .badge', 'CANCELLED');
    await shown(page, '.timeline li.undone', 'RESERVED');
    ensure(await page.evaluate(() => window.isTheSame), 'the page was loaded again');
    await page.screenshot({ path: path.join(out, 'cancelled.png'), fullPage: true });
    await context.close();
  },

  async 'ids are exact'() {
    const { context, page } = await open();
    await place(page, { client_id: LARGE });
    const large = await placedId(page);
    await page.click('.done a.id');
    await shown(page, '.details', LARGE);
    const ids = await idsOf(large);
    ensure(ids.client_id === LARGE && ids.order_id === large, `the API says ${JSON.stringify(ids)}`);
    const { parse, partitions } = await page.evaluate(async () => {
      const { parse } = await import('/desk/api.js');
      const { partitionOf } = await import('/desk/partition.js');
      const text = '{"order_id":9223372036854775807,"name":"1234567890123456789 \\"2\\"","price":1234567890123456789,"next":1,"f":1.2345678901234567}';
      return { parse: JSON.stringify(parse(text)), partitions: ['1', '2', '3', '1000000', '4294967296', '9223372036854775807'].map(partitionOf) };
    });
    const exact = '{"order_id":"9223372036854775807","name":"1234567890123456789 \\"2\\"","price":"1234567890123456789","next":"1","f":1.2345678901234567}';
    ensure(parse === exact, parse);
    ensure(`${partitions}` === '8,10,9,11,8,6', `partitions ${partitions}`);
    await context.close();
  },

  async 'an order is found by its client, its step and its id'() {
    const { context, page } = await open('#/find');
    await page.fill('main [name=client_id]', client);
    await page.selectOption('[name=step]', 'CANCELLED');
    await page.click('main button.primary');
    await shown(page, 'td.lead', order);
    ensure(page.url().includes(`client_id=${client}&step=CANCELLED`), `the filter is not in the address: ${page.url()}`);
    await page.fill('#find', order);
    await page.press('#find', 'Enter');
    await shown(page, 'h1', order);
    await go(page, '#/orders/9223372036854775807');
    await shown(page, '.problem', 'no order');
    await context.close();
  },

  async 'a refusal and a wrong field are told in plain words'() {
    const { context, page } = await open();
    await place(page, { quantity: '0' });
    await shown(page, '.problem', 'quantity');
    ensure(await page.locator('[name=seller_id][readonly]').count(), 'the seller of a known item can be changed');
    await page.fill('[name=item_id]', '999999999');
    await shown(page, 'form', 'No such item');
    await place(page, { quantity: '1', seller_id: '4242' });
    await shown(page, '.done .badge', 'CANCELLED');
    await page.click('.done a.id');
    await shown(page, '.timeline', 'There is no such item');
    await context.close();
  },

  async 'the records of an order are shown as they stand in the topics'() {
    const { context, page } = await open(`#/orders/${order}`);
    await page.click('text=Read the records');
    for (const topic of ['incoming', 'reservation', 'reset']) await shown(page, '.records code', `${topic}/`);
    await shown(page, '.records pre', `"order_id": ${order}`);
    await shown(page, '.records dt', 'ce_id');
    await isAccessible(page, 'the records');
    await page.screenshot({ path: path.join(out, 'records.png'), fullPage: true });
    await page.click('text=Hide');
    await page.locator('.records').waitFor({ state: 'detached' });
    await context.close();
  },

  async 'every partition says on which shard it is and how far it is'() {
    const { context, page } = await open('#/shards');
    await shown(page, 'h2', 'shard2');
    ensure((await page.locator('tbody tr').count()) === 16, 'there are not 16 partitions');
    await shown(page, 'td', 'up to date');
    await context.close();
  },

  async 'how long the store took is shown beside the counts'() {
    const { context, page } = await open();
    await page.waitForFunction(() => [...document.querySelectorAll('.tiles.two .big')].length === 2 && [...document.querySelectorAll('.tiles.two .big')].every((it) => /\d/.test(it.textContent)));
    await shown(page, '.tiles.two', 'p99');
    await context.close();
  },

  async 'a click on a row opens its order, one on a link its own'() {
    const { context, page } = await open(`#/find?client_id=${client}`);
    await page.click(`tr:has(td.lead a[href="#/orders/${order}"]) td.figure`);
    await shown(page, 'h1', order);
    await context.close();
  },

  async 'a problem is told in the language of the page'() {
    const { context, page } = await open('#/orders/9223372036854775807', { locale: 'ru-RU' });
    await shown(page, '.problem strong', 'Не найдено');
    await context.close();
  },

  async 'an order is copied as curl, SQL and kcat'() {
    const { context, page } = await open(`#/orders/${order}`);
    const parts = { curl: `/api/v1/status?order_id=${order}'`, SQL: `WHERE order_id = ${order} ORDER BY at;`, kcat: `'$3 == ${order}'`, ordersaga: `ordersaga order ${order}` };
    for (const [name, part] of Object.entries(parts)) {
      await page.click(`.copy button:text-is("${name}")`);
      await shown(page, '.copy pre', part);
    }
    await context.close();
  },

  async 'accounts of an order are compared: what is on its way is told from a contradiction'() {
    const { context, page } = await open();
    const order = await page.evaluate(async () => (await import('/desk/witness.js')).WITNESSES);
    for (const [name, data, verdict, findings] of CASES) {
      // What is undefined would come as null.
      const said = Object.entries(accounts(data, order)).map(([who, account]) => [who, account, account.data === undefined]);
      const found = await page.evaluate(
        async ([said, now]) => {
          const { compare } = await import('/desk/witness.js');
          const known = said.map(([who, account, isSilent]) => [who, isSilent ? { ...account, data: undefined } : account]);
          return compare('7', Object.fromEntries(known), now);
        },
        [said, NOW],
      );
      const told = found.findings.map(({ key, facts = [], who }) => `${key} ${facts.join('+')} ${who}`);
      ensure(found.verdict === verdict && `${told}` === `${findings}`, `${name}: ${found.verdict}, ${told}`);
    }
    await context.close();
  },

  async 'all witnesses of an order are asked, and agree'() {
    const { context, page } = await open(`#/orders/${order}`);
    await page.click('#ask-witnesses');
    await shown(page, '.verdict.done', 'All agree');
    for (const state of ['CANCELLED', 'RELEASED', 'all facts']) await shown(page, '.witnesses .badge', state);
    await context.close();
  },

  async 'what one witness has not heard yet is asked for again until all agree, and a contradiction is red'() {
    const { context, page } = await open();
    let [isBehind, state] = [true, 'RELEASED'];
    const rewrite = (pattern, change) =>
      page.route(pattern, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: change(await response.text()) });
      });
    await rewrite(/status\?.*wait_ms=0/, (text) => (isBehind ? text.replace(/,\{"fact":"RELEASED"[^}]*\}/, '') : text));
    await rewrite(/reservations\/find/, (text) => text.replace('"RELEASED"', `"${state}"`));
    await go(page, `#/orders/${order}`);
    await page.click('#ask-witnesses');
    await shown(page, '.verdict.warn', 'RELEASED was decided');
    await shown(page, '.witnesses .delay', 'monitoring');
    await isAccessible(page, 'a delay');
    await page.screenshot({ path: path.join(out, 'witnesses-delay.png'), fullPage: true });
    isBehind = false;
    await shown(page, '.verdict.done', 'All agree');
    state = 'TOMBSTONE';
    await page.click('#ask-witnesses');
    await shown(page, '.verdict.problem', 'RESERVED is known to monitoring, and unknown to store');
    await isAccessible(page, 'a contradiction');
    await page.screenshot({ path: path.join(out, 'witnesses-contradiction.png'), fullPage: true });
    await context.close();
  },

  async 'the facts of an order make the same status in every order'() {
    const { context, page } = await open(`#/orders/${order}`);
    await page.click('#shuffle-open');
    await shown(page, '.outcome.done', 'CANCELLED');
    const facts = () => page.locator('.told .fact').allTextContents();
    const [first, second] = await facts();
    await page.locator('.told li').first().locator('button').nth(1).focus();
    await page.keyboard.press('ArrowRight');
    await page.waitForFunction((to) => document.querySelector('.told .fact').textContent === to, second);
    ensure(await page.evaluate(() => document.activeElement.closest('.told li') !== null), 'the focus is lost');
    await shown(page, '.outcome.done', 'CANCELLED');
    await page.locator('.told li').last().dragTo(page.locator('.told li').first());
    await page.waitForFunction(() => document.querySelector('.told .fact').textContent === 'RELEASED');
    await page.locator('.told li').first().getByTitle('Repeat').click();
    await page.waitForFunction(() => document.querySelectorAll('.told li').length === 5);
    await shown(page, '.row', 'Orders tried: 4; same status: 4');
    await page.click('#shuffle-many');
    await shown(page, 'p.done', '100 random orders with repetitions: 100 lead to this status; different statuses: 1.');
    await page.locator('.told li', { hasText: 'CANCELLED' }).getByTitle('Leave out').click();
    await shown(page, '.outcome.warn', 'SHIPPING');
    await shown(page, '.warn', 'A fact is left out');
    await isAccessible(page, 'a fact that is left out');
    await page.screenshot({ path: path.join(out, 'shuffle.png'), fullPage: true });
    await page.getByText('Put CANCELLED back').click();
    await shown(page, '.outcome.done', 'CANCELLED');
    ensure((await facts()).includes(first), 'a fact is lost');
    await context.close();
  },

  async 'the page tells what it costs, and asks less when it is refused'() {
    const { context, page } = await open('#/items');
    await isLive(page);
    await page.waitForFunction(() => /[1-9]/.test(document.getElementById('costs').textContent));
    const paces = await page.evaluate(async () => {
      const { SHARE, USUAL, pace } = await import('/desk/budget.js');
      const [calm, dear] = [SHARE / 2, SHARE * 2];
      const steps = [
        { share: calm, now: 0 },
        { share: dear, now: 1000 },
        { share: dear, now: 2000 },
        { share: dear, now: 11_000 },
        { share: calm, isShed: true, now: 12_000 },
        { share: calm, now: 21_000 },
        { share: calm, now: 22_000 },
        { share: calm, now: 32_000 },
        { share: calm, isShed: true, now: 33_000 },
      ];
      let state = USUAL;
      return steps.map((step) => (state = pace(state, step)).slowdown);
    });
    ensure(`${paces}` === '1,2,2,4,4,4,2,1,2', `paces ${paces}`);
    await page.route(/items\/reservations/, (route) => route.fulfill({ status: 429, headers: { 'Access-Control-Allow-Origin': '*' }, json: { title: 'Too many', status: 429, detail: 'later' } }));
    await go(page, '#/items?item_id=1000');
    await shown(page, '#slowed', '2 times');
    await isAccessible(page, 'slowed down');
    await page.screenshot({ path: path.join(out, 'slowed.png'), fullPage: true });
    await page.locator('#slowed').waitFor({ state: 'detached' });
    await context.close();
  },

  async 'an item is added, found and ordered'() {
    const { context, page } = await open('#/items');
    const form = page.locator('form', { has: page.locator('[name=price]') });
    await form.locator('[name=name]').fill('Kettle 1.7 l');
    await form.locator('[name=price]').fill('129900');
    await form.locator('[name=quantity]').fill('3');
    await form.locator('button').click();
    await page.click('.done a.id');
    await shown(page, 'h2', 'Kettle 1.7 l');
    const item = (await page.locator('h1').textContent()).match(/\d+/)[0];
    await go(page, '#/');
    await page.fill('[name=item_id]', item);
    await shown(page, 'form', 'Kettle 1.7 l');
    await place(page, { quantity: '2' });
    await shown(page, '.done .badge', 'SHIPPING');
    await go(page, `#/items?item_id=${item}`);
    await shown(page, 'tbody', 'RESERVED');
    await context.close();
  },

  async 'keys'() {
    const { context, page } = await open();
    await settled(page);
    await page.locator('h1').focus();
    await page.keyboard.press('/');
    ensure(await page.evaluate(() => document.activeElement.id === 'find'), '/ does not focus the search');
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    await page.keyboard.press('k');
    const [first, focused] = await page.evaluate(() => [document.querySelector('td.lead a').textContent, document.activeElement.textContent]);
    ensure(first === focused, `j, j, k leads to ${focused} and not to ${first}`);
    await page.keyboard.press('Enter');
    await shown(page, 'h1', focused);
    await page.keyboard.press('?');
    await page.locator('dialog[open]').waitFor();
    await isAccessible(page, 'the shortcuts');
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.locator('.connection.paused').waitFor();
    await page.keyboard.press('p');
    await isLive(page);
    await context.close();
  },

  async 'the tabs of a browser share one stream, and it outlives the tab that reads it'() {
    const { context, page } = await open();
    const streams = new Set();
    const isStream = (request) => request.url().includes('/api/v1/stream');
    context.on('request', (request) => isStream(request) && streams.add(request));
    for (const end of ['requestfinished', 'requestfailed']) context.on(end, (request) => streams.delete(request));
    await isLive(page);
    const isPolling = await page.locator('.connection.polling').count();
    const second = await tab(context);
    await isLive(second);
    await settled(second);
    ensure(isPolling || streams.size <= 1, `${streams.size} streams of two tabs`);
    await page.close();
    await place(second, { client_id: client });
    const id = await placedId(second);
    await shown(second, `tr:has(a[href="#/orders/${id}"]) .badge`, 'SHIPPING');
    await context.close();
  },

  async 'both languages have all words'() {
    const { context, page } = await open('#/', { locale: 'ru-RU' });
    await shown(page, 'nav', 'Застряли');
    const words = await page.evaluate(async () => Object.entries((await import('/desk/words.js')).WORDS));
    const places = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort().join();
    const wrong = words.filter(([, pair]) => pair.length !== 2 || !pair.every(Boolean) || places(pair[0]) !== places(pair[1]));
    ensure(!wrong.length, `words that differ: ${wrong.map(([key]) => key)}`);
    await page.click('header button:last-of-type');
    await shown(page, 'nav', 'Stuck');
    await page.reload();
    await shown(page, 'nav', 'Stuck');
    ensure((await page.getAttribute('html', 'lang')) === 'en', 'the document is not said to be in English');
    await context.close();
  },

  async 'without a playground nothing is said of one'() {
    const { context, page } = await open();
    await isLive(page);
    ensure(!(await page.locator('nav a[href="#/break"], nav a[href="#/proof"]').count()), 'the views are offered');
    await context.close();
  },

  async 'without scripts the page is text'() {
    const { context, page } = await open('', { javaScriptEnabled: false });
    await shown(page, 'pre', 'curl');
    await shown(page, 'a[href="/docs/"]', 'API');
    await context.close();
  },
};

// Every view in every form: what it looks like, what axe says, and whether it fits.

const FORMS = {
  light: {},
  dark: { colorScheme: 'dark' },
  phone: { viewport: { width: 360, height: 740 }, hasTouch: true },
  russian: { locale: 'ru-RU' },
  'russian-phone-dark': { locale: 'ru-RU', colorScheme: 'dark', viewport: { width: 360, height: 740 }, hasTouch: true },
};
const views = () => ({
  now: '#/',
  find: `#/find?client_id=${client}`,
  order: `#/orders/${order}`,
  'no-order': '#/orders/9223372036854775807',
  stuck: '#/stuck',
  letters: '#/letters?topic=reset',
  shards: '#/shards',
  items: '#/items',
  item: '#/items?item_id=1000',
});

/** Opens what opens by a button. */
async function unfold(page) {
  if (!(await page.locator('#ask-witnesses').count())) return;
  await page.click('#ask-witnesses');
  await page.locator('.verdict').waitFor();
  if (!(await page.locator('#shuffle-open').count())) return;
  await page.click('#shuffle-open');
  await page.locator('.outcome').waitFor();
}

async function looksRight(form, looked = views()) {
  const { context, page } = await open('#/', FORMS[form]);
  await isLive(page);
  for (const [view, hash] of Object.entries(looked)) {
    await go(page, hash);
    await settled(page);
    await unfold(page);
    await page.screenshot({ path: path.join(out, `${view}-${form}.png`), fullPage: true });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    ensure(over <= 0, `${view} is ${over} px too wide`);
    await isAccessible(page, view);
  }
  await context.close();
}
for (const form of Object.keys(FORMS)) checks[`every view, ${form}: axe finds nothing, nothing is too wide`] = () => looksRight(form);

async function passes([name, check]) {
  const before = complaints.length;
  try {
    await check();
    const told = complaints.slice(before);
    ensure(!told.length, `the browser complains:\n${told.join('\n')}`);
    console.log(`✓ ${name}`);
    return true;
  } catch (error) {
    console.error(`✗ ${name}\n  ${error.message.replaceAll('\n', '\n  ')}`);
    const open = browser.contexts().flatMap((context) => context.pages());
    await open.at(-1)?.screenshot({ path: path.join(out, 'failed.png') }).catch(() => {});
    await Promise.all(browser.contexts().map((context) => context.close()));
    return false;
  }
}

/** With STUCK, an order that the store does not answer, this is all that is looked at. */
const stuckCheck = {
  async 'what is stuck says whom it waits for, and until when'() {
    const { context, page } = await open('#/stuck');
    await shown(page, 'td.lead', process.env.STUCK);
    await page.screenshot({ path: path.join(out, 'stuck.png'), fullPage: true });
    await page.click(`td.lead a[href="#/orders/${process.env.STUCK}"]`);
    await page.locator('progress').waitFor();
    await page.screenshot({ path: path.join(out, 'waiting.png'), fullPage: true });
    await context.close();
  },
};

const rowOf = (page, name) => page.locator('tbody tr', { has: page.locator(`td.lead :text-is("${name}")`) });

/** With LETTER, where a record stands that cannot be read, and LETTER_READABLE, one that would now cancel
 * LETTER_ORDER, this is all that is looked at. */
const letterCheck = {
  async 'a dead letter says who refused it, and what a replay would do'() {
    const { LETTER, LETTER_READABLE, LETTER_ORDER } = process.env;
    const { context, page } = await open('#/letters');
    const row = (name) => rowOf(page, name);
    await row(LETTER).getByText('service-store').waitFor();
    await row(LETTER).getByRole('button', { name: 'dry run' }).click();
    await row(LETTER).getByText('still unreadable').waitFor();
    await row(LETTER_READABLE).getByRole('button', { name: 'dry run' }).click();
    await row(LETTER_READABLE).getByText('would be read', { exact: true }).waitFor();
    await row(LETTER_READABLE).getByText('becomes').waitFor();
    await row(LETTER_READABLE).getByText(`ordersaga dlq replay ${LETTER_READABLE}`).first().waitFor();
    ensure((await row(LETTER_READABLE).locator('.dry-run a.id').textContent()) === LETTER_ORDER, 'another order is named');
    await isAccessible(page, 'letters');
    await page.screenshot({ path: path.join(out, 'letters.png'), fullPage: true });
    await page.selectOption('[name=topic]', LETTER_READABLE.split('/')[0]);
    await page.fill('[name=key]', LETTER_ORDER);
    await page.click('main button.primary');
    await row(LETTER).waitFor({ state: 'detached' });
    ensure(page.url().includes(`key=${LETTER_ORDER}`), `the filter is not in the address: ${page.url()}`);
    await page.click('header button:last-of-type');
    await row(LETTER_READABLE).getByRole('button').first().click();
    await row(LETTER_READABLE).getByText('прочтётся').waitFor();
    await context.close();
    for (const form of Object.keys(FORMS)) {
      const { context, page } = await open('#/letters', FORMS[form]);
      await rowOf(page, LETTER).getByRole('button').first().click();
      await page.locator('.dry-run .badge').first().waitFor();
      await page.screenshot({ path: path.join(out, `letters-${form}.png`), fullPage: true });
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      ensure(over <= 0, `letters is ${over} px too wide`);
      await isAccessible(page, `letters, ${form}`);
      await context.close();
    }
  },
};

/** With PLAYGROUND, on a stack of `up --playground`, this is all that is looked at. */
const playgroundChecks = {
  async 'a service is killed, and the stack heals'() {
    const { context, page } = await open('#/break');
    await shown(page, 'td.lead', 'service-store');
    await page.click('#kill-service-store');
    await page.locator('#keep:focus').waitFor();
    await isAccessible(page, 'the question');
    await page.keyboard.press('Escape');
    await page.locator('#kill-service-store:focus').waitFor();
    await page.keyboard.press('Enter');
    await page.click('[role=alertdialog] .danger');
    await shown(page, '.done', /^Healed in .* 0 lost\.$/);
    await shown(page, '#said', 'Healed in');
    await page.screenshot({ path: path.join(out, 'healed.png'), fullPage: true });
    await context.close();
  },

  async 'a part is frozen and thawed'() {
    const { context, page } = await open('#/break');
    await shown(page, 'td.lead', 'shard2');
    await page.click('#freeze-shard2');
    await page.click('[role=alertdialog] .danger');
    await shown(page, '.badge', /^frozen, \d+ s left$/);
    await shown(page, '.warn', 'Broken.');
    await shown(page, 'td .badge', 'works');
    await page.screenshot({ path: path.join(out, 'frozen.png'), fullPage: true });
    await page.click('#thaw-shard2');
    await shown(page, '.done', /^Healed in .* 0 lost\.$/);
    await context.close();
  },

  async 'the invariants are checked'() {
    const { context, page } = await open('#/proof');
    await page.click('#check');
    await shown(page, '.done', /^No violation: \d+ hold/);
    await shown(page, 'tr:has(td.lead:text-is("I3")) .badge', 'holds');
    await shown(page, 'tr:has(td.lead:text-is("I11")) .badge', 'not checked');
    await context.close();
  },
};
for (const form of Object.keys(FORMS)) {
  const looked = { break: '#/break', proof: '#/proof' };
  playgroundChecks[`the playground, ${form}: axe finds nothing, nothing is too wide`] = () => looksRight(form, looked);
}

const { STUCK, LETTER, PLAYGROUND } = process.env;
const chosen = STUCK ? stuckCheck : LETTER ? letterCheck : PLAYGROUND ? playgroundChecks : checks;
let failed = 0;
for (const check of Object.entries(chosen)) if (!(await passes(check))) failed += 1;
await browser.close();
console.log(failed ? `${failed} checks failed; see ${out}` : `All checks passed; screenshots are in ${out}.`);
process.exit(failed ? 1 : 0);
