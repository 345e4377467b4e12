// WebSockets on a base: against the `ws` package on either side, against each other, and against
// bytes that are no WebSocket's.

import { once } from 'node:events';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { WebSocket as Peer, WebSocketServer } from 'ws';
import {
  connectWebSocket,
  type HttpOptions,
  isWebSocketRequest,
  upgradeWebSocket,
  type WebSocket,
  type WebSocketClientOptions,
  type WebSocketOptions,
} from '../../src/http.js';
import { BufferEvent, Listener } from '../../src/index.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { until } from '../runtime/clients.js';
import { ca, pair } from '../tls/pems.js';
import { type Client, canBegin, nothing, useRig } from './rig.js';

const rig = useRig();
const request = () => nothing();

/** What the handlers of one side were told. */
class Log implements WebSocketOptions {
  readonly told: string[] = [];
  readonly sockets: WebSocket[] = [];
  open(ws: WebSocket): void {
    this.sockets.push(ws);
    this.told.push(`open ${ws.subprotocol}`.trim());
  }
  message(_ws: WebSocket, data: string | Uint8Array, binary: boolean): unknown {
    assert.is(binary, typeof data !== 'string');
    const text = typeof data === 'string' ? data : Buffer.from(data).toString('latin1');
    this.told.push(`${binary ? 'binary' : 'text'} ${text.length > 99 ? text.length : text}`);
    return undefined;
  }
  ping(_ws: WebSocket, data: Uint8Array): void {
    this.told.push(`ping ${Buffer.from(data)}`.trim());
  }
  pong(_ws: WebSocket, data: Uint8Array): void {
    this.told.push(`pong ${Buffer.from(data)}`.trim());
  }
  close(_ws: WebSocket, code: number, reason: string): void {
    this.told.push(`close ${code} ${reason}`.trim());
  }
  error(_ws: WebSocket, error: Error): void {
    this.told.push(`error ${(error as { code?: string }).code ?? error.message}`);
  }
  async until(what: string): Promise<void> {
    await until(() => this.told.some((one) => one.startsWith(what)), `${what} of ${this.told}`);
  }
}
class Echo extends Log {
  override message(ws: WebSocket, data: string | Uint8Array, binary: boolean): unknown {
    super.message(ws, data, binary);
    ws.send(data);
    return undefined;
  }
}

const serve = (websocket: WebSocketOptions, more: Partial<HttpOptions> = {}) =>
  rig.serve({ request, websocket, ...more });

/** A `ws` client, and what it is told. */
async function peer(port: number, protocols: string[] = [], options = {}) {
  const socket = new Peer(`ws://127.0.0.1:${port}/`, protocols, options);
  const told: string[] = [];
  const sent: Buffer[] = [];
  socket.on('message', (data: Buffer, binary) => {
    sent.push(data);
    told.push(`${binary ? 'binary' : 'text'} ${data.length > 99 ? data.length : data}`);
  });
  socket.on('ping', (data) => told.push(`ping ${data}`.trim()));
  socket.on('pong', (data) => told.push(`pong ${data}`.trim()));
  socket.on('close', (code, reason) => told.push(`close ${code} ${reason}`.trim()));
  socket.on('error', (error) => told.push(`error ${error.message}`));
  await within(PATIENCE_MS, once(socket, 'open'), 'open');
  const untilTold = (what: string, times = 1) =>
    until(
      () => told.filter((one) => one.startsWith(what)).length >= times,
      `${what} of the peer, told ${told}`,
    );
  return { socket, told, sent, until: untilTold };
}

const HANDSHAKE =
  'GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n';

