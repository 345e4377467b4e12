// What is an answer and what is not: texts, each with what the client makes of it, cut in every way;
// and the same texts to Node's client, with every difference and its reason.

import { once } from 'node:events';
import * as http from 'node:http';
import * as net from 'node:net';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HttpClient, type HttpClientLimits } from '../../src/http.js';
import { BufferEvent, Ev } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { type AnswerCase, answerDifferences, answers } from './answer_texts.js';
import { nothing, useRig } from './rig.js';

const rig = useRig();
const CODES = {
  malformed: 'ERR_HTTP_ANSWER',
  'too large': 'ERR_HTTP_ANSWER_TOO_LARGE',
  ended: 'ERR_HTTP_ABORTED',
};

/** What the client makes of an answer in these pieces, each in a pass of its own, and the end. */
async function madeOf(
  pieces: string[],
  method = 'GET',
  limits: HttpClientLimits = { bodyMax: 100_000 },
): Promise<string> {
  const [near, far] = BufferEvent.pair(rig.base);
  const client = new HttpClient(rig.base, { stream: near, ...limits });
  far.handlers = {};
  far.enable(Ev.READ);
  const outcome = client.request({ method }).then(async (response) => {
    const { status, reason, headers } = response;
    const text = (await response.bytes()).toString('latin1');
    return JSON.stringify([status, text, reason, [...headers], [...response.trailers]]);
  });
  outcome.catch(nothing);
  for (const piece of pieces) {
    far.write(Buffer.from(piece, 'latin1'));
    await new Promise<void>((resolve) => rig.base.once(-1, Ev.TIMEOUT, () => resolve(), 0));
  }
  far.end();
  try {
    return await within(PATIENCE_MS, outcome, 'the outcome');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return `${code} ${message}`;
  } finally {
    client.close();
    far.close();
  }
}

for (const [name, { text, expect, method }] of Object.entries(answers)) {
  test(name, async () => {
    const made = await madeOf(text === '' ? [] : [text], method);
    const [what, why] = expect;
    if (typeof what === 'number') {
      assert.equal(JSON.parse(made).slice(0, 2), [what, why]);
      return;
    }
    assert.match(made, new RegExp(`^${CODES[what]} `));
    assert.ok(made.includes(why), made);
  });
}

test('limits of its own: on the status line, on headers, on a body', async () => {
  const limits = { statusLineMax: 30, headersMax: 50, headerCountMax: 2, bodyMax: 3 };
  const made = async (text: string) => (await madeOf([text], 'GET', limits)).split(' ')[0];
  const OK = 'HTTP/1.1 200 OK\r\n';
  assert.match(await made(`${OK}A: b\r\nC: d\r\n\r\nabc`), /^\[200,"abc"/);
  for (const text of [
    `HTTP/1.1 200 ${'x'.repeat(30)}\r\n\r\n`,
    `${OK}A: ${'b'.repeat(50)}\r\n\r\n`,
    `${OK}${'A: b\r\n'.repeat(3)}\r\n`,
    `${OK}Content-Length: 4\r\n\r\nabcd`,
    `${OK}\r\nabcd`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n`,
  ])
    assert.is(await made(text), CODES['too large'], text);
});

const short = Object.values(answers).filter(({ text }) => text.length < 300);

test('byte by byte, every answer is read as it is in one piece', async () => {
  for (const { text, method } of short)
    assert.is(await madeOf([...text], method), await madeOf([text], method), JSON.stringify(text));
});

test('cut anywhere, every answer is read as it is in one piece', async () => {
  const one = fc.constantFrom<AnswerCase>(...Object.values(answers));
  const cuts = fc.array(fc.nat(200_000), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(one, cuts, async ({ text, method }, at) => {
      const places = [...new Set(at.map((place) => place % (text.length + 1)))];
      places.sort((a, b) => a - b);
      const pieces = [0, ...places].map((from, i) => text.slice(from, places[i]));
      const pieced = await madeOf(
        pieces.filter((piece) => piece !== ''),
        method,
      );
      assert.is(pieced, await madeOf([text], method));
    }),
    { numRuns: 200 },
  );
});

test('a header of many small pieces is not read again for each of them', async () => {
  const text = `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`;
  const before = process.cpuUsage();
  const made = await madeOf([...text]);
  const { user } = process.cpuUsage(before);
  assert.match(made, /^\[200,/);
  assert.ok(user < 5_000_000, `${user} µs`);
});

// ── Node's own ──

/** What Node's client makes of it. */
async function nodeMakes(port: number, method: string): Promise<[number, string] | undefined> {
  const request = http.request({ host: '127.0.0.1', port, method, agent: false });
  return new Promise((resolve) => {
    request.on('error', () => resolve(undefined));
    request.on('upgrade', (_, socket) => {
      socket.destroy();
      resolve([101, '']);
    });
    request.on('response', (response) => {
      let body = '';
      response.setEncoding('latin1');
      response.on('error', () => resolve(undefined));
      response.on('data', (piece) => {
        body += piece;
      });
      response.on('end', () => resolve([response.statusCode as number, body]));
    });
    request.end();
  });
}

test('node:http makes the same of it, but for differences that have a reason', async () => {
  let answer = '';
  const server = net.createServer((socket) => {
    socket.on('error', nothing);
    socket.once('data', () => socket.end(answer, 'latin1'));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const found: string[] = [];
  for (const [name, { text, expect, method = 'GET' }] of Object.entries(answers)) {
    answer = text;
    const made = await within(PATIENCE_MS, nodeMakes(port, method), name);
    const expected = typeof expect[0] === 'number' ? expect : undefined;
    if (String(made) !== String(expected)) found.push(name);
  }
  server.close();
  const unexplained = found.filter((name) => !(name in answerDifferences));
  assert.equal(unexplained, [], 'differences without a reason');
  if (process.version.startsWith('v20.')) assert.equal(found, Object.keys(answerDifferences));
});

test.run();
