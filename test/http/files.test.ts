// files() and sendFile(): paths and their tricks, ranges, conditions, what is compressed already.

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as assert from 'uvu/assert';
import { dateOf } from '../../src/http/conditions.js';
import { type FilesOptions, files, Router, sendFile } from '../../src/http.js';
import { native } from '../../src/native.js';
import { codeOf } from '../event/support.js';
import { test } from '../hooks.js';
import { type Answer, HOST, type Served, useRig } from './rig.js';

/** The user that nothing belongs to. */
const NOBODY = 65_534;

const rig = useRig();
const top = mkdtempSync(join(tmpdir(), 'multiloop-files-'));
const folder = join(top, 'site');
const put = (name: string, text: string | Buffer = name, ageS = 60) => {
  const path = join(folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  const then = Date.now() / 1_000 - ageS;
  utimesSync(path, then, then);
};
const digits = '0123456789'.repeat(10);

test.before(() => {
  put('index.html', '<h1>home</h1>');
  put('a.txt', digits);
  put('empty.txt', '');
  put('no extension');
  put('ümläut.txt');
  put('sub/index.html', 'sub home');
  put('sub/deep/page.html');
  put('bare/page.html');
  put('.hidden');
  put('.well/known.txt');
  put('app.js', 'plain');
  put('app.js.br', 'brotli', 50);
  put('app.js.gz', 'gzipped', 50);
  put('app.js.zst', 'zstandard', 50);
  put('old.css', 'new plain', 10);
  put('old.css.gz', 'old gzipped', 60);
  put('back\\slash.txt');
  put('what.special');
  writeFileSync(join(top, 'secret.txt'), 'secret');
  mkdirSync(join(top, 'outside'));
  writeFileSync(join(top, 'outside', 'secret.txt'), 'secret');
  symlinkSync('../secret.txt', join(folder, 'out-file'));
  symlinkSync('../outside', join(folder, 'out-folder'));
  symlinkSync(join(top, 'secret.txt'), join(folder, 'out-absolute'));
  symlinkSync('/proc/self/fd', join(folder, 'magic'));
  symlinkSync('loop', join(folder, 'loop'));
  symlinkSync('nowhere', join(folder, 'broken'));
  symlinkSync('a.txt', join(folder, 'in-file'));
  symlinkSync('../sub', join(folder, 'bare', 'in-folder'));
  execFileSync('mkfifo', [join(folder, 'fifo')]);
});
test.after(() => rmSync(top, { recursive: true, force: true }));

const serve = (options: FilesOptions = {}) => rig.serve({ request: files(folder, options) });
let plain: Served;
test.before(() => {
  plain = serve({ cacheMs: 0 });
});

async function ask(
  { port }: Served,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  const client = await rig.connect(port);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  client.send(`${method} ${path} HTTP/1.1\r\n${HOST}${lines.join('')}\r\n`);
  const answer = await client.answer(method === 'HEAD');
  client.socket.destroy();
  return answer;
}

// ── paths ──

const found: [path: string, body: string, type: string][] = [
  ['/', '<h1>home</h1>', 'text/html; charset=utf-8'],
  ['/?a=/../b', '<h1>home</h1>', 'text/html; charset=utf-8'],
  ['/index.html', '<h1>home</h1>', 'text/html; charset=utf-8'],
  ['/a.txt', digits, 'text/plain; charset=utf-8'],
  ['/%61.t%78t', digits, 'text/plain; charset=utf-8'],
  ['/empty.txt', '', 'text/plain; charset=utf-8'],
  ['/no%20extension', 'no extension', 'application/octet-stream'],
  [
    '/%C3%BCml%C3%A4ut.txt',
    Buffer.from('ümläut.txt').toString('latin1'),
    'text/plain; charset=utf-8',
  ],
  ['/sub/', 'sub home', 'text/html; charset=utf-8'],
  ['/sub/deep/page.html', 'sub/deep/page.html', 'text/html; charset=utf-8'],
  ['http://a/a.txt', digits, 'text/plain; charset=utf-8'],
  ['/app.js.gz', 'gzipped', 'application/gzip'],
];
for (const [path, body, type] of found)
  test(`GET ${path} is found`, async () => {
    const answer = await ask(plain, path);
    assert.equal([answer.status, answer.body], [200, body]);
    assert.is(answer.headers['content-type'], type);
    assert.is(answer.headers['accept-ranges'], 'bytes');
    assert.is(answer.headers['content-length'], String(body.length));
  });

const tricks: [path: string, status: number][] = [
  ['/../secret.txt', 404],
  ['/sub/../../secret.txt', 404],
  ['/sub/../a.txt', 404],
  ['/%2e%2e/secret.txt', 404],
  ['/%2E%2e%2Fsecret.txt', 404],
  ['/..%2fsecret.txt', 404],
  ['/sub%2fdeep%2fpage.html', 404],
  ['/sub/..%5c..%5csecret.txt', 404],
  ['/..\\secret.txt', 404],
  ['/back\\slash.txt', 404],
  ['/back%5Cslash.txt', 404],
  ['/%252e%252e/secret.txt', 404],
  ['/.%00./secret.txt', 400],
  ['/a.txt%00.html', 400],
  ['/%', 400],
  ['/%zz', 400],
  ['/%c0%ae%c0%ae/secret.txt', 400],
  ['/%e0%80%ae/secret.txt', 400],
  ['/./a.txt', 404],
  ['/%2e/a.txt', 404],
  ['//a.txt', 404],
  ['//sub', 404],
  ['///', 404],
  ['/sub//index.html', 404],
  ['/a.txt/', 404],
  ['/a.txt/b', 404],
  ['/nothing', 404],
  ['/nothing/', 404],
  [`/${'x'.repeat(300)}`, 404],
  [`/${'x/'.repeat(3_000)}`, 404],
  ['/bare/', 404],
  ['/.hidden', 404],
  ['/.well/known.txt', 404],
  ['/out-file', 404],
  ['/out-folder/secret.txt', 404],
  ['/out-folder', 404],
  ['/out-absolute', 404],
  ['/magic/0', 404],
  ['/loop', 404],
  ['/broken', 404],
  ['/fifo', 404],
  ['/fifo/', 404],
];
for (const [path, status] of tricks)
  test(`GET ${path.slice(0, 40)} is refused`, async () => {
    const answer = await ask(plain, path);
    assert.is(answer.status, status);
    assert.not.match(answer.body, /secret|0123/);
  });

test('a directory without its slash is sent to the one with it, on this host', async () => {
  for (const [path, location] of [
    ['/sub', '/sub/'],
    ['/sub?q=1&r=/', '/sub/?q=1&r=/'],
    ['/sub/deep', '/sub/deep/'],
    ['/%73ub', '/%73ub/'],
  ]) {
    const answer = await ask(plain, path);
    assert.equal([answer.status, answer.headers.location], [301, location]);
  }
});

test('links that stay inside are followed where the kernel can keep them there', async () => {
  const follows = native.fileFollows();
  for (const path of ['/in-file', '/bare/in-folder/index.html'])
    assert.is((await ask(plain, path)).status, follows ? 200 : 404);
  const without = serve({ links: false });
  for (const path of ['/in-file', '/bare/in-folder/index.html'])
    assert.is((await ask(without, path)).status, 404);
});

test('names that begin with a dot, as it was asked for', async () => {
  const refuse = serve({ dotfiles: 'refuse' });
  const open = serve({ dotfiles: 'serve' });
  for (const path of ['/.hidden', '/.well/known.txt']) {
    assert.is((await ask(refuse, path)).status, 403);
    assert.is((await ask(open, path)).status, 200);
    for (const one of [refuse, open]) assert.is((await ask(one, '/../secret.txt')).status, 404);
  }
});

test('what may not be read is refused as it was asked for', async () => {
  put('private/a.txt');
  put('secret/page.html');
  chmodSync(join(folder, 'private'), 0o000);
  chmodSync(join(folder, 'secret', 'page.html'), 0o000);
  // Nothing is refused to root, so that is somebody else for a while.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    chmodSync(top, 0o755);
    process.seteuid?.(NOBODY);
  }
  try {
    assert.is((await ask(plain, '/a.txt')).status, 200);
    assert.is((await ask(plain, '/private/a.txt')).status, 403);
    assert.is((await ask(plain, '/private/')).status, 403);
    assert.is((await ask(plain, '/secret/page.html')).status, 403);
    assert.is((await ask(serve({ denied: 404 }), '/private/a.txt')).status, 404);
    assert.is((await ask(serve({ denied: 404 }), '/secret/page.html')).status, 404);
  } finally {
    if (isRoot) process.seteuid?.(0);
    chmodSync(join(folder, 'private'), 0o700);
  }
});

