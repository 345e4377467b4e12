// Heads of answers, byte for byte: what is kept from one answer for the next must not be seen.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HOST, useRig } from './rig.js';

const rig = useRig();

interface Wanted {
  headers: [name: string, value: string | number][];
  body: string | Buffer;
  status?: number;
}
let wanted: Wanted[] = [];
const { port } = rig.serve({
  request(_, response) {
    const { headers, body, status = 200 } = wanted.shift() as Wanted;
    response.status = status;
    for (const [name, value] of headers) response.append(name, value);
    response.send(body);
  },
});

/** Asks once for each, pipelined; every answer has to be exactly this. */
async function check(all: Wanted[]): Promise<void> {
  wanted = [...all];
  const client = await rig.connect(port);
  for (let i = 0; i < all.length; i++) client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
  for (const { headers, body, status = 200 } of all) {
    const answer = await client.answer();
    const bytes = Buffer.from(body);
    const typed = [...headers];
    const isText = typeof body === 'string' && body !== '';
    if (isText && !headers.some(([name]) => name.toLowerCase() === 'content-type'))
      typed.push(['Content-Type', 'text/plain; charset=utf-8']);
    const lines = typed.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const [first, date, ...rest] = answer.head.split('\r\n');
    assert.is(first, `HTTP/1.1 ${status} ${status === 200 ? 'OK' : 'Not Found'}`);
    assert.match(date, /^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/);
    assert.is(rest.join('\r\n'), `${lines}Content-Length: ${bytes.length}\r\n\r\n`);
    assert.is(answer.body, bytes.toString('latin1'));
  }
}

const one = (name: string, value: string | number): Wanted => ({
  headers: [[name, value]],
  body: 'x',
});

test('values that repeat, alternate, and look like the last one', async () => {
  const values = ['a', 'a', 'a', 'b', 'a', 'b', 'b', '', '', 'b', 7, 7, '7', 'Zoë', 'Zoë', 'Zoé'];
  await check(values.map((value) => one('X-One', value)));
  // The same at every place that is compared first, and then one that is long.
  const alike = ['"abcdef"', '"abcdef"', '"abcxef"', '"abcxef"', '"axcdef"', '"abcdef"'];
  await check(alike.map((value) => one('ETag', value)));
  const long = ['l'.repeat(128), 'l'.repeat(128), 'l'.repeat(129), 'l'.repeat(129), 'l'];
  await check(long.map((value) => one('X-Long', value)));
});

test('a name in several spellings, with the same value', async () => {
  const names = ['X-Name', 'x-name', 'X-NAME', 'X-Name', 'x-name', 'X-NAME'];
  await check(names.map((name) => one(name, 'same')));
  const all = names.map((name): [string, string] => [name, 'same']);
  await check([
    { headers: all, body: '' },
    { headers: all.slice(3), body: 'b', status: 404 },
  ]);
});

test('more names than are kept, and longer ones', async () => {
  const names = Array.from({ length: 300 }, (_, i) => `X-Name-${i}`);
  for (let times = 0; times < 3; times++)
    await check([{ headers: names.map((name, i) => [name, `${i}`]), body: 'b' }]);
  const name = `X-${'n'.repeat(200)}`;
  await check([one(name, 'v'), one(name, 'v'), one(name, 'w')]);
});

test('bodies of every length that is treated differently', async () => {
  const lengths = [0, 1, 9, 10, 31, 32, 33, 99, 100, 999, 1_000, 4_095, 4_096, 9_999, 10_000];
  const around = [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 65_536, 99_999, 100_000];
  const all = [...lengths, ...around];
  await check(all.map((length) => ({ headers: [], body: 'x'.repeat(length) })));
  await check(all.map((length) => ({ headers: [], body: 'ö'.repeat(length) })));
  await check(all.map((length) => ({ headers: [['A', 'ü']], body: `€${'y'.repeat(length)}` })));
  await check(all.map((length) => ({ headers: [], body: Buffer.alloc(length, 'z') })));
});

test('a head that is larger than a slab has room for', async () => {
  const headers = Array.from({ length: 900 }, (_, i): [string, string] => [
    `X-Large-${i % 10}`,
    `${i}-`.repeat(60),
  ]);
  const body = '€'.repeat(5_000);
  await check([
    { headers: [], body: 'before' },
    { headers, body },
    { headers: [], body: 'after' },
  ]);
});

test.run();
