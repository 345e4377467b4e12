// RFC 6455 case by case, as conformance suites have it: what a server answers to each, by bytes.
// What is wrong in other ways is in websocket.test.ts.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { WebSocket } from '../../src/http.js';
import { type Client, canBegin, nothing, useRig } from './rig.js';

const rig = useRig();
const { port } = rig.serve({
  request: nothing,
  websocket: {
    message: (ws: WebSocket, data: string | Uint8Array) => {
      ws.send(data);
    },
    messageMax: 2 ** 20,
  },
});

const HANDSHAKE =
  'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';

function frame(first: number, payload: string | Uint8Array = '', mask?: number): Buffer {
  const bytes = Buffer.from(payload as string);
  const { length } = bytes;
  const head = Buffer.alloc(length > 65_535 ? 10 : length > 125 ? 4 : 2);
  head[0] = first;
  head[1] = length > 65_535 ? 127 : Math.min(length, 126);
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeUInt32BE(length, 6);
  if (mask === undefined) return Buffer.concat([head, bytes]);
  head[1] |= 128;
  const key = Buffer.alloc(4);
  key.writeInt32BE(mask);
  return Buffer.concat([head, key, bytes.map((byte, at) => byte ^ key[at & 3])]);
}
const sent = (first: number, payload: string | Uint8Array = '') =>
  frame(first, payload, 0x1234_5678);
const close = (code: number, reason = '') => {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
};
const GOODBYE = sent(0x88, close(1000));
const ANSWERED = frame(0x88, close(1000));

async function answersTo(pieces: Buffer[]): Promise<Buffer> {
  const client: Client = await rig.connect(port);
  client.send(HANDSHAKE);
  await client.answer(true);
  for (const piece of pieces) {
    client.send(piece.toString('latin1'));
    if (pieces.length > 1) await new Promise(setImmediate);
  }
  const all = Buffer.from(await client.all(), 'latin1');
  client.socket.destroy();
  return all;
}

/** What is sent before a Close, and what is answered before the answer to that. */
const good: Record<string, [Buffer[], Buffer[]]> = {};
for (const size of [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1_000_000]) {
  const text = '*'.repeat(size);
  const bytes = Buffer.alloc(size, 0xfe);
  good[`a text of ${size}`] = [[sent(0x81, text)], [frame(0x81, text)]];
  good[`${size} bytes`] = [[sent(0x82, bytes)], [frame(0x82, bytes)]];
}
for (const mask of [0, -1, 0x0102_0304])
  good[`the mask ${mask}`] = [[frame(0x81, 'masked', mask)], [frame(0x81, 'masked')]];
for (const size of [0, 1, 125])
  good[`a ping of ${size}`] = [[sent(0x89, 'p'.repeat(size))], [frame(0x8a, 'p'.repeat(size))]];
good['pongs that nobody asked for'] = [[sent(0x8a), sent(0x8a, 'x')], []];
good['ten pings'] = [
  Array.from({ length: 10 }, (_, i) => sent(0x89, String(i))),
  Array.from({ length: 10 }, (_, i) => frame(0x8a, String(i))),
];
good['fragments, a ping and a pong between'] = [
  [sent(0x01, 'a'), sent(0x89, 'p'), sent(0x00, 'b'), sent(0x8a), sent(0x00), sent(0x80, 'c')],
  [frame(0x8a, 'p'), frame(0x81, 'abc')],
];
good['empty fragments'] = [[sent(0x01), sent(0x00), sent(0x80)], [frame(0x81)]];
good['a last fragment of nothing'] = [[sent(0x02, 'b'), sent(0x80)], [frame(0x82, 'b')]];
const TEXTS = [
  'κόσμε',
  '\u{10ffff}',
  '\ufffe',
  '\uffff',
  '\u07ff\u0800',
  '\ud7ff\ue000',
  '\u{1f600}',
];
for (const text of TEXTS) {
  const bytes = Buffer.from(text);
  const name = [...text].map((one) => one.codePointAt(0)?.toString(16)).join(' ');
  const pieces = [...bytes].map((_, i) =>
    sent((i === 0 ? 1 : 0) | (i === bytes.length - 1 ? 0x80 : 0), bytes.subarray(i, i + 1)),
  );
  good[`U+${name}, a byte a fragment`] = [pieces, [frame(0x81, bytes)]];
}

test('what is right is answered', async () => {
  for (const [name, [pieces, answers]] of Object.entries(good)) {
    const expected = Buffer.concat([...answers, ANSWERED]);
    const whole = await answersTo([Buffer.concat([...pieces, GOODBYE])]);
    assert.ok(whole.equals(expected), `${name}: ${whole.subarray(0, 50).toString('hex')}`);
    if (whole.length > 10_000) continue;
    const bytewise = [...Buffer.concat([...pieces, GOODBYE])].map((byte) => Buffer.from([byte]));
    if (bytewise.length < 100) assert.ok((await answersTo(bytewise)).equals(expected), name);
  }
});

