// The ready-made http worker with a folder, its help, and what goes on through a reload.

import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { WebSocket } from 'ws';
import { test } from '../hooks.js';
import { Cli, cleanUp, exchange, run, scratch } from './cli.js';
import { events, get, statuses } from './http_clients.js';

test.after(cleanUp);

interface Status {
  loops: { generation: number }[];
}

// ── a folder ──

test('with a folder its files are served, before everything else', async () => {
  const folder = scratch('site');
  mkdirSync(`${folder}/sub`, { recursive: true });
  writeFileSync(`${folder}/index.html`, '<h1>mine</h1>');
  writeFileSync(`${folder}/sub/a.txt`, '0123456789');
  writeFileSync(`${folder}/sub/a.txt.gz`, 'packed');
  writeFileSync(`${folder}/loop.json`, '"mine"');
  writeFileSync(scratch('outside.txt', 'secret'), 'secret');
  const site = new Cli(['serve', 'http', 'site', '--port', '0', '--loops', '2']);
  const where = await site.port();
  assert.match(site.stdout, /http site on http:/);
  const at = `http://127.0.0.1:${where}`;
  const home = await fetch(at);
  assert.equal([home.status, await home.text()], [200, '<h1>mine</h1>']);
  assert.is(home.headers.get('content-type'), 'text/html; charset=utf-8');
  const part = await exchange(
    where,
    get('/sub/a.txt', 'Range: bytes=2-4\r\nConnection: close\r\n'),
  );
  assert.match(part, /^HTTP\/1.1 206 /);
  assert.match(part, /\r\n\r\n234$/);
  const etag = part.match(/ETag: (.*)\r\n/)?.[1];
  const kept = await exchange(
    where,
    get('/sub/a.txt', `If-None-Match: ${etag}\r\nConnection: close\r\n`),
  );
  assert.equal(statuses(kept), [304]);
  const packed = get('/sub/a.txt', 'Accept-Encoding: gzip\r\nConnection: close\r\n');
  assert.match(await exchange(where, packed), /Content-Encoding: gzip\r\n[\s\S]*\r\n\r\npacked$/);
  const out = [
    get('/../outside.txt'),
    get('/%2e%2e/outside.txt'),
    get('/..%2foutside.txt', 'Connection: close\r\n'),
  ];
  const answers = await exchange(where, out.join(''));
  assert.equal(statuses(answers), [404, 404, 404]);
  assert.not.match(answers, /secret/);
  assert.is(await (await fetch(`${at}/loop.json`)).text(), '"mine"');
  assert.is((await fetch(`${at}/status.json`)).status, 200);
  assert.is((await fetch(`${at}/nothing`)).status, 404);
  assert.is((await fetch(at, { method: 'POST' })).status, 405);
  site.kill('SIGTERM');
  assert.is((await site.ended).code, 0);
});

test('what is no folder is said before anything starts; the help tells of it', async () => {
  const file = scratch('file.txt', 'x');
  for (const [args, said] of [
    [['http', file], /is no folder/],
    [['http', 'nowhere'], /http: 'nowhere' is no folder/],
    [['http', '.', 'more'], /'more' is one too many/],
  ] as const) {
    const { code, stderr } = await run('serve', ...args);
    assert.is(code, 2);
    assert.match(stderr, said);
  }
  const { stdout } = await run('serve', '--help');
  assert.match(stdout, /http \[FOLDER\]/);
  assert.match(stdout, /http FOLDER serves the files of a folder/);
});

// ── through a reload ──

test('a reload: an event stream ends at an event and is told to come back at once; a WebSocket goes on', async () => {
  const own = new Cli(['serve', 'http', '--port', '0', '--loops', '2']);
  const where = await own.port();
  const ws = new WebSocket(`ws://127.0.0.1:${where}/echo`);
  await once(ws, 'open');
  const stream = await events(where);
  const [, id] = await stream.until(/event: loops\nid: (\d+)\n/);
  own.kill('SIGHUP');
  // Chunks that say so, and the last one; the connection stays, and is with the new code then.
  await stream.until(/\nretry: 0\n\n\r\n0\r\n\r\n$/);
  await own.seen('stderr', /reloaded|generation/);
  stream.text = '';
  stream.socket.write(get('/events', `Last-Event-ID: ${id}\r\n`));
  const [, hello] = await stream.until(/event: hello\ndata: (.*)\n/);
  const { generation, after } = JSON.parse(hello) as { generation: number; after: string };
  assert.equal([generation, after], [1, id]);
  const [, data] = await stream.until(/event: loops\nid: \d+\ndata: (.*)\n\n/);
  assert.equal(
    (JSON.parse(data) as Status).loops.map((one) => one.generation),
    [1, 1],
  );
  ws.send('still here');
  const [heard] = (await once(ws, 'message')) as [Buffer];
  assert.is(heard.toString(), 'still here');
  // A stop ends it too, without that.
  own.kill('SIGTERM');
  await stream.until(/\r\n0\r\n\r\n$/);
  assert.not.match(stream.text, /retry: 0\n/);
  ws.close();
  assert.is((await own.ended).code, 0);
});

test.run();
