// TLS over streams that are no sockets.

import * as assert from 'uvu/assert';
import { BufferEvent, Ev } from '../../src/index.js';
import { patterned, textOf, until } from './rig.js';
import { client, nodeClient, nodeServer, server, tlsSuite, VERSIONS } from './tls_rig.js';

const { test, run } = tlsSuite('TLS over streams');
const KINDS = [
  'pair',
  'sockets',
  'filters',
  'duplexes',
  'TLS over a socket',
  'TLS over TLS over a pair',
];

for (const kind of KINDS) {
  for (const version of VERSIONS) {
    test(`${kind}, ${version}: written before the handshake, half-closed, answered`, async (rig) => {
      const { near, far, under } = rig.both(kind, server, { ...client, maxVersion: version });
      near.bev.write('early');
      far.bev.write('early too');
      assert.is(near.bev.tls, undefined);
      assert.is(await near.nth(), 'connected');
      assert.is(await far.nth(), 'connected');
      assert.is(near.bev.tls?.protocol, version);
      assert.is(near.bev.tls?.authorized, true);
      assert.is(far.bev.tls?.servername, 'localhost');
      near.bev.end(' and last');
      assert.is(await far.nth(1), 'eof read');
      assert.is(far.text, 'early and last');
      far.bev.end(', answered');
      assert.is(await near.nth(1), 'eof read');
      assert.is(near.text, 'early too, answered');
      assert.is(near.bev.bytesWritten, 14);
      assert.is(near.bev.bytesRead, 19);
      near.bev.close();
      far.bev.close();
      assert.equal(
        under.map((one) => one.closed),
        [true, true],
      );
      assert.equal(near.events, ['connected', 'eof read']);
    });

    test(`${kind}, ${version}: megabytes both ways`, async (rig) => {
      const { near, far } = rig.both(kind, server, { ...client, maxVersion: version });
      const piece = patterned(100_003);
      const count = 20;
      for (const { bev } of [near, far]) bev.setWatermark(Ev.READ, 0, 50_000);
      for (let i = 0; i < count; i++) {
        near.bev.write(piece);
        for (let at = 0; at < piece.length; at += 1_000)
          far.bev.write(piece.subarray(at, at + 1_000));
      }
      near.bev.end();
      far.bev.end();
      await until(() => near.events.length === 2 && far.events.length === 2);
      const all = Buffer.concat(Array(count).fill(piece)).toString('latin1');
      assert.ok(near.text === all, `${near.text.length} bytes`);
      assert.ok(far.text === all, `${far.text.length} bytes`);
    });
  }
}

for (const version of VERSIONS) {
  test(`${version}: a client of Node's over a pair`, async (rig) => {
    const [one, other] = BufferEvent.pair(rig.base);
    const near = rig.over(one, server);
    const far = nodeClient(rig, other.toDuplex({ allowHalfOpen: true }), { maxVersion: version });
    far.write('from Node');
    await until(() => near.text === 'from Node');
    const heard = textOf(far);
    near.bev.end('from us');
    assert.is(await heard, 'from us');
    far.end();
    assert.is(await near.nth(1), 'eof read');
  });
  test(`${version}: a server of Node's over a pair`, async (rig) => {
    const [one, other] = BufferEvent.pair(rig.base);
    const far = nodeServer(rig, other.toDuplex({ allowHalfOpen: true }), { maxVersion: version });
    const near = rig.over(one, client);
    near.bev.write('from us');
    far.once('data', (data) => far.end(`heard ${data}`));
    await until(() => near.events.length === 2);
    assert.equal(near.events, ['connected', 'eof read']);
    assert.is(near.text, 'heard from us');
  });
}

run();
