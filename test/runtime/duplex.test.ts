// Connections of a loop as Duplexes: Node's http server in every loop's thread.

import { once } from 'node:events';
import http from 'node:http';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { test } from '../hooks.js';
import { answer, connect, gone, portOf, until, workerFile } from './clients.js';

let group: LoopGroup;
test.before(async () => {
  group = await serve({ worker: workerFile('duplex'), loops: 2 });
});
test.after(() => group.close());

const settled = () => until(() => group.stats().open === 0, 'all connections are closed');

async function post(body: string, agent: http.Agent): Promise<string> {
  const request = http.request({ port: portOf(group), host: '127.0.0.1', method: 'POST', agent });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}

test('requests on several connections over two loops', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, i) => post('x'.repeat(i * 10_000), agent)),
  );
  for (const [i, text] of answers.entries())
    assert.match(text, new RegExp(`^${i * 10_000} bytes, ERR_NOT_MOVABLE, from port \\d+$`));
  assert.is(new Set(answers.map((text) => text.split(' ').at(-1))).size, 4, 'with their addresses');
  agent.destroy();
  await settled();
  const { loops, served } = group.stats();
  assert.is(served, 4);
  assert.equal(
    loops.map((loop) => loop.accepted),
    [2, 2],
  );
});

test('a client that has ended is answered all the same, and one that breaks is forgotten', async () => {
  const ended = await connect(group);
  const head = 'POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\n';
  ended.end(`${head}12345`);
  assert.match(await answer(ended), /^HTTP\/1\.1 200 OK/);
  await gone(ended);
  for (let i = 0; i < 10; i++) {
    const broken = await connect(group);
    broken.write(i % 2 ? head : 'nonsense\r\n\r\n');
    if (i % 3) broken.resetAndDestroy();
    else broken.destroy();
  }
  await settled();
  const { accepted, served, open, refused, lost } = group.stats();
  assert.is(accepted, served + open + refused + lost);
  assert.is(lost, 0);
});

test.run();
