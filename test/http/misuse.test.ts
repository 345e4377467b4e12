// Handlers that misbehave, peers that are slow or do not read: each has an outcome that is known.

import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { HttpRequest, HttpResponse } from '../../src/http.js';
import { PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { HOST, nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();

const get = (path: string) => `GET ${path} HTTP/1.1\r\n${HOST}\r\n`;
const STEP_MS = 30;

const handlers: Record<string, (request: HttpRequest, response: HttpResponse) => unknown> = {
  '/fine': (_, response) => response.send('fine'),
  '/throws': () => {
    throw new Error('thrown');
  },
  '/throws null': () => {
    throw null;
  },
  '/prepared': (_, response) => {
    response.set('A', 'b').set('Content-Length', 3);
    response.status = 201;
    throw new Error('prepared');
  },
  '/rejects': async () => {
    await turn();
    throw new Error('rejected');
  },
  '/none': async () => turn(),
  '/twice': (_, response) => {
    response.send('once');
    response.send('twice');
  },
  '/answered, then throws': async (_, response) => {
    response.send('answered');
    await turn();
    throw new Error('after it');
  },
  '/begun': async (_, response) => {
    response.write('begun');
    await turn();
    throw new Error('in the middle');
  },
  '/too many': (_, response) => {
    response.set('Content-Length', 3).write('abcd');
  },
  '/too few': (_, response) => {
    response.set('Content-Length', 3).write('ab');
    response.end();
  },
  '/wrong length': (_, response) => response.set('Content-Length', 3).send('ab'),
};
const { port, errors } = rig.serve({
  request: (request, response) =>
    (handlers[decodeURIComponent(request.path)] ?? nothing)(request, response),
});

/** The statuses of a request and of one behind it, what was told, and whether more could come. */
const outcomes: Record<string, { statuses: number[]; told: string[] }> = {
  '/fine': { statuses: [200, 200], told: [] },
  '/throws': { statuses: [500], told: ['thrown'] },
  '/throws null': { statuses: [500], told: ['thrown: null'] },
  '/prepared': { statuses: [500], told: ['prepared'] },
  '/rejects': { statuses: [500], told: ['rejected'] },
  '/none': { statuses: [500], told: ['ERR_HTTP_NO_ANSWER'] },
  '/twice': { statuses: [200, 200], told: ['ERR_HTTP_ANSWERED'] },
  '/answered, then throws': { statuses: [200, 200], told: ['after it'] },
  '/begun': { statuses: [200], told: ['in the middle'] },
  '/too many': { statuses: [200], told: ['ERR_HTTP_LENGTH'] },
  '/too few': { statuses: [200], told: ['ERR_HTTP_LENGTH'] },
  '/wrong length': { statuses: [500], told: ['ERR_HTTP_LENGTH'] },
};

for (const [path, { statuses, told }] of Object.entries(outcomes)) {
  test(`a handler: ${path.slice(1)}`, async () => {
    errors.length = 0;
    const client = await rig.connect(port);
    client.send(get(encodeURIComponent(path).replace('%2F', '/')) + get('/fine'));
    if (statuses.length === 2) await client.until(() => client.text.endsWith('fine'), 'both');
    else await client.all();
    // What began is cut off: the head may have left or not.
    if (path.startsWith('/begun') || path.startsWith('/too'))
      assert.ok(statusesOf(client.text).length <= 1);
    else assert.equal(statusesOf(client.text), statuses);
    assert.not.match(client.text, /twice|A: b|0\r\n\r\n$/);
    while (errors.length < told.length) await turn();
    assert.equal(errors, told);
    client.socket.destroy();
  });
}

// ── time ──

test('a head that does not come, at once or byte by byte: 408', async () => {
  const { port: own, errors: told } = rig.serve({
    request: nothing,
    headersTimeout: STEP_MS,
    keepAliveTimeout: 0,
  });
  const [still, slow] = [await rig.connect(own), await rig.connect(own)];
  still.send('GET / HT');
  const text = get('/'.repeat(1_000));
  const drip = setInterval(() => slow.send(text[slow.socket.bytesWritten] ?? ''), 1);
  assert.equal(statusesOf(await still.all()), [408]);
  assert.equal(statusesOf(await slow.all()), [408]);
  clearInterval(drip);
  assert.equal(told, ['ERR_HTTP_REFUSED 408', 'ERR_HTTP_REFUSED 408']);
});

test('a body that does not come: 408, or the end if the answer has begun', async () => {
  const { port: own } = rig.serve({
    async request(request, response) {
      if (request.path === '/begun') response.write('begun');
      await request.bytes();
      response.send('all');
    },
    requestTimeout: STEP_MS,
  });
  const partial = (path: string) => `POST ${path} HTTP/1.1\r\n${HOST}Content-Length: 9\r\n\r\nabc`;
  assert.equal(statusesOf(await (await ask(own, partial('/'))).all()), [408]);
  const begun = await ask(own, partial('/begun'));
  assert.not.match(await begun.all(), /\r\n0\r\n\r\n$/);
});

async function ask(own: number, text: string) {
  const client = await rig.connect(own);
  client.send(text);
  return client;
}

test('an idle connection is closed without a word, before its first request and after one', async () => {
  const { port: own, errors: told } = rig.serve({
    request: (_, response) => response.send('x'),
    keepAliveTimeout: STEP_MS,
  });
  assert.is(await (await rig.connect(own)).all(), '');
  const client = await ask(own, get('/'));
  await client.answer();
  assert.is(await client.all(), '');
  assert.equal(told, []);
});

test('a handler that never answers: 503, and its signal says so', async () => {
  let signal: AbortSignal | undefined;
  const { port: own, errors: told } = rig.serve({
    request: (request) => {
      signal = request.signal;
    },
    answerTimeout: STEP_MS,
  });
  const client = await ask(own, get('/'));
  assert.equal(statusesOf(await client.all()), [503]);
  assert.is(signal?.reason.code, 'ERR_HTTP_NO_ANSWER');
  assert.equal(told, ['ERR_HTTP_NO_ANSWER']);
});

test('an answer that nobody takes is cut off after sendTimeout', async () => {
  const failed = new Promise<Error>((resolve) => {
    const { port: own } = rig.serve({
      request: (_, response) => response.pipe(endless()),
      sendTimeout: STEP_MS,
      error: resolve,
    });
    void ask(own, get('/')).then((client) => client.socket.pause());
  });
  assert.match((await within(PATIENCE_MS, failed, 'the end')).message, 'sendTimeout');
});

// ── a peer that does not read ──

let taken = 0;
async function* endless(): AsyncGenerator<Uint8Array> {
  const piece = Buffer.alloc(16 * 1024);
  try {
    for (;;) {
      taken++;
      yield piece;
    }
  } finally {
    taken = -1;
  }
}

test('a source is asked for no more than its peer takes, and told when it leaves', async () => {
  taken = 0;
  let response: HttpResponse | undefined;
  const { port: own } = rig.serve({
    request: (_, made) => {
      response = made;
      return made.pipe(endless());
    },
  });
  const client = await ask(own, get('/'));
  client.socket.pause();
  while (response === undefined) await turn();
  // The kernel's buffers are full when nothing is taken any more.
  let before = -1;
  while (before !== taken) {
    before = taken;
    for (let i = 0; i < 20; i++) await turn();
  }
  assert.ok(taken > 0 && taken * 16 * 1024 < 16 * 1024 * 1024, `${taken}`);
  client.socket.resetAndDestroy();
  while (taken !== -1) await turn();
  assert.is(response.aborted, true);
});

test('requests of a peer that reads no answers are not looked at', async () => {
  let handled = 0;
  const { port: own } = rig.serve({
    request: (_, response) => {
      handled++;
      response.send('x'.repeat(10_000));
    },
  });
  const client = await ask(own, get('/').repeat(5_000));
  client.socket.pause();
  let before = -1;
  while (before !== handled) {
    before = handled;
    for (let i = 0; i < 20; i++) await turn();
  }
  assert.ok(handled > 0 && handled < 4_000, `${handled}`);
  client.socket.resume();
  await client.until(() => handled === 5_000, 'all answers');
});

test('a handler that writes on regardless: ERR_HTTP_OUTPUT_FULL', async () => {
  const { port: own, errors: told } = rig.serve({
    request(_, response) {
      for (;;) response.write(Buffer.alloc(100_000));
    },
    outputMax: 1_000_000,
  });
  const client = await ask(own, get('/'));
  await client.all();
  assert.equal(told, ['ERR_HTTP_OUTPUT_FULL']);
});

test('drained() resolves when what was written has left', async () => {
  const { port: own } = rig.serve({
    async request(_, response) {
      for (let i = 0; i < 50; i++)
        if (!response.write('x'.repeat(50_000))) await response.drained();
      await response.drained();
      response.end();
    },
  });
  const client = await ask(own, get('/'));
  assert.is((await client.answer()).body.length, 2_500_000);
});

test('a source that fails cuts the answer off', async () => {
  const outcome = new Promise<NodeJS.ErrnoException>((resolve) => {
    const { port: own } = rig.serve({
      async request(_, response) {
        async function* failing() {
          yield 'first';
          throw new Error('the source');
        }
        resolve(await rejectionOf(response.pipe(failing())));
      },
    });
    void ask(own, get('/'));
  });
  assert.is((await within(PATIENCE_MS, outcome, 'the end')).message, 'the source');
});

test('answering outside of a handler, and after close()', async () => {
  let response: HttpResponse | undefined;
  const { port: own, server } = rig.serve({
    request: (request, made) => {
      response = made;
      void once(request.signal, 'abort');
    },
  });
  const client = await ask(own, get('/'));
  while (response === undefined) await turn();
  response.write('a');
  await client.until(() => client.text.includes('a'), 'a part');
  server.close();
  assert.is(response.aborted, true);
  response.end('b');
  await client.all();
  assert.is(server.connections, 0);
});

test.run();
