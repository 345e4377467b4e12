// Duplexes in threads of their own, which come and go; the main thread asks them over http.

import { once } from 'node:events';
import http from 'node:http';
import { Worker } from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { nameOf, type Setting, settings } from '../event/setting.js';
import { PATIENCE_MS, within } from '../event/support.js';

const file = new URL('./duplex_worker.js', import.meta.url);

async function start(setting: Setting): Promise<{ worker: Worker; port: number }> {
  const worker = new Worker(file, { workerData: setting });
  const [port] = await once(worker, 'message');
  return { worker, port };
}

async function ask(port: number, path: string, body: string): Promise<http.IncomingMessage> {
  const request = http.request({ port, host: '127.0.0.1', path, method: 'POST', agent: false });
  request.end(body);
  return (await once(request, 'response'))[0];
}

async function textOf(response: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}

for (const setting of settings)
  test(`${nameOf(setting)}: http in two threads, of which each ends with its last connection`, async () => {
    const body = async () => {
      const threads = await Promise.all([start(setting), start(setting)]);
      for (const { worker, port } of threads) {
        const all = Array.from({ length: 8 }, async (_, i) =>
          textOf(await ask(port, '/', 'x'.repeat(i * 100_000))),
        );
        for (const [i, text] of (await Promise.all(all)).entries())
          assert.is(text, `thread ${worker.threadId} got ${i * 100_000}`);
      }
      const exits = threads.map(({ worker }) => once(worker, 'exit'));
      for (const { worker } of threads) worker.postMessage('end');
      for (const exit of exits) assert.is((await exit)[0], 0);
    };
    await within(PATIENCE_MS, body());
  });

for (const setting of settings)
  test(`${nameOf(setting)}: a thread is terminated in the middle of an answer`, async () => {
    const body = async () => {
      const { worker, port } = await start(setting);
      const response = await ask(port, '/hang', 'x');
      const over = once(response, 'close');
      response.on('error', () => undefined).resume();
      await worker.terminate();
      // Descriptors that are in no ledger go with the process, and so the client is not told.
      response.destroy();
      await over;
    };
    await within(PATIENCE_MS, body());
  });

test.run();
