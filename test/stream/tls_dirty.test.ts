// allowDirtyShutdown: peers that end without a close_notify, where that is no error.

import { Duplex } from 'node:stream';
import * as assert from 'uvu/assert';
import { BufferEvent } from '../../src/index.js';
import { codeOf } from '../event/support.js';
import { until } from './rig.js';
import { client, nodeClient, server, tlsSuite, VERSIONS } from './tls_rig.js';

const { test, run } = tlsSuite('tls: dirty ends');
const dirty = { allowDirtyShutdown: true } as const;

for (const version of VERSIONS) {
  test(`${version}: an end without a close_notify is an end, and can be answered`, async (rig) => {
    const { port, accepted } = rig.listenOne({ ...server, ...dirty });
    const raw = rig.nodeConnect(port);
    let heard = '';
    const far = nodeClient(rig, raw, { maxVersion: version });
    far.on('data', (bytes) => {
      heard += bytes;
    });
    far.write('all of it');
    const near = await accepted;
    await until(() => near.text === 'all of it');
    raw.end();
    assert.is(await near.nth(1), 'eof read');
    near.bev.write('the answer');
    await until(() => heard === 'the answer');
    assert.equal(near.errors, []);
  });

  test(`${version}: an end within a record is an error all the same`, async (rig) => {
    const { port, accepted } = rig.listenOne({ ...server, ...dirty });
    const raw = rig.nodeConnect(port);
    let cuts = false;
    const between = new Duplex({
      read() {},
      write(bytes: Buffer, _encoding, done) {
        if (cuts) raw.end(bytes.subarray(0, bytes.length - 3));
        else raw.write(bytes);
        done();
      },
    });
    raw.on('data', (bytes) => between.push(bytes));
    const far = nodeClient(rig, between, { maxVersion: version });
    far.write('whole');
    const near = await accepted;
    await until(() => near.text === 'whole');
    cuts = true;
    far.write('cut');
    assert.is(await near.nth(1), 'ERR_TLS_TRUNCATED read');
    assert.is(near.text, 'whole');
  });

  test(`${version}: over another stream, and as a client`, async (rig) => {
    const maxVersion = version;
    for (const kind of ['pair', 'sockets']) {
      const { near, far, under } = await rig.open(kind, server, {
        ...client,
        ...dirty,
        maxVersion,
      });
      far.bev.write('all of it');
      await until(() => near.text === 'all of it');
      under[1].end();
      assert.is(await near.nth(1), 'eof read', kind);
      assert.equal(near.errors, []);
    }
  });
}

test('an end within the handshake is none of these', async (rig) => {
  const { port, accepted } = rig.listenOne({ ...server, ...dirty });
  rig.nodeConnect(port).end();
  const near = await accepted;
  assert.match(await near.nth(), /^ERR_TLS_HANDSHAKE/);
});

test('it is true or false', (rig) => {
  const [one] = BufferEvent.pair(rig.base);
  const options = { ...server, allowDirtyShutdown: 'yes' } as never;
  assert.is(
    codeOf(() => BufferEvent.tls(one, { tls: options })),
    'ERR_INVALID_ARG_TYPE',
  );
  one.close();
});

run();
