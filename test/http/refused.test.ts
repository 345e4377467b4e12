// What is a request and what is not: texts, each with its answer, cut in every way; and the same
// texts to node:http, with every difference and its reason.

import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { HttpRequest, HttpResponse } from '../../src/http.js';
import { BufferEvent, Ev } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { cases, differences } from './request_texts.js';
import { nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();

/** Reads the body, and says what it was. */
async function echo(request: HttpRequest, response: HttpResponse): Promise<void> {
  const body = await request.bytes();
  const trailers = JSON.stringify(request.trailers);
  response.send(`${request.method} ${request.path} ${request.query} ${body} ${trailers}`);
}

const { port, errors } = rig.serve({ request: echo });

for (const [name, { text, expect }] of Object.entries(cases)) {
  test(name, async () => {
    errors.length = 0;
    const answer = await rig.ask(port, text);
    assert.equal(statusesOf(answer), expect, answer);
    if (expect[0] === 200) return;
    assert.match(answer, /\r\nConnection: close\r\n/);
    assert.equal(errors, [`ERR_HTTP_REFUSED ${expect[0]}`]);
  });
}
// ── cut anywhere ──

/** What is answered when the text comes in these pieces, each in a pass of its own. */
async function answered(pieces: string[]): Promise<string> {
  const [near, far] = BufferEvent.pair(rig.base);
  const { server } = pieceServer;
  errorsOfPieces.length = 0;
  server.attach(near);
  let text = '';
  const ended = new Promise<void>((resolve) => {
    far.handlers = {
      read: ({ input }) => {
        text += Buffer.from(input.remove(input.length)).toString('latin1');
      },
      event: (_, { eof }) => eof && resolve(),
    };
  });
  far.enable(Ev.READ);
  for (const piece of pieces) {
    far.write(Buffer.from(piece, 'latin1'));
    await new Promise<void>((resolve) => rig.base.once(-1, Ev.TIMEOUT, () => resolve(), 0));
  }
  await within(PATIENCE_MS, ended, 'the end of the answers');
  far.close();
  return `${text.replace(/Date: .*\r\n/g, '')} ${errorsOfPieces}`;
}
const pieceServer = rig.serve({ request: echo });
const errorsOfPieces = pieceServer.errors;

const LAST = 'GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';
const short = Object.values(cases)
  .map(({ text }) => text + LAST)
  .filter((text) => text.length < 1_000);

test('byte by byte, every text is answered as it is in one piece', async () => {
  for (const text of short.filter((one) => one.length < 300))
    assert.is(await answered([...text]), await answered([text]), JSON.stringify(text));
});

test('cut anywhere, any sequence of them is answered as it is in one piece', async () => {
  const one = fc.constantFrom(...Object.values(cases).map(({ text }) => text));
  const cuts = fc.array(fc.nat(10_000), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 4 }), cuts, async (texts, at) => {
      const text = texts.join('') + LAST;
      const places = [...new Set(at.map((place) => place % text.length))].sort((a, b) => a - b);
      const pieces = [0, ...places].map((from, i) => text.slice(from, places[i]));
      assert.is(await answered(pieces.filter((piece) => piece !== '')), await answered([text]));
    }),
    { numRuns: 150 },
  );
});

// ── Node's own ──

async function nodeServer(): Promise<{ node: http.Server; nodePort: number }> {
  const node = http.createServer(async (request, response) => {
    try {
      for await (const _ of request);
      response.end('all of it');
    } catch {
      response.destroy();
    }
  });
  node.on('connect', (_, socket) => socket.end('HTTP/1.1 501 Not Implemented\r\n\r\n'));
  node.listen(0, '127.0.0.1');
  await once(node, 'listening');
  return { node, nodePort: (node.address() as AddressInfo).port };
}

test('node:http answers the same, but for differences that have a reason', async () => {
  const { node, nodePort } = await nodeServer();
  const found: string[] = [];
  for (const [name, { text, expect }] of Object.entries(cases)) {
    const client = await rig.connect(nodePort);
    client.send(text);
    // It closes what it has refused; of the others, all answers are awaited before the end.
    const count = () => statusesOf(client.text).length;
    // What is too large for us is what Node waits for.
    if (expect[0] !== 413) await client.until(() => count() >= expect.length, name).catch(nothing);
    client.socket.end();
    if (String(statusesOf(await client.all())) !== String(expect)) found.push(name);
  }
  node.close();
  const isListed = (name: string) => name in differences;
  assert.equal(
    found.filter((name) => !isListed(name)),
    [],
    'differences without a reason',
  );
  if (process.version.startsWith('v20.')) assert.equal(found, Object.keys(differences));
});

/** Changes of a byte or two that bring out what a parser is lenient about. */
const NASTY = [
  'a',
  '0',
  '1',
  '-',
  'A: b\r\n',
  'Content-Length: 3\r\n',
  '\r',
  '\n',
  '\0',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '0',
  'a',
  '\r\n',
  '\x7f',
  '\xa0',
  '=',
  '"',
];
const change = fc.record({
  at: fc.nat(1_000),
  remove: fc.nat(1),
  add: fc.constantFrom('', ...NASTY),
});

test('whatever is taken here, node:http finds the same requests in', async () => {
  const seen: string[] = [];
  const { node, nodePort } = await nodeServer();
  node.on('request', ({ method, url }) => seen.push(`${method} ${url}`));
  const served = rig.serve({ request: echo });
  // What is known to be taken here alone is left out.
  const texts = Object.entries(cases)
    .filter(([name, { text, expect }]) => {
      return !(name in differences) && expect[0] === 200 && text.length < 400;
    })
    .map(([, { text }]) => text);
  let taken = 0;
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...texts),
        fc.array(change, { minLength: 1, maxLength: 2 }),
        async (from, changes) => {
          let text = from;
          for (const { at, remove, add } of changes) {
            const place = at % (text.length + 1);
            text = text.slice(0, place) + add + text.slice(place + remove);
          }
          // Where a body ends shows in what is behind it.
          text += LAST;
          seen.length = served.completed.length = 0;
          const statuses = statusesOf(await rig.ask(served.port, text));
          if (statuses.some((status) => status !== 200)) return;
          const { completed } = served;
          // Reasons of `differences`: any token is a method, and a later minor version is 1.1.
          if (completed.some(({ method }) => !http.METHODS.includes(method))) return;
          if (/HTTP\/1\.[2-9]/.test(text)) return;
          // What is in an extension, and ends nothing, is passed over; Node wants it well-formed.
          if (/^[0-9a-f]+;/im.test(text)) return;
          // A tab behind a value is none of it (RFC 9112 section 5); newer Nodes find no chunked then.
          if (/^transfer-encoding:.*\t/im.test(text)) return;
          taken++;
          await rig.ask(nodePort, text);
          const ours = completed.map(({ method, target }) => `${method} ${target}`);
          assert.equal(seen, ours, JSON.stringify(text));
        },
      ),
      { numRuns: 500, seed: 20_261_201 },
    );
  } finally {
    node.close();
  }
  assert.ok(taken >= 5, `${taken} were taken`);
});
test.run();
