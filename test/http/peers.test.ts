// Clients that others wrote, against our server: undici, curl and h2load.

import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { Client, Pool } from 'undici';
import * as assert from 'uvu/assert';
import type { HttpRequest, HttpResponse } from '../../src/http.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { useRig } from './rig.js';

const rig = useRig();
const run = promisify(execFile);
const has = (command: string) => spawnSync(command, ['--version']).status === 0;

const { port, errors } = rig.serve({
  async request(request: HttpRequest, response: HttpResponse) {
    response.set('Method', request.method);
    if (request.path === '/chunks') {
      response.write('one');
      response.end('two', { Checksum: 'abc' });
    } else if (request.path === '/none') {
      response.status = 204;
      response.send();
    } else if (request.path === '/large') {
      response.send('x'.repeat(1_000_000));
    } else if (request.hasBody) {
      for await (const piece of request) if (!response.write(piece)) await response.drained();
      response.end();
    } else response.send('hello');
  },
});
const url = `http://127.0.0.1:${port}`;
test.before.each(() => {
  errors.length = 0;
});
test.after.each(() => assert.equal(errors, []));

test('undici: a client that pipelines', async () => {
  const client = new Client(url, { pipelining: 10 });
  const paths = ['/', '/chunks', '/none', '/large', '/'];
  const asked = paths.map(async (path) => {
    const { statusCode, body } = await client.request({ path, method: 'GET' });
    return [statusCode, (await body.text()).length];
  });
  assert.equal(await within(PATIENCE_MS, Promise.all(asked), 'the answers'), [
    ...[
      [200, 5],
      [200, 6],
      [204, 0],
      [200, 1_000_000],
      [200, 5],
    ],
  ]);
  const { trailers, body } = await client.request({ path: '/chunks', method: 'GET' });
  await body.dump();
  assert.equal(trailers, { checksum: 'abc' });
  const head = await client.request({ path: '/large', method: 'HEAD' });
  assert.is(head.headers['content-length'], '1000000');
  await head.body.dump();
  await client.close();
});

test('undici: many connections, bodies of every kind', async () => {
  const pool = new Pool(url, { connections: 8 });
  async function* parts() {
    for (let i = 0; i < 50; i++) yield Buffer.alloc(1_000, 'p');
  }
  const bodies = [Buffer.alloc(100_000, 'b'), 'text', parts(), Buffer.alloc(1, 'c')];
  const sizes = await within(
    PATIENCE_MS,
    Promise.all(
      bodies.map(async (body) => {
        const answer = await pool.request({ path: '/', method: 'POST', body: body as never });
        return (await answer.body.text()).length;
      }),
    ),
    'the answers',
  );
  assert.equal(sizes, [100_000, 4, 50_000, 1]);
  const asked = Array.from({ length: 200 }, async () => {
    const { body } = await pool.request({ path: '/', method: 'GET' });
    return body.text();
  });
  assert.equal(new Set(await within(PATIENCE_MS, Promise.all(asked), 'all')), new Set(['hello']));
  await pool.close();
});

test('curl: bodies, chunks, Expect, several on one connection', async () => {
  if (!has('curl')) {
    console.log('skipped: curl is not installed');
    return;
  }
  const curl = async (...given: string[]) =>
    (await run('curl', ['-sS', '--max-time', '20', ...given], { maxBuffer: 1 << 24 })).stdout;
  assert.is(await curl(url), 'hello');
  assert.is(await curl(`${url}/chunks`), 'onetwo');
  assert.is((await curl(`${url}/large`)).length, 1_000_000);
  assert.match(await curl('-I', url), /^HTTP\/1\.1 200 OK\r\n/);
  assert.is(await curl('-0', url), 'hello');
  assert.is(await curl('-d', 'body', url), 'body');
  assert.is(await curl('-d', 'body', '-H', 'Transfer-Encoding: chunked', url), 'body');
  assert.is(await curl('-d', 'body', '-H', 'Expect: 100-continue', url), 'body');
  const count = '%{num_connects} ';
  assert.is(await curl('-w', count, url, url, url), 'hello1 hello0 hello0 ');
  const told = await curl('-o', '/dev/null', '-w', '%{http_code}', `${url}/none`);
  assert.is(told, '204');
});

test('h2load in HTTP/1.1: all requests succeed', async () => {
  if (!has('h2load')) {
    console.log('skipped: h2load is not installed');
    return;
  }
  const { stdout } = await run('h2load', ['--h1', '-n', '2000', '-c', '20', '-m', '4', url]);
  assert.match(stdout, /2000 succeeded, 0 failed, 0 errored, 0 timeout/);
  assert.match(stdout, /status codes: 2000 2xx/);
});

test.run();
