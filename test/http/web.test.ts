// Handlers in the web's form, and frameworks that are made for it.

import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import {
  createApp,
  createError,
  createRouter,
  defineEventHandler,
  getQuery,
  getRouterParam,
  readRawBody,
  setResponseHeader,
  toWebHandler,
  toWebRequest,
} from 'h3';
import { Hono } from 'hono';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { FetchHandler } from '../../src/http.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { HOST, nothing, useRig } from './rig.js';

const rig = useRig();

const serve = (fetchHandler: FetchHandler) => {
  const served = rig.serve({ fetch: fetchHandler });
  return { ...served, url: `http://127.0.0.1:${served.port}` };
};

test('a Request is what the web says it is', async () => {
  const seen: unknown[] = [];
  const { url } = serve(async (request, info) => {
    const { method, headers, bodyUsed } = request;
    seen.push(request instanceof Request, method, request.url, headers.get('A'), bodyUsed);
    seen.push(info.request.path, await request.text(), request.bodyUsed, request.redirect);
    return new Response(null, { status: 204 });
  });
  const answer = await fetch(`${url}/a?b=c`, { method: 'POST', headers: { a: 'b' }, body: 'text' });
  assert.is(answer.status, 204);
  assert.equal(seen, [true, 'POST', `${url}/a?b=c`, 'b', false, '/a', 'text', true, 'follow']);
});

test('every way to read a body', async () => {
  const ways: Record<string, (request: Request) => Promise<unknown>> = {
    '/text': (request) => request.text(),
    '/json': (request) => request.json(),
    '/buffer': async (request) => Buffer.from(await request.arrayBuffer()).toString(),
    '/blob': async (request) => (await request.blob()).text(),
    '/form': async (request) => (await request.formData()).get('a'),
    '/clone': async (request) => [await request.clone().text(), await request.text()],
    '/copy': (request) => new Request(request).text(),
    '/body': async (request) => {
      let text = '';
      for await (const piece of request.body as unknown as AsyncIterable<Uint8Array>)
        text += Buffer.from(piece);
      return text;
    },
    '/twice': async (request) => {
      await request.text();
      return request.text().catch((error: Error) => error.name);
    },
  };
  const { url } = serve(async (request) =>
    Response.json(await ways[new URL(request.url).pathname](request)),
  );
  const ask = async (path: string, body: string, type = 'text/plain') => {
    const headers = { 'Content-Type': type };
    return (await fetch(url + path, { method: 'POST', body, headers })).json();
  };
  for (const path of ['/text', '/buffer', '/blob', '/body'])
    assert.is(await ask(path, 'grüß'), 'grüß', path);
  if (process.version.startsWith('v20.')) assert.is(await ask('/copy', 'copy'), 'copy');
  assert.equal(await ask('/json', '{"a":1}'), { a: 1 });
  assert.is(await ask('/form', 'a=b+c', 'application/x-www-form-urlencoded'), 'b c');
  assert.equal(await ask('/clone', 'x'), ['x', 'x']);
  assert.is(await ask('/twice', 'x'), 'TypeError');
});

test('every kind of Response', async () => {
  const kinds: Record<string, () => Response | Promise<Response>> = {
    '/text': () => new Response('grüß', { status: 201, headers: { A: 'b' } }),
    '/bytes': () => new Response(new Uint8Array([1, 2])),
    '/none': () => new Response(),
    '/blob': () => new Response(new Blob(['blob'])),
    '/json': () => Response.json([1]),
    '/cookies': () => {
      const headers = new Headers([
        ['Set-Cookie', 'a=b'],
        ['Set-Cookie', 'c=d'],
        ['Transfer-Encoding', 'gzip'],
        ['Keep-Alive', 'timeout=5'],
      ]);
      return new Response('x', { headers });
    },
    '/redirect': () => Response.redirect('http://a/b', 302),
    '/fetched': () => fetch(`${url}/text`),
    '/stream': () =>
      new Response(
        new ReadableStream({
          async start(controller) {
            for (const text of ['one', 'two']) {
              controller.enqueue(Buffer.from(text));
              await turn();
            }
            controller.close();
          },
        }),
      ),
  };
  const { url, errors } = serve((request) => kinds[new URL(request.url).pathname]());
  const ask = async (path: string) => {
    const answer = await fetch(url + path, { redirect: 'manual' });
    return { answer, text: await answer.text() };
  };
  const text = await ask('/text');
  assert.equal([text.answer.status, text.answer.headers.get('a'), text.text], [201, 'b', 'grüß']);
  assert.is(text.answer.headers.get('content-type'), 'text/plain;charset=UTF-8');
  assert.is((await ask('/bytes')).text, '\x01\x02');
  assert.is((await ask('/none')).text, '');
  assert.is((await ask('/blob')).text, 'blob');
  assert.is((await ask('/json')).text, '[1]');
  assert.equal((await ask('/cookies')).answer.headers.getSetCookie(), ['a=b', 'c=d']);
  assert.is((await ask('/redirect')).answer.headers.get('location'), 'http://a/b');
  assert.is((await ask('/fetched')).text, 'grüß');
  assert.is((await ask('/stream')).text, 'onetwo');
  const head = await fetch(`${url}/stream`, { method: 'HEAD' });
  assert.equal([head.status, await head.text()], [200, '']);
  assert.equal(errors, []);
});

