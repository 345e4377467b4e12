// A real browser: the page, its event stream and a WebSocket go on through a reload of the code.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Browser, Page } from 'playwright-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { portOf } from '../runtime/clients.js';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((path) =>
  existsSync(path),
);

/** Undefined, and why is said, where there is no browser. */
async function launch(): Promise<Browser | undefined> {
  if (CHROMIUM === undefined) {
    console.log('skipped: there is no chromium');
    return undefined;
  }
  let library: typeof import('playwright-core');
  try {
    library = createRequire(import.meta.url)('playwright-core');
  } catch {
    console.log('skipped: playwright-core is not installed');
    return undefined;
  }
  // In a container Chromium's own sandbox has no namespaces to be made of.
  const args = ['--no-sandbox', '--disable-dev-shm-usage'];
  return library.chromium.launch({ executablePath: CHROMIUM, args, timeout: 3 * PATIENCE_MS });
}

/** In the page: everything is in here, and needs no more than the page has. */
async function open(browser: Browser, url: string): Promise<{ page: Page; errors: string[] }> {
  const page = await browser.newPage({ colorScheme: 'dark' });
  page.setDefaultTimeout(2 * PATIENCE_MS);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:'))
      errors.push(`a request elsewhere: ${request.url()}`);
  });
  await page.goto(url);
  return { page, errors };
}

/** Until it is so in the page; from outside, since the page's own policy forbids to evaluate text. */
async function when(page: Page, condition: string): Promise<void> {
  const look = async () => {
    while (!(await page.evaluate(condition)))
      await page.evaluate('new Promise((resolve) => setTimeout(resolve, 10))');
  };
  await within(2 * PATIENCE_MS, look(), condition);
}

test('a page, a WebSocket and an event stream go on through a reload', async () => {
  const browser = await launch();
  if (browser === undefined) return;
  const worker = new URL('../../workers/http.js', import.meta.url);
  let group: LoopGroup | undefined;
  try {
    group = await serve({ worker, loops: 2, listen: { port: 0, host: '127.0.0.1' } });
    const { page, errors } = await open(browser, `http://127.0.0.1:${portOf(group)}/`);
    await page.waitForSelector('.loop:nth-child(2)');
    await when(page, "document.querySelector('#live.on')?.textContent.includes('gen 0')");
    // All 24 of its requests were answered.
    await when(page, "document.querySelectorAll('#ask li').length === 24");
    assert.match((await page.textContent('#count')) ?? '', /^loop 0: \d+, loop 1: \d+$/);

    await page.evaluate(`
      window.heard = [];
      window.closes = 0;
      window.ids = [];
      window.hellos = [];
      window.ws = new WebSocket(location.href.replace('http', 'ws') + 'echo');
      ws.onmessage = ({ data }) => heard.push(data);
      ws.onclose = () => closes++;
      window.source = new EventSource('/events');
      source.addEventListener('hello', ({ data }) => hellos.push(JSON.parse(data)));
      source.addEventListener('loops', ({ lastEventId }) => ids.push(Number(lastEventId)));
    `);
    await when(page, 'ws.readyState === 1 && ids.length >= 2');
    await page.evaluate("ws.send('before')");
    await when(page, 'heard.length === 1');

    const report = await group.reload();
    assert.equal([report.generation, report.drained, report.closed], [1, 0, 0]);

    // The same WebSocket, on a loop of the new code.
    await page.evaluate("ws.send('after')");
    await when(page, 'heard.length === 2');
    assert.equal(await page.evaluate('[heard, closes]'), [['before', 'after'], 0]);
    // The event stream came back by itself, and said what it had seen.
    await when(page, 'hellos.length === 2');
    const [first, second] = (await page.evaluate('hellos')) as Record<string, unknown>[];
    assert.equal([first.generation, first.after, second.generation], [0, '', 1]);
    const ids = (await page.evaluate('ids')) as number[];
    assert.ok(ids.includes(Number(second.after)));
    await when(page, `ids.length > ${ids.length}`);
    const later = (await page.evaluate('ids')) as number[];
    assert.equal(
      later,
      [...new Set(later)].sort((one, other) => one - other),
    );
    // And so did the page's own, in the same document.
    await when(page, "document.querySelector('#live.on')?.textContent.includes('gen 1')");
    await page.click('#ask button');
    await when(
      page,

      "!document.querySelector('#ask button').disabled && " +
        "document.querySelectorAll('#ask li').length === 24",
    );
    assert.equal(errors, []);
  } finally {
    await browser.close();
    await group?.close();
  }
});

test('the page fits a phone', async () => {
  const browser = await launch();
  if (browser === undefined) return;
  const worker = new URL('../../workers/http.js', import.meta.url);
  let group: LoopGroup | undefined;
  try {
    group = await serve({ worker, loops: 1, listen: { port: 0, host: '127.0.0.1' } });
    const { page } = await open(browser, `http://127.0.0.1:${portOf(group)}/`);
    await page.setViewportSize({ width: 360, height: 700 });
    await page.waitForSelector('.loop');
    const widest = await page.evaluate('document.documentElement.scrollWidth');
    assert.is(widest, 360);
  } finally {
    await browser.close();
    await group?.close();
  }
});

test.run();
