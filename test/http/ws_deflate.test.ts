// permessage-deflate: what is agreed on, and context between messages in both directions, with the
// `ws` package on the other side, which has zlib's streams.

import { once } from 'node:events';
import { constants, deflateRawSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { WebSocket as Peer, type PerMessageDeflateOptions, WebSocketServer } from 'ws';
import { agreementOf, answerTo, type DeflateWish, offerOf } from '../../src/http/ws_negotiation.js';
import {
  connectWebSocket,
  HttpServer,
  type WebSocket,
  type WebSocketDeflate,
  type WebSocketOptions,
} from '../../src/http.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { until } from '../runtime/clients.js';
import { nothing, Rig } from './rig.js';

let rig: Rig;
test.before.each(() => {
  rig = new Rig();
});
test.after.each(() => rig.close());

const wish = (more: Partial<DeflateWish> = {}): DeflateWish => ({
  serverContext: false,
  clientContext: false,
  serverMaxWindowBits: 15,
  clientMaxWindowBits: 15,
  ...more,
});
const BOTH = { serverContext: true, clientContext: true };
const PMD = 'permessage-deflate';
const [S, C] = ['server_no_context_takeover', 'client_no_context_takeover'];
const [SB, CB] = ['server_max_window_bits', 'client_max_window_bits'];

// ── RFC 7692 section 7.1 ────────────────────────────────────────────────────────────────────────

/** Contexts and bits as [sends, receives, bits, bits]. */
type Agreed = [boolean, boolean, number, number];
const ANSWERS: [offer: string, of: Partial<DeflateWish>, answer: string | undefined, Agreed?][] = [
  [PMD, {}, `${PMD}; ${S}; ${C}`, [false, false, 15, 15]],
  [PMD, BOTH, PMD, [true, true, 15, 15]],
  [PMD, { serverContext: true }, `${PMD}; ${C}`, [true, false, 15, 15]],
  [PMD, { clientContext: true }, `${PMD}; ${S}`, [false, true, 15, 15]],
  [`${PMD}; ${S}`, BOTH, `${PMD}; ${S}`, [false, true, 15, 15]],
  [`${PMD}; ${C}`, BOTH, `${PMD}; ${C}`, [true, false, 15, 15]],
  [`${PMD};${S} ;${C}; ${CB}`, BOTH, `${PMD}; ${S}; ${C}`, [false, false, 15, 15]],
  [`${PMD}; ${SB}=10`, BOTH, `${PMD}; ${SB}=10`, [true, true, 10, 15]],
  [`${PMD}; ${SB}="15"`, BOTH, `${PMD}; ${SB}=15`, [true, true, 15, 15]],
  [
    `${PMD}; ${SB}=12`,
    { ...BOTH, serverMaxWindowBits: 11 },
    `${PMD}; ${SB}=11`,
    [true, true, 11, 15],
  ],
  [PMD, { ...BOTH, serverMaxWindowBits: 11 }, `${PMD}; ${SB}=11`, [true, true, 11, 15]],
  // zlib has no window of 256 bytes: another offer, or none.
  [`${PMD}; ${SB}=8`, BOTH, undefined],
  [`${PMD}; ${SB}=8, ${PMD}; ${SB}=9`, BOTH, `${PMD}; ${SB}=9`, [true, true, 9, 15]],
  [`${PMD}; ${CB}`, { ...BOTH, clientMaxWindowBits: 9 }, `${PMD}; ${CB}=9`, [true, true, 15, 9]],
  [`${PMD}; ${CB}=8`, BOTH, `${PMD}; ${CB}=8`, [true, true, 15, 8]],
  [`${PMD}; ${CB}=12`, { ...BOTH, clientMaxWindowBits: 9 }, `${PMD}; ${CB}=9`, [true, true, 15, 9]],
  // A client that cannot be told a smaller window keeps none.
  [PMD, { ...BOTH, clientMaxWindowBits: 9 }, `${PMD}; ${C}`, [true, false, 15, 15]],
  [`x-webkit-deflate-frame, ${PMD}`, BOTH, PMD, [true, true, 15, 15]],
  ['Permessage-Deflate', BOTH, PMD, [true, true, 15, 15]],
  ['', BOTH, undefined],
  ['x', BOTH, undefined],
  [`${PMD}x`, BOTH, undefined],
  [`${PMD};`, BOTH, undefined],
  [`${PMD}; x`, BOTH, undefined],
  [`${PMD}; ${S}=1`, BOTH, undefined],
  [`${PMD}; ${S}; ${S}`, BOTH, undefined],
  [`${PMD}; ${SB}`, BOTH, undefined],
  [`${PMD}; ${SB}=7`, BOTH, undefined],
  [`${PMD}; ${SB}=16`, BOTH, undefined],
  [`${PMD}; ${SB}=09`, BOTH, undefined],
  [`${PMD}; ${CB}=`, BOTH, undefined],
  [`${PMD}; ${CB}=10; ${CB}=11`, BOTH, undefined],
  [`${PMD}; x, ${PMD}; ${C}`, BOTH, `${PMD}; ${C}`, [true, false, 15, 15]],
  [`${'x,'.repeat(16)}${PMD}`, BOTH, undefined],
];
test('offers, and what a server answers', () => {
  for (const [offer, of, answer, expected] of ANSWERS) {
    const got = answerTo(offer, wish(of));
    assert.is(got?.answer, answer, offer);
    if (got === undefined) continue;
    const { sendContext, receiveContext, sendBits, receiveBits } = got.agreed;
    assert.equal([sendContext, receiveContext, sendBits, receiveBits], expected, offer);
  }
});

const OFFERS: [of: Partial<DeflateWish>, offer: string][] = [
  [{}, `${PMD}; ${S}; ${C}; ${CB}`],
  [BOTH, `${PMD}; ${CB}`],
  [{ clientContext: true }, `${PMD}; ${S}; ${CB}`],
  [{ ...BOTH, serverMaxWindowBits: 9, clientMaxWindowBits: 12 }, `${PMD}; ${SB}=9; ${CB}=12`],
];
const AGREED: [answer: string, of: Partial<DeflateWish>, Agreed | undefined][] = [
  [PMD, BOTH, [true, true, 15, 15]],
  [PMD, { serverContext: true }, [false, true, 15, 15]],
  [PMD, { clientContext: true }, undefined],
  [`${PMD}; ${S}`, {}, [false, false, 15, 15]],
  [`${PMD}; ${S}; ${C}`, BOTH, [false, false, 15, 15]],
  [`${PMD}; ${SB}=10; ${CB}=8`, BOTH, [true, true, 8, 10]],
  [`${PMD}; ${CB}`, BOTH, undefined],
  [`${PMD}; ${CB}=12`, { ...BOTH, clientMaxWindowBits: 11 }, undefined],
  [PMD, { ...BOTH, clientMaxWindowBits: 11 }, [true, true, 11, 15]],
  [PMD, { ...BOTH, serverMaxWindowBits: 11 }, undefined],
  [`${PMD}; ${SB}=12`, { ...BOTH, serverMaxWindowBits: 11 }, undefined],
  [`${PMD}; ${SB}=9`, { ...BOTH, serverMaxWindowBits: 11 }, [true, true, 15, 9]],
  [`${PMD}, ${PMD}`, BOTH, undefined],
  [`${PMD}; ${S}, x`, BOTH, undefined],
  ['x', BOTH, undefined],
  ['', BOTH, undefined],
];
test('what a client offers, and which answers are none', () => {
  for (const [of, offer] of OFFERS) assert.is(offerOf(wish(of)), offer);
  for (const [answer, of, expected] of AGREED) {
    const got = agreementOf(answer, wish(of));
    const all = got && [got.sendContext, got.receiveContext, got.sendBits, got.receiveBits];
    assert.equal(all, expected, `${answer} ${JSON.stringify(of)}`);
  }
});

test('options', () => {
  const bad: [WebSocketDeflate, string][] = [
    [{ serverMaxWindowBits: 8 }, 'ERR_OUT_OF_RANGE'],
    [{ clientMaxWindowBits: 16 }, 'ERR_OUT_OF_RANGE'],
    [{ level: 0 }, 'ERR_OUT_OF_RANGE'],
    [{ memLevel: 10 }, 'ERR_OUT_OF_RANGE'],
    [{ move: 'stay' as never }, 'ERR_INVALID_ARG_VALUE'],
    [{ serverContext: 1 as never }, 'ERR_INVALID_ARG_TYPE'],
    ['yes' as never, 'ERR_INVALID_ARG_TYPE'],
    [null as never, 'ERR_INVALID_ARG_TYPE'],
  ];
  for (const [deflate, code] of bad) {
    const server = () => new HttpServer(rig.base, { request: nothing, websocket: { deflate } });
    assert.is(codeOf(server), code);
    assert.is(
      codeOf(() => connectWebSocket(rig.base, 'ws://a/', { deflate })),
      code,
    );
  }
});

// ── both sides ──────────────────────────────────────────────────────────────────────────────────

/** The same numbers for the same seed. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
const RECORD = '{"id":12345,"name":"somebody","tags":["red","green"],"at":"2020-01-01T00:00:00Z"},';
/** 0 to 70,000 bytes: records that are much alike, words of a few kinds, or noise. */
function messages(count: number, seed: number): (string | Buffer)[] {
  const below = numbers(seed);
  return Array.from({ length: count }, (_, i) => {
    const size = i % 50 === 49 ? below(70_001) : i % 7 === 0 ? below(5_000) : below(200);
    const kind = below(3);
    if (kind === 0) {
      const noise = Buffer.alloc(size);
      for (let at = 0; at < size; at++) noise[at] = below(256);
      return noise;
    }
    const text = kind === 1 ? `${i}${RECORD}` : `${below(9)} mañana ${below(1_000)} `;
    return text.repeat(Math.ceil(size / text.length)).slice(0, size);
  });
}
const same = (a: string | Uint8Array, b: string | Uint8Array): boolean =>
  typeof a === typeof b && Buffer.from(a as string).equals(Buffer.from(b as string));

/** Sends all, in order and with pauses in which others run, and looks at the echoes. */
async function exchange(
  all: (string | Buffer)[],
  send: (message: string | Buffer, i: number) => void,
  got: (string | Uint8Array)[],
): Promise<void> {
  const BATCH = 100;
  for (let at = 0; at < all.length; at += BATCH) {
    for (let i = at; i < Math.min(at + BATCH, all.length); i++) send(all[i], i);
    const due = Math.min(at + BATCH, all.length);
    await until(() => got.length >= due, `${due} echoes, not ${got.length}`);
  }
  for (const [i, message] of all.entries())
    assert.ok(same(message, got[i]), `message ${i} of ${message.length}`);
  assert.is(got.length, all.length);
}

const PAIRS: [ours: WebSocketDeflate, theirs: PerMessageDeflateOptions, contexts: string][] = [
  [BOTH, {}, 'both'],
  [{ serverContext: true }, {}, 'the server’s'],
  [{ clientContext: true }, {}, 'the client’s'],
  [{}, {}, 'none'],
  [BOTH, { serverNoContextTakeover: true }, 'not the server’s, they say'],
  [BOTH, { clientNoContextTakeover: true }, 'not the client’s, they say'],
  [{ ...BOTH, serverMaxWindowBits: 9, clientMaxWindowBits: 9 }, {}, 'both of 512 bytes'],
  [BOTH, { serverMaxWindowBits: 10, clientMaxWindowBits: 12 }, 'of 1 and 4 KiB, they say'],
  [{ ...BOTH, level: 1, memLevel: 1 }, {}, 'both, with little effort'],
];
const COUNT = 1_000;

for (const [at, [ours, theirs, contexts]] of PAIRS.entries()) {
  test(`ws as a client, messages of all sizes, contexts: ${contexts}`, async () => {
    let server: WebSocket | undefined;
    const errors: Error[] = [];
    const { port } = rig.serve({
      request: nothing,
      websocket: {
        deflate: ours,
        deflateMin: 1,
        open: (ws) => {
          server = ws;
        },
        message: (ws: WebSocket, data: string | Uint8Array) => {
          ws.send(data);
        },
        error: (_, error) => errors.push(error),
      },
    });
    const socket = new Peer(`ws://127.0.0.1:${port}/`, {
      perMessageDeflate: { threshold: 0, ...theirs },
    });
    const got: (string | Buffer)[] = [];
    socket.on('message', (data: Buffer, binary) => got.push(binary ? data : data.toString()));
    let pongs = 0;
    socket.on('pong', () => pongs++);
    await within(PATIENCE_MS, once(socket, 'open'), 'open');
    assert.is(server?.deflated, true);
    const all = messages(COUNT, at + 1);
    await exchange(
      all,
      (message, i) => {
        if (i % 10 !== 3) socket.send(message);
        else {
          // In three fragments, with a ping between, and some of them plain.
          const bytes = Buffer.from(message as string);
          const options = { binary: typeof message !== 'string', compress: i % 20 === 3 };
          const third = Math.ceil(bytes.length / 3);
          socket.send(bytes.subarray(0, third), { ...options, fin: false });
          socket.ping();
          socket.send(bytes.subarray(third, 2 * third), { ...options, fin: false });
          socket.send(bytes.subarray(2 * third), { ...options, fin: true });
        }
      },
      got,
    );
    await until(() => pongs === COUNT / 10, 'the pongs');
    const receives = ours.clientContext === true && theirs.clientNoContextTakeover !== true;
    const most = 2 ** ((theirs.clientMaxWindowBits as number) ?? ours.clientMaxWindowBits ?? 15);
    assert.is(server?.contextBytes, receives ? most : 0);
    socket.close();
    await within(PATIENCE_MS, once(socket, 'close'), 'close');
    assert.equal(errors, []);
    assert.is(server?.contextBytes, 0);
  });

  test(`ws as a server, messages of all sizes, contexts: ${contexts}`, async () => {
    const server = new WebSocketServer({
      port: 0,
      host: '127.0.0.1',
      perMessageDeflate: { threshold: 0, ...theirs },
    });
    await once(server, 'listening');
    server.on('connection', (socket) =>
      socket.on('message', (data, binary) => socket.send(data, { binary })),
    );
    const { port } = server.address() as { port: number };
    const got: (string | Uint8Array)[] = [];
    const told: string[] = [];
    const ws = connectWebSocket(rig.base, `ws://127.0.0.1:${port}`, {
      deflate: ours,
      deflateMin: 1,
      open: () => told.push('open'),
      message: (_, data) => got.push(data),
      error: (_, error) => told.push(String(error)),
      close: (_, code) => told.push(`close ${code}`),
    });
    await until(() => told.length > 0, 'open');
    assert.equal([told[0], ws.deflated], ['open', true]);
    await exchange(messages(COUNT, at + 100), (message) => ws.send(message), got);
    ws.close();
    await until(() => told.length > 1, 'close');
    assert.equal(told, ['open', 'close 1000']);
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  });
}

test('context makes short messages that are alike shorter', async () => {
  const sizes: number[] = [];
  for (const serverContext of [false, true]) {
    let server: WebSocket | undefined;
    const { port } = rig.serve({
      request: nothing,
      websocket: {
        deflate: { serverContext },
        deflateMin: 1,
        open(ws: WebSocket) {
          server = ws;
          for (let i = 0; i < 100; i++) ws.send(`${i} ${RECORD}`);
        },
      },
    });
    const socket = new Peer(`ws://127.0.0.1:${port}/`);
    let count = 0;
    socket.on('message', (data) => assert.is(String(data), `${count++} ${RECORD}`));
    await until(() => count === 100, 'all of them');
    sizes.push((server as WebSocket).stream.bytesWritten);
    socket.terminate();
  }
  assert.ok(sizes[1] < sizes[0] / 3, `${sizes}`);
});

// ── what a peer does wrong ──────────────────────────────────────────────────────────────────────

const HANDSHAKE =
  'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n';
/** A masked frame, with a mask of zeros. */
function frame(first: number, payload: Uint8Array): string {
  const head = Buffer.alloc(payload.length > 125 ? 8 : 6);
  head[0] = first;
  head[1] = 128 | Math.min(payload.length, 126);
  if (payload.length > 125) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]).toString('latin1');
}
const deflated = (text: string, dictionary?: Buffer): Buffer =>
  deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH, dictionary }).subarray(0, -4);