const bad: Record<string, [Buffer, number]> = {};
for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
  bad[`opcode ${opcode}`] = [sent(0x80 | opcode), 1002];
  bad[`opcode ${opcode} with bytes`] = [sent(0x80 | opcode, 'x'), 1002];
}
for (const bits of [1, 2, 3, 4, 5, 6, 7])
  for (const opcode of [1, 2, 8, 9, 10])
    bad[`reserved bits ${bits} with opcode ${opcode}`] = [sent(0x80 | (bits << 4) | opcode), 1002];
for (const opcode of [8, 9, 10])
  bad[`a fragmented frame of opcode ${opcode}`] = [sent(opcode, close(1000)), 1002];
for (const opcode of [8, 9, 10])
  bad[`126 bytes of opcode ${opcode}`] = [sent(0x80 | opcode, 'x'.repeat(126)), 1002];
for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
  bad[`Close with ${code}`] = [sent(0x88, close(code)), 1002];
bad['a continuation after a whole message'] = [
  Buffer.concat([sent(0x81, 'a'), sent(0x80, 'b')]),
  1002,
];
bad['a text within fragments'] = [Buffer.concat([sent(0x02, 'a'), sent(0x01, 'b')]), 1002];
/** Markus Kuhn's stress test: what is no UTF-8, by its bytes. */
const NOT_UTF8 = [
  '80',
  'bf',
  '8080',
  'c0',
  'c020',
  'e0',
  'e080',
  'f0',
  'f08080',
  'f8888080',
  'fc8480808080',
  'fe',
  'ff',
  'feff',
  'c0af',
  'e080af',
  'f08080af',
  'c1bf',
  'e09fbf',
  'f08fbfbf',
  'c080',
  'eda080',
  'edafbf',
  'edb080',
  'edbfbf',
  'eda080edb080',
  'f4908080',
  'f7bfbfbf',
  'cebae1bdb9edb080',
];
for (const hex of NOT_UTF8) {
  const bytes = Buffer.from(hex, 'hex');
  bad[`the text ${hex}`] = [sent(0x81, bytes), 1007];
  bad[`${hex} in a Close`] = [sent(0x88, Buffer.concat([close(1000), bytes])), 1007];
  for (let cut = 1; cut < bytes.length; cut++)
    bad[`the text ${hex} cut at ${cut}`] = [
      Buffer.concat([sent(0x01, bytes.subarray(0, cut)), sent(0x80, bytes.subarray(cut))]),
      1007,
    ];
}

test('what is wrong is failed with its code, and nothing behind it is looked at', async () => {
  for (const [name, [bytes, code]] of Object.entries(bad)) {
    const answers = await answersTo([Buffer.concat([bytes, sent(0x81, 'unseen')])]);
    const at = answers.lastIndexOf(0x88);
    // A whole message before it is answered.
    const before = name.startsWith('a continuation') ? 3 : 0;
    assert.is(answers[before], 0x88, `${name}: ${answers.toString('hex')}`);
    assert.is(answers.readUInt16BE(before + 2), code, name);
    assert.is(answers.length, before + 2 + answers[before + 1], name);
    assert.ok(at >= before);
  }
});

test('a fragment fails at its first bad byte, and not before', async () => {
  const prefix = 'κόσμε😀';
  for (const hex of NOT_UTF8) {
    const bytes = Buffer.from(hex, 'hex');
    // The first byte after which no more bytes can make it a text; none in what is only cut off.
    const bad = Array.from(bytes.keys()).find((i) => !canBegin(bytes.subarray(0, i + 1)));
    for (const before of ['', prefix]) {
      const client: Client = await rig.connect(port);
      client.send(HANDSHAKE);
      await client.answer(true);
      const pieces = [Buffer.from(before), ...[...bytes].map((byte) => Buffer.from([byte]))];
      for (const [i, piece] of pieces.entries()) {
        // The pong shows that nothing was wrong up to here.
        client.send(sent(i === 0 ? 0x01 : 0x00, piece).toString('latin1'));
        if (i - 1 === bad) break;
        client.send(sent(0x89, String(i)).toString('latin1'));
        const pong = frame(0x8a, String(i)).toString('latin1');
        await client.until(() => client.text.length >= 3, 'a pong');
        assert.is(client.text, pong, `${hex} at ${i}`);
        client.text = '';
      }
      // Cut off, it is wrong when the message is over.
      if (bad === undefined) client.send(sent(0x80).toString('latin1'));
      const end = Buffer.from(await client.all(), 'latin1');
      assert.equal([end[0], end.readUInt16BE(2)], [0x88, 1007], hex);
      client.socket.destroy();
    }
  }
});

test('codes that a Close may carry are answered in kind', async () => {
  const codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
  for (const code of [...codes, 3000, 3999, 4000, 4999]) {
    const answer = await answersTo([sent(0x88, close(code, 'r'.repeat(123)))]);
    assert.ok(answer.equals(frame(0x88, close(code))), `${code}: ${answer.toString('hex')}`);
  }
  assert.ok((await answersTo([sent(0x88)])).equals(frame(0x88)));
});

test.run();