/** The bytes of a frame as a client sends it, as Latin-1. */
function frame(first: number, payload: string | Buffer = '', mask = 0x04_03_02_01): string {
  const bytes = Buffer.from(payload);
  const { length } = bytes;
  const head = Buffer.alloc(length > 65_535 ? 14 : length > 125 ? 8 : 6);
  head[0] = first;
  head[1] = 128 | (length > 65_535 ? 127 : Math.min(length, 126));
  if (head.length === 8) head.writeUInt16BE(length, 2);
  if (head.length === 14) head.writeUInt32BE(length, 6);
  head.writeInt32LE(mask, head.length - 4);
  const masked = bytes.map((byte, at) => byte ^ (mask >>> (8 * (at & 3))));
  return Buffer.concat([head, masked]).toString('latin1');
}
const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex').toString('latin1');
async function raw(port: number, more = ''): Promise<Client> {
  const client = await rig.connect(port);
  client.send(`${HANDSHAKE}\r\n${more}`);
  const { status, headers } = await client.answer(true);
  assert.is(status, 101);
  assert.is(headers['sec-websocket-accept'], 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
  return client;
}

test('the ws package as a client: messages of every size, pings, the closing handshake', async () => {
  const log = new Echo();
  const { port } = serve({ ...bound(log), protocols: ['b', 'c'] });
  const client = await peer(port, ['a', 'c', 'b']);
  assert.is(client.socket.protocol, 'c');
  const sizes = [0, 1, 125, 126, 4_000, 4_096, 65_535, 65_536, 300_000, 1_048_576];
  for (const size of sizes) {
    client.socket.send('é'.repeat(size >> 1).padEnd(size >> 1, 'x'));
    client.socket.send(Buffer.alloc(size, size));
  }
  await until(() => client.sent.length === 2 * sizes.length, 'the echoes');
  for (const [at, size] of sizes.entries()) {
    assert.is(client.sent[2 * at].toString(), 'é'.repeat(size >> 1));
    assert.ok(client.sent[2 * at + 1].equals(Buffer.alloc(size, size)));
  }
  client.socket.ping('are you there');
  log.sockets[0].ping('and you');
  await client.until('pong are you there');
  await log.until('pong and you');
  assert.is(log.told.includes('ping are you there'), true);
  client.socket.close(3_456, 'enough');
  await log.until('close 3456 enough');
  await client.until('close 3456');
  assert.is(log.sockets[0].send('late'), false);
});

test('the server closes, and what comes meanwhile is delivered', async () => {
  const log = new Log();
  const { port, server } = serve(bound(log));
  const client = await raw(port);
  await log.until('open');
  log.sockets[0].close(4_000, 'bye');
  log.sockets[0].close(4_001);
  await client.until(() => client.text.length >= 7, 'a Close');
  assert.is(client.text, hex('88 05 0f a0 62 79 65'));
  client.send(frame(0x81, 'last') + frame(0x88, hex8(4_000)));
  await client.all();
  client.socket.end();
  assert.equal(log.told, ['open', 'text last', 'close 4000']);
  await until(() => server.connections === 0, 'the end');
});

test('a Close without a code, an end without a Close, a reset', async () => {
  const log = new Log();
  const { port, server } = serve(bound(log));
  const first = await raw(port);
  first.send(frame(0x88));
  assert.is(await first.all(), hex('88 00'));
  first.socket.destroy();
  await log.until('close 1005');
  const second = await raw(port);
  second.socket.end();
  await until(() => log.told.filter((one) => one === 'close 1006').length === 1, '1006');
  const third = await raw(port);
  third.socket.resetAndDestroy();
  await until(() => log.told.filter((one) => one === 'close 1006').length === 2, '1006 twice');
  await until(() => server.connections === 0, 'the end');
});

const hex8 = (code: number, reason: string | Buffer = '') => {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
};

const BAD: [what: string, bytes: string, code: number][] = [
  ['RSV1 without an extension', frame(0xc1, 'a'), 1002],
  ['RSV2', frame(0xa1, 'a'), 1002],
  ['RSV3', frame(0x91, 'a'), 1002],
  ['reserved opcode 3', frame(0x83, 'a'), 1002],
  ['reserved opcode 11', frame(0x8b), 1002],
  ['no mask', hex('81 01 61'), 1002],
  ['a length of two bytes that fits in one', hex('82 fe 00 7d 00000000'), 1002],
  ['a length of eight bytes that fits in two', hex('82 ff 000000000000ffff 00000000'), 1002],
  ['the highest bit of a length', hex('82 ff 8000000000000000 00000000'), 1002],
  ['a fragmented ping', frame(0x09), 1002],
  ['a ping of 126 bytes', frame(0x89, 'x'.repeat(126)), 1002],
  ['a continuation of nothing', frame(0x80, 'a'), 1002],
  ['a message within a message', frame(0x01, 'a') + frame(0x81, 'b'), 1002],
  ['a Close of one byte', frame(0x88, 'a'), 1002],
  ['a Close with 999', frame(0x88, hex8(999)), 1002],
  ['a Close with 1004', frame(0x88, hex8(1004)), 1002],
  ['a Close with 1005', frame(0x88, hex8(1005)), 1002],
  ['a Close with 1006', frame(0x88, hex8(1006)), 1002],
  ['a Close with 1015', frame(0x88, hex8(1015)), 1002],
  ['a Close with 2999', frame(0x88, hex8(2999)), 1002],
  ['a Close with 5000', frame(0x88, hex8(5000)), 1002],
  ['a Close whose reason is not UTF-8', frame(0x88, hex8(1000, Buffer.from([0xff]))), 1007],
  ['a text that is not UTF-8', frame(0x81, Buffer.from([0xc3, 0x28])), 1007],
  ['half a character', frame(0x81, Buffer.from([0xe2, 0x82])), 1007],
  ['a surrogate in UTF-8', frame(0x81, Buffer.from([0xed, 0xa0, 0x80])), 1007],
  [
    'the same in fragments',
    frame(0x01, Buffer.from([0xed])) + frame(0x80, Buffer.from([0xa0, 0x80])),
    1007,
  ],
  ['a message that is too large, by its head', hex('82 fe 03e9 00000000'), 1009],
  ['one of a petabyte', hex('82 ff 0004000000000000 00000000'), 1009],
  ['fragments that are', frame(0x02, 'x'.repeat(600)) + frame(0x80, 'x'.repeat(401)), 1009],
];
test('bad frames, and the code that they are answered', async () => {
  const log = new Log();
  const { port, server } = serve({ ...bound(log), messageMax: 1_000 });
  await Promise.all(
    BAD.map(async ([what, bytes, code]) => {
      // A good message before and one behind it: the first is seen, the second is not.
      const client = await raw(port);
      client.send(frame(0x81, what) + bytes + frame(0x81, 'unseen'));
      const answer = Buffer.from(await client.all(), 'latin1');
      assert.is(answer[0], 0x88, what);
      assert.is(answer.readUInt16BE(2), code, what);
      assert.is(answer.length, answer[1] + 2, what);
      client.socket.destroy();
      assert.ok(log.told.includes(`text ${what}`), what);
    }),
  );
  assert.not(log.told.includes('text unseen'));
  assert.is(log.told.filter((one) => one === 'error ERR_WEBSOCKET_PROTOCOL').length, BAD.length);
  assert.is(log.told.filter((one) => one.startsWith('close')).length, BAD.length);
  await until(() => server.connections === 0, 'their ends');
});

test('requests that are no handshake', async () => {
  const log = new Log();
  const accept = (request: { headers: { get(name: string): string | undefined } }) =>
    Promise.resolve(request.headers.get('origin') !== 'http://evil');
  const { port } = rig.serve({
    request: (request, response) => response.send(String(isWebSocketRequest(request))),
    websocket: { ...bound(log), path: '/chat', accept },
  });
  const whole = `${HANDSHAKE}\r\n`;
  const cases: [string, number, string?][] = [
    [whole.replace('/chat', '/other'), 200],
    [whole.replace('Upgrade: websocket\r\n', ''), 200],
    [whole.replace('GET', 'POST'), 400],
    [whole.replace('dGhl', 'dGh'), 400],
    [whole.replace('\r\n\r\n', '\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'), 400],
    [whole.replace(/Sec-WebSocket-Key.*\r\n/, ''), 400],
    [whole.replace('Version: 13', 'Version: 8'), 426, '13'],
    [whole.replace(/Sec-WebSocket-Version.*\r\n/, ''), 426, '13'],
    [whole.replace('\r\n\r\n', '\r\nOrigin: http://evil\r\n\r\n'), 403],
    [whole.replace('\r\n\r\n', '\r\nOrigin: http://good\r\n\r\n'), 101],
  ];
  for (const [text, status, version] of cases) {
    const client = await rig.connect(port);
    client.send(text);
    const answer = await client.answer(status === 101);
    assert.is(answer.status, status, text);
    assert.is(answer.headers['sec-websocket-version'], version);
    client.socket.destroy();
  }
  await log.until('close');
  assert.equal(log.told, ['open', 'close 1006']);
});

test('any cut of the bytes gives the same', async () => {
  const log = new Log();
  const { port } = serve(bound(log));
  const big = 'ü'.repeat(40_000);
  const bytes =
    frame(0x81, 'one') +
    frame(0x01, 'tw') +
    frame(0x89, 'p') +
    frame(0x00, '') +
    frame(0x80, Buffer.from('o€')) +
    frame(0x82, 'x'.repeat(200)) +
    frame(0x01, Buffer.from(big).subarray(0, 33_333)) +
    frame(0x80, Buffer.from(big).subarray(33_333)) +
    frame(0x88, hex8(1000, 'done'));
  const expected = ['open', 'text one', 'ping p', 'text two€', 'binary 200', 'text 40000'];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.nat(60), fc.nat(bytes.length)), { maxLength: 6 }),
      async (cuts) => {
        log.told.length = 0;
        const client = await rig.connect(port);
        let at = 0;
        const whole = `${HANDSHAKE}\r\n${bytes}`;
        for (const cut of [...cuts.map((one) => one + HANDSHAKE.length), whole.length].sort(
          (a, b) => a - b,
        )) {
          client.send(whole.slice(at, cut));
          at = cut;
          // Two turns of the loop: what was sent is read by itself.
          await new Promise(setImmediate);
          await new Promise(setImmediate);
        }
        const answer = await client.all();
        client.socket.destroy();
        await log.until('close');
        assert.equal(log.told, [...expected, 'close 1000 done']);
        assert.ok(answer.endsWith(hex('8a 01 70 88 02 03 e8')));
      },
    ),
    { numRuns: 40 },
  );
});