test('a socket in the folder is no file', async () => {
  const server = createServer().listen(join(folder, 'socket'));
  assert.is((await ask(plain, '/socket')).status, 404);
  server.close();
});

test('a directory that is swapped for a link that leads out never leads out', async () => {
  put('swap/secret.txt', 'inside');
  symlinkSync('../outside', join(folder, 'swap-link'));
  const racer = swapping();
  try {
    const client = await rig.connect(plain.port);
    const counts = { 200: 0, 404: 0 };
    for (let i = 0; i < 400; i++) {
      client.send(`GET /swap/secret.txt HTTP/1.1\r\n${HOST}\r\n`);
      const { status, body } = await client.answer();
      counts[status as 200 | 404]++;
      assert.is(body, status === 200 ? 'inside' : 'Not found.\n');
    }
    client.socket.destroy();
    assert.is(counts[200] + counts[404], 400);
    assert.ok(counts[200] > 0);
  } finally {
    racer.stop();
  }
});
/** Swaps and swaps back, in a thread of its own, as fast as it can. */
function swapping(): { stop(): void } {
  const flag = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(
    `const { renameSync } = require('node:fs');
     const { workerData: { flag, folder } } = require('node:worker_threads');
     const at = (name) => folder + '/' + name;
     while (Atomics.load(flag, 0) === 0) {
       renameSync(at('swap'), at('swap-kept'));
       renameSync(at('swap-link'), at('swap'));
       renameSync(at('swap'), at('swap-link'));
       renameSync(at('swap-kept'), at('swap'));
     }
     Atomics.store(flag, 1, 1);
     Atomics.notify(flag, 1);`,
    { eval: true, workerData: { flag, folder } },
  );
  worker.unref();
  return {
    stop() {
      Atomics.store(flag, 0, 1);
      Atomics.wait(flag, 1, 0, 20_000);
    },
  };
}