async function raw(websocket: WebSocketOptions, offer = PMD) {
  const told: string[] = [];
  const { port } = rig.serve({
    request: nothing,
    websocket: {
      message: (_: WebSocket, data: string | Uint8Array) => told.push(`${data.length} ${data}`),
      close: (_, code) => told.push(`close ${code}`),
      error: nothing,
      ...websocket,
    },
  });
  const client = await rig.connect(port);
  client.send(`${HANDSHAKE}Sec-WebSocket-Extensions: ${offer}\r\n\r\n`);
  const answer = await client.answer(true);
  const untilTold = async (count: number) => {
    await until(() => told.length >= count, `${count} things, not ${told}`);
    return told;
  };
  return { client, extensions: answer.headers['sec-websocket-extensions'], untilTold };
}

test('bombs: with context and without, in one message and behind a last block', async () => {
  const bomb = deflated('a'.repeat(60_000_000));
  const half = deflateRawSync('a'.repeat(60_000));
  const halves = Buffer.concat([half, half, Buffer.from([0])]);
  for (const deflate of [true, BOTH])
    for (const bytes of [bomb, halves]) {
      const before = process.memoryUsage().arrayBuffers;
      const { client, untilTold } = await raw({ deflate, messageMax: 100_000 });
      client.send(frame(0xc1, deflated('hello')) + frame(0xc1, bytes.subarray(0, 60_000)));
      assert.equal(await untilTold(2), ['5 hello', 'close 1009']);
      assert.ok(process.memoryUsage().arrayBuffers - before < 20_000_000);
      client.socket.destroy();
    }
});

