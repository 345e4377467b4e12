// connect() with TLS: its limit and its signal hold until the handshake is done.

import * as assert from 'uvu/assert';
import { type BevOptions, BufferEvent, type ConnectOptions } from '../../src/index.js';
import { turns, until } from './rig.js';
import { client, server, type TlsRig, tlsSuite } from './tls_rig.js';

const { test, run } = tlsSuite('connect() with TLS');

/** A port whose connections are accepted and told nothing. */
async function silent(rig: TlsRig): Promise<{ port: number; count: () => number }> {
  let count = 0;
  const port = await rig.nodeListen((socket) => {
    count++;
    socket.resume();
  });
  return { port, count: () => count };
}
function call(rig: TlsRig, port: number, options: ConnectOptions) {
  return rig.make((rest: BevOptions) =>
    BufferEvent.connect(
      rig.base,
      { host: '127.0.0.1', port },
      { tls: client, ...options, ...rest },
    ),
  );
}

test('a handshake that takes too long: the timeout of connect() ends it, once', async (rig) => {
  const { port, count } = await silent(rig);
  const near = call(rig, port, { timeout: 60 });
  assert.is(await near.nth(), 'timeout ETIMEDOUT');
  assert.is(count(), 1);
  assert.match(near.errors[0].message, `127.0.0.1:${port}`);
  assert.is(near.bev.tls, undefined);
  await turns();
  assert.equal(near.events.length, 1);
});

test('the limit of the handshake itself holds beside it', async (rig) => {
  const { port } = await silent(rig);
  const near = call(rig, port, { timeout: 10_000, tls: { ...client, handshakeTimeout: 30 } });
  assert.is(await near.nth(), 'timeout ERR_TLS_HANDSHAKE');
});

test('the signal ends it in the handshake', async (rig) => {
  const { port, count } = await silent(rig);
  const abort = new AbortController();
  const near = call(rig, port, { signal: abort.signal });
  await until(() => count() === 1);
  await turns();
  abort.abort(Object.assign(new Error('no longer wanted'), { code: 'ERR_MINE' }));
  assert.ok(near.bev.closed);
  assert.is(await near.nth(), 'ERR_MINE');
});

test('after it neither does anything, and nothing keeps the base running', async (rig) => {
  const { port, accepted } = rig.listenOne(server);
  const abort = new AbortController();
  const near = call(rig, port, { timeout: 300, signal: abort.signal });
  assert.is(await near.nth(), 'connected');
  abort.abort();
  const far = await accepted;
  await new Promise((resolve) => rig.base.once(-1, 1, () => resolve(undefined), 320));
  far.bev.write('still there');
  await until(() => near.text === 'still there');
  assert.equal(near.events, ['connected']);
});

test('a failed handshake, and close() in the middle of one, leave nothing behind', async (rig) => {
  const { port } = rig.listenOne(server);
  const abort = new AbortController();
  const options = { timeout: 100, signal: abort.signal };
  const near = call(rig, port, { ...options, tls: { ...client, servername: 'example.org' } });
  assert.is(await near.nth(), 'ERR_TLS_HANDSHAKE');
  const { port: other, count } = await silent(rig);
  const closed = call(rig, other, options);
  await until(() => count() === 1);
  closed.bev.close();
  abort.abort();
  await new Promise((resolve) => rig.base.once(-1, 1, () => resolve(undefined), 120));
  assert.is(near.events.length, 1);
  assert.is(closed.events.length, 0);
});

run();