const anyFrame = fc
  .record({
    opcode: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(0, 1, 2, 8, 9, 10) }, fc.nat(15)),
    fin: fc.oneof({ weight: 3, arbitrary: fc.constant(0x80) }, fc.constant(0)),
    reserved: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, fc.constantFrom(16, 32, 64)),
    payload: fc.oneof(
      { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }).map(Buffer.from) },
      fc.uint8Array({ maxLength: 5 }).map(Buffer.from),
      fc.constantFrom(125, 126, 999, 1_000, 1_001).map((size) => Buffer.alloc(size, 'x')),
      fc.constantFrom(999, 1_000, 1_001, 1_004, 1_005, 1_015, 3_000, 5_000).map((n) => hex8(n)),
    ),
    mask: fc.integer(),
  })
  .map((one) => {
    const { opcode, fin, reserved, payload, mask } = one;
    return { ...one, text: frame(opcode | fin | reserved, payload, mask) };
  });

/** Ours fails at once what no later fragment could make a text of, the ws package at its end. */
function hasBadFragment(frames: { opcode: number; fin: number; payload: Buffer }[]): boolean {
  let text: Buffer | undefined;
  for (const { opcode, fin, payload } of frames) {
    if (opcode === 1) text = fin === 0 ? payload : undefined;
    else if (opcode === 0 && text !== undefined) text = Buffer.concat([text, payload]);
    if (text !== undefined && !canBegin(text)) return true;
    if (opcode === 0 && fin !== 0) text = undefined;
  }
  return false;
}