test('a reference to before the context is no deflate data; one into it is', async () => {
  const known = Buffer.from('what was said before');
  const { client, untilTold } = await raw({ deflate: BOTH });
  client.send(frame(0xc1, deflated(String(known))) + frame(0xc1, deflated(String(known), known)));
  assert.equal(await untilTold(2), [`20 ${known}`, `20 ${known}`]);
  client.send(
    frame(0xc1, deflated(String(known), Buffer.concat([known, Buffer.alloc(99), known]))),
  );
  client.send(frame(0xc1, deflated('x'.repeat(300), Buffer.from(`${'y'.repeat(32_000)}`))));
  client.send(frame(0xc1, Buffer.from([0xff, 0xff, 0xff])));
  assert.is((await untilTold(4)).at(-1), 'close 1007');
  client.socket.destroy();
  const none = await raw({ deflate: true });
  none.client.send(frame(0xc1, deflated(String(known))));
  none.client.send(frame(0xc1, deflated(String(known), known)));
  assert.equal(await none.untilTold(2), [`20 ${known}`, 'close 1007']);
  none.client.socket.destroy();
});

test('blocks that are marked as the last one, with something behind them', async () => {
  const last = (text: string, dictionary?: Buffer) => deflateRawSync(text, { dictionary });
  const end = Buffer.from([0]);
  for (const deflate of [true, BOTH]) {
    const { client, untilTold } = await raw({ deflate });
    client.send(frame(0xc1, Buffer.concat([last('Hello'), end])));
    client.send(frame(0xc1, Buffer.concat([last('again '), last('and again'), end])));
    const word = Buffer.from('one window of a message ');
    client.send(frame(0xc1, Buffer.concat([last(String(word)), last(String(word), word), end])));
    assert.equal(await untilTold(3), ['5 Hello', '15 again and again', `48 ${word}${word}`]);
    // There is an end to that.
    client.send(frame(0xc1, Buffer.concat([...Array.from({ length: 40 }, () => last('x')), end])));
    assert.is((await untilTold(4)).at(-1), 'close 1007');
    client.socket.destroy();
  }
});