// ── methods ──

test('HEAD has what GET has, without the body', async () => {
  const get = await ask(plain, '/a.txt');
  const head = await ask(plain, '/a.txt', { Range: 'bytes=0-1' }, 'HEAD');
  const told = ({ headers }: Answer) => ({ ...headers, date: '' });
  assert.equal(told(head), told(get));
  assert.is((await ask(plain, '/nothing', {}, 'HEAD')).status, 404);
});

test('other methods are refused, with what is allowed', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'get']) {
    const answer = await ask(plain, '/a.txt', {}, method);
    assert.equal([answer.status, answer.headers.allow], [405, 'GET, HEAD']);
  }
});

// ── ranges ──

const ranges: [range: string, status: number, what?: string][] = [
  ['bytes=0-0', 206, '0-0'],
  ['bytes=0-9', 206, '0-9'],
  ['bytes=95-', 206, '95-99'],
  ['bytes=95-1000', 206, '95-99'],
  ['bytes=-5', 206, '95-99'],
  ['bytes=99-99', 206, '99-99'],
  ['BYTES = 1-2', 206, '1-2'],
  ['bytes= 1-2 ', 206, '1-2'],
  ['bytes=,1-2,,', 206, '1-2'],
  ['bytes=0-4,5-9', 206, '0-9'],
  ['bytes=5-9,0-7', 206, '0-9'],
  ['bytes=1-2,100-', 206, '1-2'],
  ['bytes=0-99', 200],
  ['bytes=0-', 200],
  ['bytes=-100', 200],
  ['bytes=-1000', 200],
  ['bytes=0-60,40-99', 200],
  ['bytes=9-5', 200],
  ['bytes=a-b', 200],
  ['bytes=-', 200],
  ['bytes=', 200],
  ['bytes', 200],
  ['bytes=1', 200],
  ['bytes=1-2-3', 200],
  ['bytes=+1-2', 200],
  ['bytes=0x1-2', 200],
  ['lines=0-1', 200],
  [`bytes=${'9'.repeat(40)}-`, 200],
  [`bytes=${Array.from({ length: 17 }, (_, i) => `${i * 3}-${i * 3}`).join(',')}`, 200],
  ['bytes=100-', 416],
  ['bytes=100-200', 416],
  ['bytes=-0', 416],
  ['bytes=200-,300-', 416],
];
for (const [range, status, what] of ranges)
  test(`Range: ${range.slice(0, 40)} is ${status}`, async () => {
    const { headers, body, ...answer } = await ask(plain, '/a.txt', { Range: range });
    assert.is(answer.status, status);
    if (status === 200) assert.equal([headers['content-range'], body], [undefined, digits]);
    else if (status === 416) assert.is(headers['content-range'], 'bytes */100');
    else {
      const [first, last] = (what as string).split('-').map(Number);
      assert.is(headers['content-range'], `bytes ${what}/100`);
      assert.is(body, digits.slice(first, last + 1));
    }
  });

