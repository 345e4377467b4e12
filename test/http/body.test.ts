// Bodies of requests: as streams and whole, as large and as slow as their senders and readers are.

import { once } from 'node:events';
import * as http from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import type { HttpRequest, HttpResponse } from '../../src/http.js';
import { PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { HOST, nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();

const post = (path: string, headers: string, body = '') =>
  `POST ${path} HTTP/1.1\r\n${HOST}${headers}\r\n${body}`;
const sized = (path: string, body: string) =>
  post(path, `Content-Length: ${body.length}\r\n`, body);
const CHUNKED = 'Transfer-Encoding: chunked\r\n';

let told: (value: unknown) => void = nothing;
const handlers: Record<string, (request: HttpRequest, response: HttpResponse) => unknown> = {
  '/bytes': async (request, response) => response.send(await request.bytes()),
  '/text': async (request, response) => response.send(await request.text()),
  '/json': async (request, response) => response.json(await request.json()),
  '/pieces': async (request, response) => {
    let count = 0;
    for await (const piece of request) count += piece.length;
    response.json([count, request.trailers]);
  },
  '/each': async (request, response) => {
    let text = '';
    await request.forEach((piece) => {
      text += Buffer.from(piece).toString('latin1');
    });
    response.json([text, request.trailers]);
  },
  '/each-count': async (request, response) => {
    let count = 0;
    await request.forEach((piece) => {
      count += piece.length;
    });
    response.json([count, request.trailers]);
  },
  '/each-throws': async (request, response) => {
    const why = await request
      .forEach(() => {
        throw new Error('enough');
      })
      .catch(({ message }) => message);
    response.send(`${why} ${(await rejectionOf(request.forEach(nothing))).code}`);
  },
  '/each-answers': (request, response) => {
    const seen = request.forEach(() => {
      if (!response.begun) response.send('at once');
    });
    told({ request, response, seen: seen.then(nothing, ({ code }) => code) });
  },
  '/twice': async (request, response) => {
    await request.bytes();
    response.send((await rejectionOf(request.text())).code);
  },
  '/unread': (_, response) => response.send('unread'),
  '/refused': (_, response) => {
    response.status = 403;
    response.send('no');
  },
  '/wait': (request, response) => {
    told({ request, response });
  },
};
const { port, errors } = rig.serve({
  request: (request, response) => (handlers[request.path] ?? nothing)(request, response),
});
test.before.each(() => {
  errors.length = 0;
});

const waiting = () =>
  new Promise<{ request: HttpRequest; response: HttpResponse; seen?: Promise<unknown> }>(
    (resolve) => {
      told = resolve as never;
    },
  );

test('as bytes, text, JSON and pieces, one after the other on one connection', async () => {
  const client = await rig.connect(port);
  const ask = async (text: string) => {
    client.send(text);
    return (await client.answer()).body;
  };
  assert.is(await ask(sized('/bytes', 'a\0b')), 'a\0b');
  assert.is(await ask(sized('/text', 'Ã©')), 'Ã©');
  assert.is(await ask(sized('/json', '{"a":[1]}')), '{"a":[1]}');
  assert.is(await ask(post('/bytes', '')), '');
  assert.is(
    await ask(post('/pieces', CHUNKED, '3\r\nabc\r\n2\r\nde\r\n0\r\nSum: 5\r\n\r\n')),
    '[5,{"sum":"5"}]',
  );
  assert.is(await ask(sized('/twice', 'abc')), 'ERR_HTTP_BODY_USED');
  assert.is(await ask(post('/twice', '')), 'ERR_HTTP_BODY_USED');
  assert.equal(errors, []);
});

test('forEach() shows what came and what comes, of any form, and leaves nothing', async () => {
  const client = await rig.connect(port);
  const ask = async (...parts: string[]) => {
    for (const [i, part] of parts.entries()) {
      // The next part is not read together with the one before.
      if (i > 0) for (let turns = 0; turns < 20; turns++) await turn();
      client.send(part);
    }
    return (await client.answer()).body;
  };
  assert.is(await ask(sized('/each', 'one piece')), '["one piece",{}]');
  const two = sized('/each', 'two pieces');
  assert.is(await ask(two.slice(0, -6), two.slice(-6)), '["two pieces",{}]');
  const chunked = post('/each', CHUNKED, '3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n');
  assert.is(await ask(chunked), '["abcde",{"x":"y"}]');
  for (let cut = chunked.indexOf('\r\n\r\n') + 1; cut < chunked.length; cut += 3)
    assert.is(await ask(chunked.slice(0, cut), chunked.slice(cut)), '["abcde",{"x":"y"}]');
  assert.is(await ask(post('/each', '')), '["",{}]');
  assert.is(await ask(sized('/each-throws', 'a body')), 'enough ERR_HTTP_BODY_USED');
  // What was not read of it is not taken for a request.
  assert.is(await ask(sized('/text', 'next')), 'next');
  assert.equal(errors, []);
});

test('an answer inside forEach() ends it, unless that was all', async () => {
  const client = await rig.connect(port);
  for (const [sent, code] of [
    ['all', undefined],
    ['a', 'ERR_HTTP_ABORTED'],
  ]) {
    const seen = waiting();
    client.send(post('/each-answers', 'Content-Length: 3\r\n', sent));
    assert.is((await client.answer()).body, 'at once');
    assert.is(await (await seen).seen, code);
  }
});

test('what is no body is refused inside forEach() too', async () => {
  const client = await rig.connect(port);
  client.send(post('/each', CHUNKED, '3\r\nabcdef'));
  assert.is((await client.answer()).status, 400);
  assert.ok(errors.length > 0);
});

test('what is no JSON is a failure of its handler', async () => {
  const client = await rig.connect(port);
  client.send(sized('/json', '{'));
  assert.is((await client.answer()).status, 500);
  assert.equal(errors.length, 1);
  client.send(sized('/json', '1'));
  assert.is((await client.all().catch(String)).includes('"1"'), false);
});

test('one megabyte, in chunks and sized, from Node’s client', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const body = Buffer.alloc(1_000_000, 'abcdefghij');
  for (const headers of [{}, { 'Content-Length': body.length }]) {
    const request = http.request({ port, method: 'POST', path: '/bytes', agent, headers });
    for (let at = 0; at < body.length; at += 77_777) request.write(body.subarray(at, at + 77_777));
    request.end();
    const [response] = await within(PATIENCE_MS, once(request, 'response'), 'an answer');
    const pieces: Buffer[] = [];
    for await (const piece of response) pieces.push(piece);
    assert.ok(Buffer.concat(pieces).equals(body));
    const counting = http.request({ port, method: 'POST', path: '/each-count', agent, headers });
    for (let at = 0; at < body.length; at += 77_777) counting.write(body.subarray(at, at + 77_777));
    counting.end();
    const [counted] = await within(PATIENCE_MS, once(counting, 'response'), 'an answer');
    assert.is((await counted.toArray()).join(''), '[1000000,{}]');
  }
  agent.destroy();
});

test('a body that nobody reads stays with its sender', async () => {
  const handled = waiting();
  const client = await rig.connect(port);
  const size = 64 * 1024 * 1024;
  const half = 'x'.repeat(8 * 1024 * 1024);
  const { port: own, server } = rig.serve({
    request: handlers['/wait'],
    bodyMax: size,
  });
  client.socket.destroy();
  const sender = await rig.connect(own);
  sender.send(post('/wait', `Content-Length: ${2 * half.length}\r\n`, half));
  const { request, response } = await handled;
  // It goes on to come until as much is here as may wait.
  while (request.stream.inputLength < 64 * 1024) await turn();
  for (let i = 0; i < 50; i++) await turn();
  assert.ok(request.stream.inputLength <= 2 * 64 * 1024, `${request.stream.inputLength}`);
  assert.ok(sender.socket.writableLength > 1024 * 1024);
  sender.send(half);
  assert.is((await request.bytes()).length, 2 * half.length);
  response.send('all');
  assert.is((await sender.answer()).body, 'all');
  assert.is(server.connections, 1);
});

test('100-continue: sent when the body is read, and not otherwise', async () => {
  const headers = 'Content-Length: 3\r\nExpect: 100-continue\r\n';
  const client = await rig.connect(port);
  client.send(post('/bytes', headers));
  await client.until(() => client.text === 'HTTP/1.1 100 Continue\r\n\r\n', '100');
  client.text = '';
  client.send('abc');
  assert.is((await client.answer()).body, 'abc');
  // Somebody who does not wait needs no leave.
  client.send(post('/bytes', headers, 'abc'));
  assert.is((await client.answer()).status, 200);
  client.send(post('/refused', headers));
  assert.equal(statusesOf(await client.all()), [403]);
});

test('what was not read is passed over if it is short, and ends the connection if it is long', async () => {
  const client = await rig.connect(port);
  client.send(sized('/unread', 'x'.repeat(1_000)) + sized('/text', 'next'));
  assert.is((await client.answer()).body, 'unread');
  assert.is((await client.answer()).body, 'next');
  client.send(post('/unread', CHUNKED, '3\r\nabc\r\n'));
  assert.is((await client.answer()).body, 'unread');
  client.send(`2\r\nde\r\n0\r\n\r\n${sized('/text', 'next')}`);
  assert.is((await client.answer()).body, 'next');
  client.send(post('/unread', 'Content-Length: 1000000\r\n', 'abc'));
  assert.match(await client.all(), /Connection: close\r\n\r\nunread$/);
  const endless = await rig.connect(port);
  endless.send(post('/unread', CHUNKED));
  await endless.answer();
  endless.send(`80000\r\n${'x'.repeat(0x80000)}\r\n`.repeat(2));
  assert.is(await endless.all(), '');
});

test('a body that ends early', async () => {
  const handled = waiting();
  const client = await rig.connect(port);
  client.send(post('/wait', 'Content-Length: 5\r\n', 'abc'));
  const { request, response } = await handled;
  assert.is(String(await request.read()), 'abc');
  const rest = rejectionOf(request.read());
  assert.is((await rejectionOf(request.read())).code, 'ERR_HTTP_BODY_USED', 'one at a time');
  client.socket.end();
  assert.is((await within(PATIENCE_MS, rest, 'the failure')).code, 'ERR_HTTP_ABORTED');
  assert.is(request.signal.aborted, true);
  response.status = 400;
  response.send('short');
  assert.match(await client.all(), /^HTTP\/1\.1 400 .*Connection: close\r\n\r\nshort$/s);
});

test('a body that is whole is read also when its sender has half-closed', async () => {
  const handled = waiting();
  const client = await rig.connect(port);
  client.send(sized('/wait', 'x'.repeat(1_000)));
  client.socket.end();
  const { request, response } = await handled;
  if (!request.signal.aborted) await once(request.signal, 'abort');
  response.send(await request.bytes());
  assert.match(await client.all(), /\r\n\r\nx{1000}$/);
});

test('a body that is none once it is read: refused, or cut off if the answer has begun', async () => {
  const bad = post('/wait', CHUNKED, '3\r\nabc\r\nx');
  const first = waiting();
  const one = await rig.connect(port);
  one.send(bad);
  const { request } = await first;
  assert.is((await rejectionOf(request.bytes())).code, 'ERR_HTTP_REFUSED');
  assert.equal(statusesOf(await one.all()), [400]);
  const second = waiting();
  const two = await rig.connect(port);
  two.send(bad);
  const begun = await second;
  begun.response.write('begun');
  assert.is((await rejectionOf(begun.request.bytes())).code, 'ERR_HTTP_REFUSED');
  assert.is(begun.response.aborted, true);
  assert.not.match(await two.all(), /\r\n0\r\n\r\n$/);
  assert.equal(errors, ['ERR_HTTP_REFUSED 400', 'ERR_HTTP_REFUSED 400']);
});

test('a body that grows past its limit: 413', async () => {
  const { port: own } = rig.serve({
    request: async (request, response) => response.send(await request.bytes()),
    bodyMax: 10,
  });
  assert.equal(statusesOf(await rig.ask(own, sized('/', 'x'.repeat(10)))), [200]);
  assert.equal(statusesOf(await rig.ask(own, sized('/', 'x'.repeat(11)))), [413]);
  const chunked = (body: string) => post('/', CHUNKED, `${body}0\r\n\r\n`);
  assert.equal(statusesOf(await rig.ask(own, chunked('a\r\n0123456789\r\n'))), [200]);
  assert.equal(statusesOf(await rig.ask(own, chunked('6\r\n012345\r\n5\r\n01234\r\n'))), [413]);
});

test.run();
