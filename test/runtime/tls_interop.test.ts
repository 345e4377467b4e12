// TLS with other people's programs: openssl's client and server, and curl.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BufferEvent, Ev, EventBase, type LoopGroup, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { within } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { portOf, until, workerFile } from './clients.js';

const PATIENCE_MS = 20_000;
const why = native.tlsUnavailable();
const has = (program: string, flag: string) => spawnSync(program, [flag]).status === 0;
const file = (name: string) =>
  fileURLToPath(new URL(`../../../test/tls/${name}.pem`, import.meta.url));
const ready = (name: string) => new URL(`../../workers/${name}.js`, import.meta.url);
const server = { ...pair('localhost'), ca };

async function withGroup(
  options: Parameters<typeof serve>[0],
  body: (group: LoopGroup) => Promise<void>,
): Promise<void> {
  const group = await serve({ loops: 2, ...options });
  try {
    await body(group);
    await until(() => group.stats().open === 0, 'every connection is closed');
  } finally {
    await group.close();
  }
}

/** What a program has said when it has ended, or `until` it has said so. */
async function said(child: ChildProcess, until?: RegExp): Promise<string> {
  let text = '';
  const over = new Promise<string>((resolve) => {
    const take = (data: Buffer) => {
      text += data;
      if (until?.test(text)) resolve(text);
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.once('close', () => resolve(text));
  });
  try {
    return await within(PATIENCE_MS, over, 'the program has said it');
  } finally {
    if (until === undefined) child.kill('SIGKILL');
  }
}
const children: ChildProcess[] = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
function client(group: LoopGroup, ...args: string[]) {
  const child = spawn('openssl', [
    ...['s_client', '-connect', `127.0.0.1:${portOf(group)}`, '-servername', 'localhost'],
    ...['-CAfile', file('ca'), '-verify_return_error', ...args],
  ]);
  children.push(child);
  return child;
}

const openssl = suite('openssl');

for (const version of ['tls1_2', 'tls1_3'])
  openssl(`s_client -${version}: echo, resumption on another loop, close`, () =>
    withGroup({ worker: ready('echo'), listen: { port: 0, tls: server } }, async (group) => {
      const folder = mkdtempSync(join(tmpdir(), 'multiloop-tls-'));
      const session = join(folder, 'session');
      try {
        for (const [i, flag] of ['-sess_out', '-sess_in'].entries()) {
          const child = client(group, `-${version}`, flag, session);
          child.stdin.write('hello there\n');
          // What it says of itself begins otherwise; a ticket of TLS 1.3 comes before the data.
          const told = said(child);
          await said(child, /^hello there$/m);
          child.stdin.end();
          assert.match(await told, i === 0 ? /^New, TLSv1/m : /^Reused, TLSv1/m);
        }
        assert.equal(
          group.stats().loops.map(({ accepted }) => accepted),
          [1, 1],
        );
      } finally {
        rmSync(folder, { recursive: true });
      }
    }),
  );

openssl('s_client: a certificate of its own, and none', () =>
  withGroup(
    { worker: workerFile('teller'), listen: { port: 0, tls: { ...server, requestCert: true } } },
    async (group) => {
      const child = client(group, '-cert', file('client'), '-key', file('client-key'));
      const told = said(child);
      await said(child, /"protocol":"TLSv1.3"/);
      child.stdin.end();
      await told;
      // A reset may overtake the alert that says why.
      await said(client(group));
      const failed = () =>
        group.stats().loops.reduce((sum, one) => sum + one.handshakeFailures['bad certificate'], 0);
      await until(() => failed() === 1, 'it is counted');
    },
  ),
);

openssl('s_client: a certificate by name, and a protocol by ALPN', () =>
  withGroup(
    {
      worker: workerFile('teller'),
      listen: {
        port: 0,
        tls: {
          ...server,
          contexts: { '*.example.org': pair('wildcard') },
          ALPNProtocols: ['two', 'one'],
        },
      },
    },
    async (group) => {
      const cases = [
        ['localhost', 'localhost'],
        ['a.example.org', '*.example.org'],
        ['unknown.test', 'localhost'],
      ];
      for (const [name, shown] of cases) {
        // The last -servername counts.
        const child = client(group, '-servername', name, '-alpn', 'one,two');
        const told = said(child);
        await said(child, new RegExp(`"servername":"${name}","alpn":"two"`));
        child.stdin.end();
        const text = await told;
        assert.match(text, 'ALPN protocol: two');
        assert.match(text, new RegExp(`subject=CN = ${shown.replace('*', '\\*')}\n`));
      }
    },
  ),
);

for (const version of ['tls1_2', 'tls1_3'])
  openssl(
    `s_server -${version}: our client is asked for its certificate, and answered`,
    async () => {
      const probe = net.createServer().listen(0, '127.0.0.1');
      await once(probe, 'listening');
      const { port } = probe.address() as net.AddressInfo;
      probe.close();
      const child = spawn('openssl', [
        ...['s_server', '-accept', `127.0.0.1:${port}`, '-naccept', '1', '-rev', `-${version}`],
        ...['-cert', file('localhost'), '-key', file('localhost-key'), '-alpn', 'one'],
        ...['-Verify', '2', '-verify_return_error', '-CAfile', file('ca')],
      ]);
      const base = new EventBase();
      try {
        await said(child, /ACCEPT/);
        let text = '';
        const bev = BufferEvent.connect(
          base,
          { host: '127.0.0.1', port },
          {
            tls: { ca, servername: 'localhost', ALPNProtocols: ['two', 'one'], ...pair('client') },
            handlers: {
              read: (one) => {
                text += Buffer.from(one.input.remove(one.input.length)).toString();
                if (text.endsWith('\n')) base.loopBreak();
              },
              event: (_, { error }) => {
                if (error === undefined) return;
                text = String(error);
                base.loopBreak();
              },
            },
          },
        );
        bev.enable(Ev.READ);
        bev.write('desserts\n');
        await within(PATIENCE_MS, base.dispatch(), 'it is answered');
        assert.is(text, 'stressed\n');
        assert.is(bev.tls?.alpn, 'one');
        assert.is(bev.tls?.protocol, version === 'tls1_2' ? 'TLSv1.2' : 'TLSv1.3');
        bev.close();
      } finally {
        child.kill('SIGKILL');
        base.close();
      }
    },
  );

const curl = suite('curl');

curl('curl: https, the body as it is', () =>
  withGroup({ worker: ready('http'), listen: { port: 0, tls: server } }, async (group) => {
    const port = portOf(group);
    const child = spawn('curl', [
      ...['-sS', '--cacert', file('ca'), '--resolve', `localhost:${port}:127.0.0.1`],
      `https://localhost:${port}/loop.json`,
    ]);
    assert.match(await said(child), /^\{.*"loop":\d/);
  }),
);

if (why !== undefined) console.log(`Skipped: ${why}`);
else {
  if (has('openssl', 'version')) openssl.run();
  else console.log('Skipped: openssl is not installed');
  if (has('curl', '--version')) curl.run();
  else console.log('Skipped: curl is not installed');
}