test('any frames: the same messages and the same end as from the ws package’s server', async () => {
  const ours = new Log();
  const { port } = serve({ ...bound(ours), messageMax: 1_000, ping: nothing, pong: nothing });
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 1_000 });
  await once(server, 'listening');
  const theirs: string[] = [];
  server.on('connection', (socket) => {
    socket.on('message', (data: Buffer, binary) => {
      const text = binary ? data.toString('latin1') : data.toString();
      theirs.push(`${binary ? 'binary' : 'text'} ${text.length > 99 ? text.length : text}`);
    });
    socket.on('error', nothing);
    socket.on('close', () => theirs.push('close'));
  });
  const { port: theirPort } = server.address() as { port: number };
  /** The code of the Close that answers it, if there is one. */
  const answerTo = async (to: number, bytes: string) => {
    const client = await rig.connect(to);
    client.send(`${HANDSHAKE}\r\n${bytes}`);
    client.socket.end();
    const answer = Buffer.from(await client.all(), 'latin1');
    client.socket.destroy();
    for (let at = answer.indexOf('\r\n\r\n') + 4; at < answer.length; at += 2 + answer[at + 1])
      if (answer[at] === 0x88) return answer[at + 1] < 2 ? 1_005 : answer.readUInt16BE(at + 2);
    return undefined;
  };
  const messages = (told: string[]) => told.filter((one) => /^(text|binary)/.test(one));
  await fc.assert(
    fc.asyncProperty(fc.array(anyFrame, { minLength: 1, maxLength: 6 }), async (frames) => {
      ours.told.length = theirs.length = 0;
      const bytes = frames.map(({ text }) => text).join('');
      const code = await answerTo(port, bytes);
      const theirCode = await answerTo(theirPort, bytes);
      if (code !== 1_007 || !hasBadFragment(frames)) assert.is(code, theirCode);
      await ours.until('close');
      await until(() => theirs.at(-1) === 'close', 'the end of theirs');
      assert.equal(messages(ours.told), messages(theirs));
    }),
    { numRuns: 150 },
  );
  server.close();
});