test('a stream is cancelled, and the signal aborted, when the peer leaves', async () => {
  let cancelled: (reason: unknown) => void = nothing;
  const end = new Promise((resolve) => {
    cancelled = resolve;
  });
  let signal: AbortSignal | undefined;
  const { port } = serve((request) => {
    signal = request.signal;
    return new Response(
      new ReadableStream({ pull: () => new Promise(nothing), cancel: cancelled }),
    );
  });
  const client = await rig.connect(port);
  client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
  await client.until(() => client.text.includes('\r\n\r\n'), 'the head');
  client.socket.resetAndDestroy();
  await within(PATIENCE_MS, end, 'the cancellation');
  if (!signal?.aborted) await within(PATIENCE_MS, once(signal as AbortSignal, 'abort'), 'it');
});

test('what is no Response, and what throws, is answered 500', async () => {
  const { url, errors } = serve(((request: Request) => {
    if (request.url.endsWith('/throws')) throw new Error('thrown');
    return request.url.endsWith('/text') ? 'text' : Promise.resolve({});
  }) as unknown as FetchHandler);
  for (const path of ['/text', '/throws', '/object'])
    assert.is((await fetch(url + path)).status, 500, path);
  assert.is(errors.length, 3);
});

test('a Hono app runs as it is', async () => {
  const app = new Hono();
  app.use('*', async (c, next) => {
    await next();
    c.header('X-By', 'middleware');
  });
  app.get('/', (c) => c.text('Hello'));
  app.get('/user/:id', (c) => c.json({ id: c.req.param('id'), q: c.req.query('q') }));
  app.post('/echo', async (c) => c.body(await c.req.text()));
  app.post('/form', async (c) => c.json(await c.req.parseBody()));
  app.get('/fail', () => {
    throw new Error('of a route');
  });
  app.onError((error, c) => c.text(error.message, 500));
  const sub = new Hono().get('/hi', (c) => c.text('mounted'));
  app.route('/sub', sub);
  app.mount('/fetch', (request: Request) => new Response(new URL(request.url).pathname));
  const { url, errors } = serve(app.fetch as FetchHandler);
  const hello = await fetch(url);
  assert.equal([await hello.text(), hello.headers.get('x-by')], ['Hello', 'middleware']);
  assert.equal(await (await fetch(`${url}/user/7?q=x`)).json(), { id: '7', q: 'x' });
  const body = 'x'.repeat(200_000);
  assert.is(await (await fetch(`${url}/echo`, { method: 'POST', body })).text(), body);
  const form = new FormData();
  form.set('a', 'b');
  assert.equal(await (await fetch(`${url}/form`, { method: 'POST', body: form })).json(), {
    a: 'b',
  });
  const failed = await fetch(`${url}/fail`);
  assert.equal([failed.status, await failed.text()], [500, 'of a route']);
  assert.is((await fetch(`${url}/none`)).status, 404);
  assert.is(await (await fetch(`${url}/sub/hi`)).text(), 'mounted');
  assert.is(await (await fetch(`${url}/fetch/x`)).text(), '/x');
  assert.equal(errors, []);
});

test('an h3 app runs as it is, with streaming bodies', async () => {
  const app = createApp();
  const router = createRouter()
    .get(
      '/user/:id',
      defineEventHandler((event) => ({ id: getRouterParam(event, 'id'), q: getQuery(event).q })),
    )
    .post(
      '/echo',
      defineEventHandler(async (event) => `${await readRawBody(event)}`),
    )
    .post(
      '/through',
      defineEventHandler((event) => toWebRequest(event).body),
    )
    .get(
      '/stream',
      defineEventHandler(() => {
        let count = 0;
        return new ReadableStream({
          async pull(controller) {
            await turn();
            if (++count > 3) controller.close();
            else controller.enqueue(Buffer.from(`part ${count};`));
          },
        });
      }),
    )
    .get(
      '/fail',
      defineEventHandler(() => {
        throw createError({ statusCode: 418, statusMessage: 'of a route' });
      }),
    );
  app.use(
    defineEventHandler((event) => {
      setResponseHeader(event, 'X-By', 'middleware');
    }),
  );
  app.use(router);
  const handler = toWebHandler(app);
  const { url, errors } = serve((request) => handler(request));
  const user = await fetch(`${url}/user/7?q=x`);
  assert.equal([await user.json(), user.headers.get('x-by')], [{ id: '7', q: 'x' }, 'middleware']);
  const body = 'x'.repeat(200_000);
  assert.is(await (await fetch(`${url}/echo`, { method: 'POST', body })).text(), body);
  const through = new ReadableStream({
    async start(controller) {
      for (const text of ['one', 'two']) {
        controller.enqueue(Buffer.from(text));
        await turn();
      }
      controller.close();
    },
  });
  const init = { method: 'POST', body: through, duplex: 'half' } as RequestInit;
  assert.is(await (await fetch(`${url}/through`, init)).text(), 'onetwo');
  assert.is(await (await fetch(`${url}/stream`)).text(), 'part 1;part 2;part 3;');
  assert.is((await fetch(`${url}/fail`)).status, 418);
  assert.is((await fetch(`${url}/none`)).status, 404);
  assert.equal(errors, []);
});

test.run();
