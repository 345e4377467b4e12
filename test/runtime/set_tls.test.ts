// Another certificate while a group runs, and TLS in every accept mode.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { ACCEPT_MODES } from '../../src/runtime/accept_mode.js';
import { rejectionOf } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const why = native.tlsUnavailable();
const server = pair('localhost');
const next = pair('www');
const LOOPS = 3;

async function withGroup(
  options: Partial<ServeOptions>,
  body: (group: LoopGroup) => Promise<void>,
): Promise<void> {
  const contexts = native.tlsContextCount();
  const group = await serve({
    worker: workerFile('teller'),
    loops: LOOPS,
    restart: { max: 1_000, backoff: 1 },
    listen: [
      { port: 0, name: 'plain' },
      { port: 0, name: 'secure', tls: server },
    ],
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

interface Far {
  client: LineClient;
  name: string | undefined;
}
async function connect(group: LoopGroup, listener = 1): Promise<Far> {
  const far = tls.connect({
    host: '127.0.0.1',
    port: portOf(group, listener),
    servername: 'localhost',
    ca,
    checkServerIdentity: () => undefined,
  });
  far.on('error', () => undefined);
  const client = LineClient.of(far);
  await once(far, 'secureConnect');
  await client.line();
  return { client, name: far.getPeerX509Certificate()?.subjectAltName };
}
const loopOf = async ({ client }: Far) => Number((await client.ask('?')).split(' ')[2]);

/** What clients are shown, and on how many loops. */
async function shown(group: LoopGroup): Promise<[names: unknown[], loops: number]> {
  const names = new Set<unknown>();
  const loops = new Set<number>();
  for (let i = 0; i < LOOPS; i++) {
    const far = await connect(group);
    names.add(far.name);
    loops.add(await loopOf(far));
    await far.client.end();
  }
  return [[...names], loops.size];
}

test('a new certificate on every loop, the next generation and restarted ones', () =>
  withGroup({}, async (group) => {
    const contexts = native.tlsContextCount();
    const old = await connect(group);
    assert.match(String(old.name), 'localhost');
    await group.setTls('secure', next);
    assert.is(native.tlsContextCount(), contexts);
    const [[name, ...more], loops] = await shown(group);
    assert.match(String(name), 'www');
    assert.equal(more, []);
    assert.is(loops, LOOPS);
    assert.match(await old.client.ask('?'), /^\d/);

    const down = once(group, 'loop');
    await group.loops[2].terminate();
    await down;
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
    assert.equal(await shown(group), [[name], LOOPS]);

    // Told to loops that start, serve and give their connections away.
    const reloading = group.reload();
    await group.setTls(1, server);
    assert.equal((await shown(group))[0], [old.name]);
    await reloading;
    assert.equal(await shown(group), [[old.name], LOOPS]);
    assert.is(native.tlsContextCount(), contexts);
    await old.client.end();
  }));

test('what cannot be used is refused, and the old one stays', () =>
  withGroup({ loops: 1 }, async (group) => {
    const refused = async (...args: unknown[]) => {
      const { code, message } = await rejectionOf(group.setTls(...(args as [string, never])));
      return `${code} ${message}`;
    };
    const wrong = await refused('secure', { ...server, key: next.key });
    assert.match(wrong, /^ERR_TLS_CONFIG tls: the key is not the certificate's/);
    assert.match(await refused(0, server), /^ERR_TLS_CONFIG The listener plain has no TLS/);
    assert.match(await refused(2, server), /^ERR_OUT_OF_RANGE/);
    assert.match(await refused('other', server), /must be one of 'plain', 'secure'/);
    assert.match(await refused({}, server), /^ERR_INVALID_ARG_TYPE/);
    const far = await connect(group);
    assert.match(String(far.name), 'localhost');
    await far.client.end();
    const last = [group.setTls('secure', next), group.setTls('secure', server), group.close()];
    await Promise.allSettled(last);
    assert.match(await refused('secure', next), /^ERR_LOOP_GONE/);
  }));

test('failed handshakes are counted by reason', () =>
  withGroup(
    {
      loops: 1,
      listen: {
        port: 0,
        tls: { ...server, ca, requestCert: true, minVersion: 'TLSv1.3', handshakeTimeout: 300 },
      },
    },
    async (group) => {
      const port = portOf(group);
      const raw = (bytes?: string | Buffer) => {
        const far = net.connect(port, '127.0.0.1', () => bytes && far.write(bytes));
        return far.on('error', () => undefined).resume();
      };
      const shake = (options: tls.ConnectionOptions) =>
        tls.connect({ host: '127.0.0.1', port, ...options }).on('error', () => undefined);
      const failures = () => group.stats().loops[0].handshakeFailures;
      raw('GET / HTTP/1.1\r\n\r\n');
      raw(Buffer.alloc(64, 0xff));
      // A record of TLS that says how long it would be, and no more.
      raw(Buffer.from([22, 3, 1, 2, 0])).end();
      shake({ maxVersion: 'TLSv1.2' });
      shake({ ciphers: 'TLS_AES_128_CCM_SHA256' });
      // It has no certificate.
      shake({ rejectUnauthorized: false });
      const quiet = raw();
      await until(() => group.stats().loops[0].handshakesFailed === 7, 'all have failed');
      assert.equal(failures(), {
        'not TLS': 2,
        'no shared cipher': 2,
        'bad certificate': 1,
        timeout: 1,
        'peer gone': 1,
        'unknown name': 0,
        other: 0,
      });
      // In the group's numbers they outlive their loop's thread and its generation.
      const [before] = group.stats().loops;
      const down = once(group, 'loop');
      await group.loops[0].terminate();
      await down;
      await until(() => group.loops[0].state === 'serving', 'replaced');
      await group.reload();
      raw('GET / HTTP/1.1\r\n\r\n');
      await until(() => group.stats().handshakesFailed === 8, 'one more has failed');
      const { handshakeFailures, loops } = group.stats();
      assert.equal(handshakeFailures, { ...before.handshakeFailures, 'not TLS': 3 });
      assert.is(loops[0].handshakesFailed, 1);
      quiet.destroy();
    },
  ));

for (const accept of ACCEPT_MODES)
  test(`accepted by ${accept}: TLS on the loops, and the new certificate`, () =>
    withGroup({ accept, listen: { port: 0, name: 'secure', tls: server } }, async (group) => {
      const some = await Promise.all(Array.from({ length: 8 }, () => connect(group, 0)));
      for (const far of some) assert.match(await far.client.ask('?'), /^\d+ \d+ [012]$/);
      await group.setTls('secure', next);
      const others = await Promise.all(Array.from({ length: 8 }, () => connect(group, 0)));
      for (const far of others) assert.match(String(far.name), 'www');
      for (const far of [...some, ...others]) await far.client.end();
    }));

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
