// TLS connections of a group: their sessions are the ledger's, so they move between loops, go on
// in the next generation, and outlive their loop's thread, without a second handshake.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { descriptors, gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
const why = native.tlsUnavailable();
const server = pair('localhost');

/** Runs `body` with a group, and looks whether anything is left of it. */
async function withGroup(
  worker: string,
  options: Partial<ServeOptions>,
  body: (group: LoopGroup) => Promise<void>,
): Promise<void> {
  const contexts = native.tlsContextCount();
  const group = await serve({
    worker: workerFile(worker),
    loops: 3,
    restart: { max: 1_000, backoff: 1 },
    listen: { port: 0, host: '127.0.0.1', tls: { ...server, ALPNProtocols: ['lines'] } },
    ...options,
  });
  try {
    await body(group);
    await until(() => group.stats().open === 0, 'every connection is closed');
  } finally {
    await group.close();
  }
  assert.is(native.tlsContextCount(), contexts);
}

async function connect(group: LoopGroup, options: tls.ConnectionOptions = {}) {
  const port = portOf(group);
  const far = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ...options });
  far.on('error', () => undefined);
  far.setNoDelay(true);
  await once(far, 'secureConnect');
  return far;
}

for (const maxVersion of VERSIONS) {
  test(`${maxVersion}: numbered lines through dozens of moves, none lost, doubled or late`, () =>
    withGroup('mover', {}, async (group) => {
      const far = await connect(group, { maxVersion });
      const client = LineClient.of(far);
      const moves = 60;
      const send = (i: number) => far.write(`a${i}\nmove ${i % 3}\nb${i}\n`);
      const loops = new Set<string>();
      const ahead = 3;
      // With some on the way when the connection moves, and some inside.
      for (let i = 0; i < ahead; i++) send(i);
      for (let i = 0; i < moves; i++) {
        for (const [word, place] of Object.entries({ a: 1, b: 3 })) {
          const [said, number, loop] = (await client.line()).split(' ');
          assert.is(said, `${word}${i}`);
          assert.is(Number(number), 3 * i + place);
          loops.add(loop);
        }
        if (i + ahead < moves) send(i + ahead);
      }
      for (let i = 0; i < 30; i++) {
        far.write(`move ${i % 3}\n`);
        while ((await client.ask('where')).split(' ')[2] !== String(i % 3));
        loops.add(String(i % 3));
      }
      assert.is(loops.size, 3);
      assert.ok(group.stats().moves >= 29, `${group.stats().moves} moves`);
      await client.end();
    }));
}

test('a large answer goes on in the middle of a record on another loop', () =>
  withGroup('mover', {}, async (group) => {
    const far = await connect(group);
    const client = LineClient.of(far);
    const from = Number((await client.ask('where')).split(' ')[2]);
    far.pause();
    far.write(`big 3000000\nmove ${(from + 1) % 3}\nafter\n`);
    await until(() => group.stats().loops[from].bytesWritten > 100_000, 'it has begun to write');
    far.resume();
    assert.is((await client.line()).length, 3_000_000);
    assert.match(await client.line(), /^after 4 /);
    assert.is((await client.ask('where')).split(' ')[2], String((from + 1) % 3));
    await client.end();
  }));

test('connections at a boundary outlive their thread, twice', () =>
  withGroup('rescuer', {}, async (group) => {
    const clients = [];
    for (let i = 0; i < 6; i++) {
      const version = VERSIONS[i % 2];
      clients.push(LineClient.of(await connect(group, { maxVersion: version })));
    }
    for (let round = 1; round <= 2; round++) {
      const at = await Promise.all(
        clients.map(async (client) => (await client.ask('x')).split(' ')),
      );
      const victim = Number(at[0][1]);
      // A connection is at its boundary a moment after its answer: what another one of its loop is
      // answered after that came from a later pass.
      for (let loop = -1; loop !== victim; ) {
        const witness = LineClient.of(await connect(group));
        loop = Number((await witness.ask('x')).split(' ')[1]);
        await witness.end();
      }
      // One that its loop has not closed when that dies is lost.
      await until(() => group.stats().open === clients.length, 'the witnesses are closed');
      const down = once(group, 'loop');
      await group.loops[victim].terminate();
      await down;
      for (const [i, client] of clients.entries()) {
        const before = Number(at[i][0]);
        const [count, , rescues] = (await client.ask('still here?')).split(' ').map(Number);
        assert.is(count, before + 1, `client ${i}`);
        assert.is(rescues, Number(at[i][2]) + (Number(at[i][1]) === victim ? 1 : 0));
      }
      await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
    }
    assert.is(group.stats().lost, 0);
    for (const client of clients) await client.end();
  }));