test('who does not read: send() answers false, drain follows, outputMax is the end', async () => {
  const log = new Log();
  let drains = 0;
  const { port } = serve({ ...bound(log), outputMax: 4_000_000, drain: () => drains++ });
  const client = await raw(port);
  await log.until('open');
  const [ws] = log.sockets;
  client.socket.pause();
  const piece = Buffer.alloc(1_000_000, 7);
  let count = 0;
  const flood = () => {
    for (;;) {
      ws.send(piece);
      count++;
    }
  };
  assert.is(codeOf(flood), 'ERR_HTTP_OUTPUT_FULL');
  assert.ok(ws.bufferedAmount > 4_000_000);
  // A ping that waits is answered behind it, the last one only.
  client.send(frame(0x89, '1') + frame(0x89, '2'));
  await log.until('ping 2');
  assert.is(drains, 0);
  client.socket.resume();
  await client.until(
    () => client.text.length >= count * (piece.length + 10) + 3,
    'all of it, and a pong',
  );
  assert.ok(client.text.endsWith(hex('8a 01 32')));
  assert.is(client.text.length, count * (piece.length + 10) + 3);
  assert.is(drains, 1);
  client.socket.destroy();
});

test('a handler that waits is given nothing meanwhile; one that throws ends with 1011', async () => {
  const log = new Log();
  let go: () => void = nothing;
  let inside = 0;
  const { port } = serve({
    ...bound(log),
    async message(ws, data, binary) {
      assert.is(++inside, 1);
      if (data === 'wait')
        await new Promise<void>((resolve) => {
          go = resolve;
        });
      inside--;
      if (data === 'throw') throw new Error('told to');
      log.message(ws, data, binary);
    },
  });
  const client = await raw(port);
  client.send(
    frame(0x81, 'wait') + frame(0x81, 'second') + frame(0x81, 'throw') + frame(0x81, 'x'),
  );
  await until(() => go !== nothing, 'the first');
  client.send(frame(0x89));
  go();
  const answer = await client.all();
  client.socket.destroy();
  assert.is(answer, hex('88 02 03 f3'));
  assert.equal(log.told, ['open', 'text wait', 'text second', 'error told to', 'close 1011']);
});

test('pause() delivers nothing, until resume()', async () => {
  const log = new Log();
  const { port } = serve({
    ...bound(log),
    message(ws, data, binary) {
      log.message(ws, data, binary);
      ws.pause();
    },
  });
  const client = await raw(port);
  client.send(frame(0x81, '1') + frame(0x81, '2') + frame(0x89, '3') + frame(0x88));
  for (const expected of ['text 1', 'text 2']) {
    await log.until(expected);
    assert.is(log.told.at(-1), expected);
    log.sockets[0].resume();
  }
  assert.is(await client.all(), hex('8a 01 33 88 00'));
  client.socket.destroy();
  assert.equal(log.told, ['open', 'text 1', 'text 2', 'ping 3', 'close 1005']);
});

