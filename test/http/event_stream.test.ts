// Event streams: what is sent, how they end, and clients that leave or do not read.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type EventStream, type EventStreamOptions, eventStream } from '../../src/http.js';
import { codeOf } from '../event/support.js';
import { until } from '../runtime/clients.js';
import { dechunked, HOST, useRig } from './rig.js';

const rig = useRig();
const get = (headers = '', method = 'GET') => `${method} / HTTP/1.1\r\n${HOST}${headers}\r\n`;

/** A server whose streams are here, in their order. */
function serve(options: EventStreamOptions = {}) {
  const streams: EventStream[] = [];
  let closed = 0;
  const served = rig.serve({
    request(request, response) {
      const close = () => closed++;
      streams.push(eventStream(request, response, { heartbeatMs: 0, ...options, close }));
    },
  });
  return { ...served, streams, closed: () => closed };
}
async function opened(served: ReturnType<typeof serve>, headers = '') {
  const client = await rig.connect(served.port);
  const count = served.streams.length;
  client.send(get(headers));
  await until(() => served.streams.length > count, 'the stream');
  await client.until(() => client.text.includes('retry: '), 'its beginning');
  return { client, stream: served.streams[count] };
}

test('events as the standard writes them, and the end', async () => {
  const served = serve({ retryMs: 70 });
  const { client, stream } = await opened(served, 'Last-Event-ID: a b\r\n');
  assert.is(stream.lastEventId, 'a b');
  assert.is(stream.send({ data: 'one' }), true);
  stream.send({ data: 'two\nlines\r\nand\rthree', event: 'news', id: '7' });
  stream.send({ data: { json: [1, '\n'] }, id: '' });
  stream.send({ data: '' });
  assert.is(
    codeOf(() => stream.send({ data: 'x', id: 'a\nb' })),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(
    codeOf(() => stream.send({ data: 'x', event: 'a\rb' })),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(
    codeOf(() => stream.send({ data: undefined })),
    'ERR_INVALID_ARG_VALUE',
  );
  stream.close();
  stream.close();
  assert.is(stream.send({ data: 'late' }), false);
  const { head, headers, body } = await client.answer();
  assert.is(headers['content-type'], 'text/event-stream');
  assert.is(headers['cache-control'], 'no-store');
  assert.match(head, /^HTTP\/1\.1 200 /);
  assert.is(
    body,
    'retry: 70\n\n' +
      'data: one\n\n' +
      'event: news\nid: 7\ndata: two\ndata: lines\ndata: and\ndata: three\n\n' +
      'id: \ndata: {"json":[1,"\\n"]}\n\n' +
      'data: \n\n',
  );
  assert.equal([served.closed(), served.completed.length], [1, 1]);
  // The connection goes on.
  client.send(get('Connection: close\r\n'));
  await until(() => served.streams.length === 2, 'another one');
  served.streams[1].close();
  await client.all();
  assert.equal(served.errors, []);
});

test('a comment is sent where there is nothing else to send', async () => {
  const served = serve({ heartbeatMs: 5 });
  const { client, stream } = await opened(served);
  await client.until(() => client.text.includes(':\n\n\r\n3\r\n:\n\n'), 'two of them');
  stream.close();
  const { body } = await client.answer();
  assert.match(body, /^retry: 2000\n\n(:\n\n)+$/);
});

test('HEAD and HTTP/1.0', async () => {
  const served = serve();
  const client = await rig.connect(served.port);
  client.send(get('', 'HEAD'));
  const { status, headers } = await client.answer(true);
  assert.equal([status, headers['content-type']], [200, 'text/event-stream']);
  assert.equal([served.streams[0].closed, served.closed()], [true, 1]);
  const old = await rig.connect(served.port);
  old.send('GET / HTTP/1.0\r\n\r\n');
  await until(() => served.streams.length === 2, 'the stream');
  served.streams[1].send({ data: 'x' });
  served.streams[1].close();
  assert.match(await old.all(), /\r\n\r\nretry: 2000\n\ndata: x\n\n$/);
  client.socket.destroy();
});

test('a client that leaves ends its stream, however it leaves', async () => {
  const served = serve();
  const ways = ['end', 'destroy', 'resetAndDestroy'] as const;
  for (const [i, way] of ways.entries()) {
    const { client, stream } = await opened(served);
    client.socket[way]();
    await until(() => stream.closed && served.server.connections === 0, 'the end');
    assert.is(served.closed(), i + 1);
  }
  assert.is(served.completed.length, 3);
});

test('a client that does not read is cut off, and costs no more than was said', async () => {
  const served = serve({ outputMax: 200_000 });
  const { client, stream } = await opened(served);
  client.socket.pause();
  const data = 'x'.repeat(10_000);
  let sent = 0;
  let full = 0;
  for (; !stream.closed && sent < 10_000; sent++) {
    if (!stream.send({ data })) full++;
    if (sent % 100 === 99) await new Promise(setImmediate);
  }
  assert.ok(stream.closed && full > 1);
  assert.equal([served.closed(), served.server.connections], [1, 0]);
  assert.equal(served.errors, ['ERR_HTTP_ABORTED']);
  client.socket.destroy();
});

test('a server that drains ends its streams', async () => {
  const served = serve();
  const { client, stream } = await opened(served);
  stream.send({ data: 'last' });
  const drained = served.server.drain();
  const body = dechunked((await client.all()).split('\r\n\r\n').slice(1).join('\r\n\r\n'))?.body;
  assert.is(body, 'retry: 2000\n\ndata: last\n\n');
  client.socket.end();
  await drained;
  assert.is(served.closed(), 1);
});

test('what a listener of the signal still sends when its peer is gone has no effect', async () => {
  let completed: unknown;
  const { port } = rig.serve({
    request(request, response) {
      response.write('x');
      request.signal.addEventListener('abort', () => response.end('y'));
    },
    complete(_, response) {
      completed = response;
    },
  });
  const client = await rig.connect(port);
  client.send(get());
  await client.until(() => client.text.endsWith('1\r\nx\r\n'), 'the beginning');
  client.socket.resetAndDestroy();
  await until(() => completed !== undefined, 'the end');
  assert.is((completed as { aborted: boolean }).aborted, true);
});

test('wrong options', async () => {
  const codes: string[] = [];
  const { port } = rig.serve({
    request(request, response) {
      for (const options of [
        null,
        { heartbeatMs: -1 },
        { retryMs: 0.5 },
        { outputMax: 0 },
        { close: 1 },
      ])
        codes.push(
          String(codeOf(() => eventStream(request, response, options as EventStreamOptions))),
        );
      response.send();
    },
  });
  const client = await rig.connect(port);
  client.send(get());
  assert.is((await client.answer()).status, 200);
  assert.equal(codes, [
    'ERR_INVALID_ARG_TYPE',
    'ERR_OUT_OF_RANGE',
    'ERR_OUT_OF_RANGE',
    'ERR_OUT_OF_RANGE',
    'ERR_INVALID_ARG_TYPE',
  ]);
  client.socket.destroy();
});

test.run();