test('a reload takes TLS connections along; one in its handshake waits for its end', () =>
  withGroup('mover', {}, async (group) => {
    const client = LineClient.of(await connect(group));
    await client.ask('one');
    const raw = net.connect(portOf(group), '127.0.0.1');
    await once(raw, 'connect');
    await until(() => group.stats().open === 2, 'both are open');
    const reloading = group.reload();
    await once(group, 'loop');
    assert.match(await client.ask('two'), /^two 2 /);
    const late = tls.connect({ socket: raw, servername: 'localhost', ca });
    late.on('error', () => undefined);
    const lateClient = LineClient.of(late);
    await once(late, 'secureConnect');
    const report = await reloading;
    assert.is(report.closed + report.drained, 0);
    assert.is(report.moved, 2);
    assert.match(await client.ask('three'), /^three 3 /);
    assert.match(await lateClient.ask('four'), /^four 1 /);
    await client.end();
    await lateClient.end();
  }));

test('the worker is told of connections whose handshake is done, and sees what came of it', () =>
  withGroup('teller', { loops: 1 }, async (group) => {
    const raw = net.connect(portOf(group), '127.0.0.1');
    raw.on('error', () => undefined).resume();
    raw.end('GET / HTTP/1.1\r\n\r\n');
    await gone(raw);
    await until(() => group.stats().loops[0].handshakesFailed === 1, 'it has failed');
    const far = await connect(group, { ALPNProtocols: ['lines'] });
    const client = LineClient.of(far);
    const told = JSON.parse(await client.line());
    const expected = { protocol: 'TLSv1.3', servername: 'localhost', alpn: 'lines' };
    assert.equal(told, { ...expected, reused: false, keys: false });
    assert.is(await client.ask('?'), '1 0 0');
    await client.end();
  }));

for (const maxVersion of VERSIONS)
  test(`${maxVersion}: a session is resumed on whichever loop`, () =>
    withGroup('teller', {}, async (group) => {
      let session: Buffer | undefined;
      const loops = new Set<string>();
      for (let i = 0; i < 6; i++) {
        const far = await connect(group, { session, maxVersion });
        // Of TLS 1.2 it is there with the handshake, and stays the same.
        const got = maxVersion === 'TLSv1.3' ? once(far, 'session') : [far.getSession()];
        const client = LineClient.of(far);
        assert.is(JSON.parse(await client.line()).reused, i > 0);
        [session] = (await got) as Buffer[];
        loops.add((await client.ask('?')).split(' ')[2]);
        await client.end();
      }
      assert.is(loops.size, 3);
    }));

test('a peer that stops in its handshake is closed at the deadline', () =>
  withGroup(
    'teller',
    { listen: { port: 0, tls: { ...server, handshakeTimeout: 40 } } },
    async (group) => {
      const raw = net.connect(portOf(group), '127.0.0.1');
      raw.on('error', () => undefined);
      await gone(raw);
      const failed = () => group.stats().loops.reduce((sum, one) => sum + one.handshakesFailed, 0);
      await until(() => failed() === 1, 'it is counted');
    },
  ));

test('a group that closes ends its connections cleanly', async () => {
  let far: tls.TLSSocket | undefined;
  const group = await serve({
    worker: workerFile('mover'),
    loops: 1,
    listen: { port: 0, tls: server },
  });
  try {
    far = await connect(group);
    let failed: unknown;
    far.on('error', (error) => {
      failed = error;
    });
    const ended = once(far.resume(), 'end');
    await LineClient.of(far).ask('hello');
    await group.close();
    await ended;
    assert.is(failed, undefined);
  } finally {
    await group.close();
    far?.destroy();
  }
});

test('what is wrong with a listener is said, and nothing is left behind', async () => {
  const before = descriptors().length;
  const wrong = (options: object) =>
    rejectionOf(
      serve({ worker: workerFile('mover'), loops: 1, listen: { port: 0, tls: options as never } }),
    );
  const error = await wrong({ ...server, key: pair('www').key });
  assert.is(error.code, 'ERR_TLS_CONFIG');
  assert.match(error.message, /^listen\.tls: the key is not the certificate's/);
  assert.is((await wrong({})).code, 'ERR_INVALID_ARG_TYPE');
  await until(() => descriptors().length <= before, 'descriptors are back');
});

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