test('silence: a ping, and the end if nobody answers; and a Close that nobody answers', async () => {
  const log = new Log();
  const { port } = serve({ ...bound(log), idleTimeout: 60, closeTimeout: 30 });
  const alive = await peer(port);
  const mute = await raw(port);
  await until(() => log.told.includes('error ERR_WEBSOCKET_TIMEOUT'), 'the end of the mute one');
  await mute.all();
  assert.ok(mute.text.startsWith(hex('89 00')));
  await log.until('pong');
  assert.is(alive.socket.readyState, Peer.OPEN);
  alive.socket.close();
  await alive.until('close 1005');
  log.told.length = 0;
  const deaf = await raw(port);
  await log.until('open');
  log.sockets[2].close();
  await log.until('close 1006');
  await deaf.all();
  assert.equal(log.told, ['open', 'error ERR_WEBSOCKET_TIMEOUT', 'close 1006']);
});

test('compressed messages, both ways, and a bomb', async () => {
  const log = new Echo();
  const { port } = serve({ ...bound(log), deflate: true, messageMax: 100_000 });
  const client = await peer(port, [], { perMessageDeflate: { threshold: 0 } });
  assert.is(client.socket.extensions.startsWith('permessage-deflate'), true);
  await log.until('open');
  assert.is(log.sockets[0].deflated, true);
  const text = 'round and round '.repeat(5_000);
  client.socket.send(text);
  client.socket.send('short');
  client.socket.send(text);
  await until(() => client.sent.length === 3, 'the echoes');
  assert.equal(client.sent.map(String), [text, 'short', text]);
  assert.ok(log.sockets[0].stream.bytesWritten < 5_000);
  client.socket.send('a'.repeat(2_000_000));
  await log.until('close 1009');
  await client.until('close 1009');
});

function own(port: number, options: WebSocketClientOptions): WebSocket {
  return connectWebSocket(rig.base, `ws://127.0.0.1:${port}/chat?x=1`, options);
}

test('our client and the ws package’s server', async () => {
  const server = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    perMessageDeflate: { threshold: 0, serverNoContextTakeover: true },
  });
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  let url: string | undefined;
  server.on('connection', (socket, request) => {
    url = `${request.url} ${request.headers['x-a']}`;
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    socket.ping('p');
  });
  for (const deflate of [false, true]) {
    const log = new Log();
    const ws = own(port, {
      ...bound(log),
      protocols: ['a', 'b'],
      headers: { 'X-A': 'b' },
      deflate,
    });
    assert.is(
      codeOf(() => ws.send('early')),
      'ERR_WEBSOCKET_NOT_OPEN',
    );
    await log.until('ping p');
    assert.is(url, '/chat?x=1 b');
    assert.is(ws.deflated, deflate);
    ws.send('text');
    ws.send(Buffer.from('bytes'));
    ws.send('x'.repeat(100_000));
    await log.until('text 100000');
    ws.close(4_321, 'so long');
    await log.until('close 4321');
    assert.equal(log.told, [
      'open a',
      'ping p',
      'text text',
      'binary bytes',
      'text 100000',
      'close 4321 so long',
    ]);
  }
  const log = new Log();
  own(port, bound(log));
  await log.until('open');
  for (const socket of server.clients) socket.close(1_012, 'restart');
  await log.until('close 1012 restart');
  for (const socket of server.clients) socket.terminate();
  server.close();
});

test('our client and our server, also with handlers of one request', async () => {
  const log = new Echo();
  const { port, server } = rig.serve({
    request: (request, response) => upgradeWebSocket(request, response, { ...bound(log) }),
  });
  const told = new Log();
  const ws = own(port, bound(told));
  await told.until('open');
  for (const size of [0, 100, 4_077, 4_090, 70_000]) ws.send('y'.repeat(size));
  await until(() => told.told.length === 6, 'the echoes');
  assert.is(server.connections, 1);
  // The server goes, and says so.
  const drained = server.drain();
  await within(PATIENCE_MS, drained, 'the drain');
  await told.until('close 1001');
  assert.is(ws.closed, true);
});