test('ranges of a file without bytes', async () => {
  const tried = async (range: string) => (await ask(plain, '/empty.txt', { Range: range })).status;
  assert.equal(await Promise.all(['bytes=0-', 'bytes=-1', 'bytes=-0'].map(tried)), [416, 200, 416]);
});

test('several ranges are one body of parts, in the order that was asked for', async () => {
  const range = 'bytes=90-94, 0-1,-3';
  const { status, headers, body } = await ask(plain, '/a.txt', { Range: range });
  assert.is(status, 206);
  const boundary = headers['content-type'].match(/^multipart\/byteranges; boundary=(\w+)$/)?.[1];
  const part = (what: string, bytes: string) =>
    `--${boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
    `Content-Range: bytes ${what}/100\r\n\r\n${bytes}\r\n`;
  const parts = [part('90-94', '01234'), part('0-1', '01'), part('97-99', '789')];
  assert.is(body, `${parts.join('')}--${boundary}--\r\n`);
  assert.is(headers['content-range'], undefined);
});

// ── conditions ──

test('conditions, in the order of RFC 9110 section 13.2.2', async () => {
  const { headers } = await ask(plain, '/a.txt');
  const { etag } = headers;
  const modified = headers['last-modified'];
  assert.match(etag, /^"[\da-z-]+"$/);
  const at = dateOf(modified) as number;
  assert.is(at, Math.floor(statSync(join(folder, 'a.txt')).mtimeMs / 1_000) * 1_000);
  const dated = (difference: number) => new Date(at + difference).toUTCString();
  const [before, after] = [dated(-1_000), dated(1_000)];
  const weak = `W/${etag}`;
  const table: [headers: Record<string, string>, status: number][] = [
    [{ 'If-None-Match': etag }, 304],
    [{ 'If-None-Match': weak }, 304],
    [{ 'If-None-Match': `"x", ${weak}` }, 304],
    [{ 'If-None-Match': `"a,b" ,,\t${etag}` }, 304],
    [{ 'If-None-Match': '*' }, 304],
    [{ 'If-None-Match': '"x"' }, 200],
    [{ 'If-None-Match': `nonsense, ${etag}` }, 200],
    [{ 'If-None-Match': `"x"${etag}` }, 200],
    [{ 'If-None-Match': '"x"', 'If-Modified-Since': after }, 200],
    [{ 'If-Modified-Since': modified }, 304],
    [{ 'If-Modified-Since': after }, 304],
    [{ 'If-Modified-Since': before }, 200],
    [{ 'If-Modified-Since': 'yesterday' }, 200],
    [{ 'If-Modified-Since': modified.replace('GMT', 'CET') }, 200],
    [{ 'If-Match': etag }, 200],
    [{ 'If-Match': '*' }, 200],
    [{ 'If-Match': `"x", ${etag}` }, 200],
    [{ 'If-Match': weak }, 412],
    [{ 'If-Match': '"x"' }, 412],
    [{ 'If-Match': '"x"', 'If-None-Match': etag }, 412],
    [{ 'If-Match': etag, 'If-None-Match': etag }, 304],
    [{ 'If-Match': etag, 'If-Unmodified-Since': before }, 200],
    [{ 'If-Unmodified-Since': modified }, 200],
    [{ 'If-Unmodified-Since': before }, 412],
    [{ 'If-Unmodified-Since': 'nonsense' }, 200],
    [{ 'If-Unmodified-Since': before, 'If-None-Match': etag }, 412],
    [{ Range: 'bytes=0-1', 'If-Range': etag }, 206],
    [{ Range: 'bytes=0-1', 'If-Range': weak }, 200],
    [{ Range: 'bytes=0-1', 'If-Range': '"x"' }, 200],
    [{ Range: 'bytes=0-1', 'If-Range': modified }, 206],
    [{ Range: 'bytes=0-1', 'If-Range': after }, 200],
    [{ Range: 'bytes=0-1', 'If-Range': before }, 200],
    [{ Range: 'bytes=200-', 'If-Range': '"x"' }, 200],
    [{ Range: 'bytes=0-1', 'If-None-Match': etag }, 304],
    [{ Range: 'bytes=200-', 'If-None-Match': etag }, 304],
    [{ Range: 'bytes=0-1', 'If-Match': '"x"' }, 412],
  ];
  for (const [given, status] of table) {
    const answer = await ask(plain, '/a.txt', given);
    assert.is(answer.status, status, JSON.stringify(given));
    if (status === 304) {
      assert.is(answer.headers.etag, etag);
      assert.is(answer.headers['content-length'], undefined);
      assert.is(answer.headers['content-type'], undefined);
    }
  }
});

test('a file that was written a moment ago has a weak tag, which no range depends on', async () => {
  put('fresh.txt', digits, 0);
  const { headers } = await ask(plain, '/fresh.txt');
  assert.match(headers.etag, /^W\/"/);
  const ask206 = { Range: 'bytes=0-1', 'If-Range': headers.etag };
  assert.is((await ask(plain, '/fresh.txt', ask206)).status, 200);
  assert.is((await ask(plain, '/fresh.txt', { 'If-None-Match': headers.etag })).status, 304);
  put('fresh.txt', digits, -3_600);
  const ahead = await ask(plain, '/fresh.txt');
  assert.ok((dateOf(ahead.headers['last-modified']) as number) <= Date.now());
});

test('dates are read in all three forms, and nothing else', () => {
  const at = Date.UTC(1994, 10, 6, 8, 49, 37);
  for (const text of [
    'Sun, 06 Nov 1994 08:49:37 GMT',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
  ])
    assert.is(dateOf(text), at);
  for (const text of [
    '1994-11-06T08:49:37Z',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 25:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37',
    '',
    '784111777',
  ])
    assert.is(dateOf(text), undefined, text);
});

// ── encodings ──

const encodings: [header: string | undefined, encoding: string | undefined][] = [
  [undefined, undefined],
  ['', undefined],
  ['identity', undefined],
  ['br', 'br'],
  ['gzip', 'gzip'],
  ['x-gzip', 'gzip'],
  ['zstd', 'zstd'],
  ['GZIP', 'gzip'],
  ['gzip, deflate, br, zstd', 'br'],
  ['gzip, zstd', 'zstd'],
  ['br;q=0.5, gzip;q=0.8', 'gzip'],
  ['br;q=0.5, gzip ; q=0.5', 'br'],
  ['br;q=0, gzip', 'gzip'],
  ['br;q=0, *', 'zstd'],
  ['*', 'br'],
  ['*;q=0', undefined],
  ['gzip;q=0', undefined],
  ['identity, gzip;q=0.5', undefined],
  ['identity;q=0.5, gzip', 'gzip'],
  ['gzip;q=2', undefined],
  ['deflate', undefined],
];
const bodies: Record<string, string> = { br: 'brotli', gzip: 'gzipped', zstd: 'zstandard' };
for (const [header, encoding] of encodings)
  test(`Accept-Encoding: ${header ?? 'none'} gets ${encoding ?? 'the plain file'}`, async () => {
    const given = header === undefined ? {} : { 'Accept-Encoding': header };
    const { headers, body } = await ask(plain, '/app.js', given as Record<string, string>);
    assert.is(headers['content-encoding'], encoding);
    assert.is(body, encoding === undefined ? 'plain' : bodies[encoding]);
    assert.is(headers.vary, 'Accept-Encoding');
    assert.is(headers['content-type'], 'text/javascript; charset=utf-8');
  });

test('each encoding has a tag of its own, and ranges of its own bytes', async () => {
  const tags = await Promise.all(
    ['', 'br', 'gzip'].map(async (name) => {
      const { headers } = await ask(plain, '/app.js', { 'Accept-Encoding': name });
      return headers.etag;
    }),
  );
  assert.is(new Set(tags).size, 3);
  const given = { 'Accept-Encoding': 'br', 'If-None-Match': tags[1] };
  const unchanged = await ask(plain, '/app.js', given);
  assert.equal([unchanged.status, unchanged.headers.vary], [304, 'Accept-Encoding']);
  const other = { 'Accept-Encoding': 'gzip', 'If-None-Match': tags[1] };
  assert.is((await ask(plain, '/app.js', other)).status, 200);
  const part = await ask(plain, '/app.js', { 'Accept-Encoding': 'br', Range: 'bytes=2-3' });
  assert.equal([part.status, part.body, part.headers['content-range']], [206, 'ot', 'bytes 2-3/6']);
});

test('what is older than its file, or not asked for, is not sent', async () => {
  const old = await ask(plain, '/old.css', { 'Accept-Encoding': 'gzip' });
  assert.equal([old.body, old.headers.vary], ['new plain', undefined]);
  const some = serve({ compressed: ['gzip'] });
  const answer = await ask(some, '/app.js', { 'Accept-Encoding': 'br, gzip;q=0.1' });
  assert.is(answer.body, 'gzipped');
  const none = await ask(serve({ compressed: [] }), '/app.js', { 'Accept-Encoding': 'br' });
  assert.equal([none.body, none.headers.vary], ['plain', undefined]);
});

// ── options, and other ways in ──

test('types, Cache-Control, index and what answers instead of 404', async () => {
  const served = serve({
    types: { special: 'x/special' },
    cacheControl: (path) => (path.endsWith('.txt') ? 'max-age=60' : undefined),
    index: ['nothing.html', 'page.html'],
    notFound: (_, response) => response.send('instead'),
  });
  const special = await ask(served, '/what.special');
  assert.equal(
    [special.headers['content-type'], special.headers['cache-control']],
    ['x/special', undefined],
  );
  const text = await ask(served, '/a.txt');
  assert.is(text.headers['cache-control'], 'max-age=60');
  const kept = await ask(served, '/a.txt', { 'If-None-Match': text.headers.etag });
  assert.is(kept.headers['cache-control'], 'max-age=60');
  assert.is((await ask(served, '/bare/')).body, 'bare/page.html');
  assert.is((await ask(served, '/nothing')).body, 'instead');
  const all = await ask(serve({ cacheControl: 'no-cache' }), '/a.txt');
  assert.is(all.headers['cache-control'], 'no-cache');
});

test('in a router, with a prefix, and within fetch', async () => {
  const site = files(pathToFileURL(folder));
  const router = new Router().get('/static/*', site);
  const routed = rig.serve({ request: router.handler });
  const prefixed = rig.serve({ request: files(folder, { prefix: '/static/' }) });
  const fetched = rig.serve({
    fetch(web, { request, response }) {
      if (web.url.endsWith('/hello')) return new Response('hello');
      files(folder, { prefix: '/static' })(request, response);
      return undefined;
    },
  });
  for (const served of [routed, prefixed, fetched]) {
    assert.is((await ask(served, '/static/sub/deep/page.html')).body, 'sub/deep/page.html');
    assert.is((await ask(served, '/static/')).body, '<h1>home</h1>');
    assert.is((await ask(served, '/static/sub')).headers.location, '/static/sub/');
    assert.is((await ask(served, '/static/..%2f..%2fsecret.txt')).status, 404);
    assert.is((await ask(served, '/static/sub%2fdeep/page.html')).status, 404);
    assert.is((await ask(served, '/a.txt')).status, 404);
  }
  assert.is((await ask(prefixed, '/static')).headers.location, '/static/');
  assert.is((await ask(fetched, '/hello')).body, 'hello');
});

test('sendFile() answers with one file, or a descriptor', async () => {
  const served = rig.serve({
    request(request, response) {
      if (request.path === '/fd') {
        const fd = openSync(join(folder, 'a.txt'), 'r');
        sendFile(request, response, fd, { type: 'x/y' });
      } else if (request.path === '/fifo') sendFile(request, response, join(folder, 'fifo'));
      else sendFile(request, response, join(top, 'secret.txt'), { cacheControl: 'private' });
    },
  });
  const part = await ask(served, '/', { Range: 'bytes=1-2' });
  assert.equal([part.status, part.body, part.headers['cache-control']], [206, 'ec', 'private']);
  const fd = await ask(served, '/fd');
  assert.equal([fd.body, fd.headers['content-type']], [digits, 'x/y']);
  assert.is((await ask(served, '/', {}, 'POST')).status, 405);
  assert.is((await ask(served, '/fifo')).status, 500);
  assert.equal(served.errors, ['ERR_INVALID_ARG_VALUE']);
});

test('wrong options are refused when the handler is made', () => {
  const code = (options: unknown) => codeOf(() => files(folder, options as FilesOptions));
  assert.is(code(null), 'ERR_INVALID_ARG_TYPE');
  assert.is(code({ index: 'index.html' }), 'ERR_INVALID_ARG_TYPE');
  assert.is(code({ index: ['../x'] }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ dotfiles: 'allow' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ denied: 500 }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ links: 1 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(code({ compressed: ['deflate'] }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ rangesMax: -1 }), 'ERR_OUT_OF_RANGE');
  assert.is(code({ cacheFiles: 1 }), 'ERR_OUT_OF_RANGE');
  assert.is(code({ cacheMs: -1 }), 'ERR_OUT_OF_RANGE');
  assert.is(code({ cacheControl: 'a\nb' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ types: { a: 1 } }), 'ERR_INVALID_ARG_TYPE');
  assert.is(code({ prefix: 'static' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(code({ notFound: 1 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(
    codeOf(() => files(join(top, 'nothing'))),
    'ENOENT',
  );
  assert.is(
    codeOf(() => files(join(top, 'secret.txt'))),
    'ENOTDIR',
  );
  assert.is(
    codeOf(() => files('')),
    'ERR_INVALID_ARG_VALUE',
  );
});

test.run();
