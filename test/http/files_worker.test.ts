// Files under serve(): a reload while they are on their way, and a thread that dies.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve as serveGroup } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { Rig } from './rig.js';
import * as sinks from './sink.js';
import { bigHash, get, hasProc, writeBig } from './sink.js';

const rig = new Rig();
const folder = mkdtempSync(join(tmpdir(), 'multiloop-sending-'));
const allClosed = () => sinks.allClosed(folder);
const openThere = () => sinks.openThere(folder);
const sink = (port: number, path: string) => sinks.sink(rig, port, path);

test.before(() => writeBig(join(folder, 'big')));
test.after(() => {
  rig.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a reload in the middle lets the file end, and its connection goes on with the new code', async () => {
  const worker = new URL('./workers/folder.js', import.meta.url);
  const group: LoopGroup = await serveGroup({ worker, loops: 2, workerData: { folder } });
  try {
    const all = await Promise.all([1, 2, 3, 4].map(() => sink(portOf(group), '/files/big')));
    for (const one of all) {
      await one.until(() => one.bytes > 0, 'the first bytes');
      one.client.socket.pause();
    }
    const reloading = group.reload();
    const fresh = await rig.connect(portOf(group));
    // The new code serves, while the old one still sends.
    for (let generation = '0'; generation !== '1'; ) {
      fresh.send(get('/generation'));
      generation = (await fresh.answer()).body;
    }
    assert.ok(all.every(({ bytes, length }) => bytes < length));
    const expected = bigHash();
    for (const one of all) {
      one.client.socket.resume();
      assert.is(await one.whole(), expected);
    }
    const report = await within(PATIENCE_MS, reloading, 'the reload');
    assert.equal([report.drained, report.closed], [0, 0]);
    for (const { client } of all) {
      client.socket.removeAllListeners('data');
      client.send(get('/generation'));
      const [text] = await once(client.socket, 'data');
      assert.match(String(text), /\r\n\r\n1$/);
      client.socket.destroy();
    }
    fresh.socket.destroy();
  } finally {
    await group.close();
  }
  await allClosed();
});

test('a thread that dies takes its descriptors along', async () => {
  const worker = new URL('./workers/folder.js', import.meta.url);
  const group: LoopGroup = await serveGroup({
    worker,
    loops: 1,
    workerData: { folder, cacheMs: 60_000 },
  });
  try {
    const one = await sink(portOf(group), '/files/big');
    await one.until(() => one.bytes > 0, 'the first bytes');
    one.client.socket.pause();
    if (hasProc) assert.ok(openThere() >= 2);
    const killer = await rig.connect(portOf(group));
    killer.send(get('/die'));
    await until(() => group.loops[0].generation > 0 || one.closed, 'it has died');
    await allClosed();
    one.client.socket.destroy();
    killer.socket.destroy();
  } finally {
    await group.close();
  }
});

test.run();