test('over TLS, and to a name', async () => {
  const log = new Echo();
  const { server } = serve(bound(log));
  const accept = (fd: number) =>
    server.attach(BufferEvent.socket(rig.base, fd, { tls: pair('localhost') }));
  const listener = new Listener(rig.base, { port: 0, host: '127.0.0.1' }, accept);
  const { port } = listener.address as { port: number };
  const told = new Log();
  const ws = connectWebSocket(rig.base, `wss://localhost:${port}`, {
    ...bound(told),
    open(ws) {
      ws.send('secret');
      ws.send(Buffer.alloc(50_000, 'x'));
    },
    tls: { ca },
  });
  await told.until('binary 50000');
  assert.ok(ws.stream.tls);
  ws.close();
  await told.until('close');
  assert.equal(told.told, ['text secret', 'binary 50000', 'close 1000']);
  const wrong = new Log();
  connectWebSocket(rig.base, `wss://localhost:${port}`, bound(wrong));
  await wrong.until('close');
  assert.is(wrong.told.length, 2);
  assert.match(wrong.told[0], /^error (ERR_TLS|CERT|UNABLE|SELF|DEPTH)/);
  listener.close();
});

test('answers that are no handshake', async () => {
  const [near, far] = BufferEvent.pair(rig.base);
  const ok = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n';
  near.close();
  far.close();
  for (const answer of [
    'HTTP/1.1 200 OK\r\n\r\n',
    'SSH-2.0\r\n\r\n',
    `${ok}\r\n`,
    `${ok}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n`,
    `${ok}no header\r\n\r\n`,
    'x'.repeat(20_000),
  ]) {
    const [stream, server] = BufferEvent.pair(rig.base);
    const log = new Log();
    connectWebSocket(rig.base, 'ws://a/', { ...bound(log), stream });
    server.write(answer);
    await log.until('close');
    assert.equal(log.told, ['error ERR_WEBSOCKET_HANDSHAKE', 'close 1006'], answer);
    server.close();
  }
  const refused = new Log();
  connectWebSocket(rig.base, 'ws://127.0.0.1:1/', bound(refused));
  await refused.until('close');
  assert.equal(refused.told, ['error ECONNREFUSED', 'close 1006']);
});

test('arguments', () => {
  const codes = (bodies: (() => unknown)[]) => bodies.map(codeOf);
  assert.equal(
    codes([
      () => connectWebSocket(rig.base, 'http://a/'),
      () => connectWebSocket(rig.base, 7 as never),
      () => connectWebSocket(rig.base, 'ws://a/', { protocols: ['a b'] }),
      () => connectWebSocket(rig.base, 'ws://a/', { headers: { Host: 'b' } }),
      () => connectWebSocket(rig.base, 'ws://a/', { headers: { a: 'b\r\nc: d' } }),
      () => connectWebSocket(rig.base, 'ws://a/', { messageMax: -1 }),
      () => rig.serve({ request, websocket: { message: 1 as never } }),
      () => rig.serve({ request, websocket: { protocols: ['a', 'a'] } }),
    ]),
    [
      'ERR_INVALID_ARG_VALUE',
      'ERR_INVALID_ARG_TYPE',
      'ERR_INVALID_ARG_VALUE',
      'ERR_INVALID_ARG_VALUE',
      'ERR_INVALID_ARG_VALUE',
      'ERR_OUT_OF_RANGE',
      'ERR_INVALID_ARG_TYPE',
      'ERR_INVALID_ARG_VALUE',
    ],
  );
});

/** The hooks of a log as an object of options. */
function bound(log: Log): WebSocketOptions {
  return {
    open: (ws) => log.open(ws),
    message: (ws, data, binary) => log.message(ws, data, binary),
    ping: (ws, data) => log.ping(ws, data),
    pong: (ws, data) => log.pong(ws, data),
    close: (ws, code, reason) => log.close(ws, code, reason),
    error: (ws, error) => log.error(ws, error),
  };
}

test.run();