// ── published ───────────────────────────────────────────────────────────────────────────────────

test('published: to each one in the way that it has agreed on', async () => {
  const { port, server } = rig.serve({
    request: nothing,
    websocket: {
      deflate: { ...BOTH, serverMaxWindowBits: 14 },
      deflateMin: 1,
      open: (ws: WebSocket) => ws.subscribe('news'),
    },
  });
  const ways: (boolean | PerMessageDeflateOptions)[] = [
    false,
    {},
    {},
    { serverNoContextTakeover: true },
    { serverNoContextTakeover: true },
    { serverMaxWindowBits: 9 },
    { serverNoContextTakeover: true, serverMaxWindowBits: 9 },
  ];
  const got = ways.map(() => [] as (string | Buffer)[]);
  const sockets = ways.map((perMessageDeflate, i) => {
    const socket = new Peer(`ws://127.0.0.1:${port}/`, { perMessageDeflate });
    socket.on('message', (data: Buffer, binary) => got[i].push(binary ? data : data.toString()));
    return socket;
  });
  await within(PATIENCE_MS, Promise.all(sockets.map((one) => once(one, 'open'))), 'all are open');
  const all = messages(200, 7);
  for (const message of all) server.publish('news', message);
  await until(() => got.every((one) => one.length === all.length), 'all of it to all of them');
  for (const one of got)
    for (const [i, message] of all.entries()) assert.ok(same(message, one[i]), `message ${i}`);
  for (const socket of sockets) socket.terminate();
});

test.run();
