// Server names that a group's TLS is asked for, the keys of its tickets, and files that are watched.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, type SniCallback, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf, within } from '../event/support.js';
import { suite } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { descriptors, linkOf, portOf, until, workerFile } from './clients.js';

const PATIENCE_MS = 20_000;
const LOOPS = 3;
const why = native.tlsUnavailable();
const ours = pair('localhost');
const pemFile = (name: string) =>
  fileURLToPath(new URL(`../../../test/tls/${name}.pem`, import.meta.url));

let folder: string;
const test = suite('tls names of a group');
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
});
test.after.each(() => rmSync(folder, { recursive: true, force: true }));

async function withGroup(
  secure: object,
  body: (group: LoopGroup, errors: Error[]) => Promise<void>,
  options: Partial<ServeOptions> = {},
): Promise<void> {
  const contexts = native.tlsContextCount();
  const group = await serve({
    worker: workerFile('teller'),
    loops: LOOPS,
    restart: { max: 1_000, backoff: 1 },
    listen: { port: 0, name: 'secure', tls: { ...ours, ...secure } },
    ...options,
  });
  const errors: Error[] = [];
  group.on('error', (error) => errors.push(error));
  try {
    await body(group, errors);
    await until(() => group.stats().open === 0, 'every connection is closed');
  } finally {
    await group.close();
  }
  assert.is(native.tlsContextCount(), contexts);
}

function open(port: number, servername: string, options: tls.ConnectionOptions = {}) {
  const far = tls.connect({
    host: '127.0.0.1',
    port,
    servername,
    ca,
    checkServerIdentity: () => undefined,
    ...options,
  });
  far.on('error', () => undefined);
  return far;
}
interface Visit {
  name: string;
  told: { reused: boolean };
  session: Buffer | undefined;
}
/** What a client is shown and told, until it is closed; a code when its handshake failed. */
async function visit(port: number, servername: string, session?: Buffer): Promise<Visit | string> {
  const far = open(port, servername, { session });
  let given = session;
  far.on('session', (one) => {
    given = one;
  });
  try {
    const [data] = await within(PATIENCE_MS, once(far, 'data'), `${servername} is answered`);
    // Of a resumed session Node may have none.
    const { CN } = far.getPeerCertificate().subject ?? {};
    return { name: String(CN), told: JSON.parse(String(data)), session: given };
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    far.destroy();
  }
}
async function shown(group: LoopGroup, servername: string): Promise<string> {
  const seen = await visit(portOf(group), servername);
  return typeof seen === 'string' ? seen : seen.name;
}
const unknown = (group: LoopGroup) =>
  group.stats().loops.reduce((sum, one) => sum + one.handshakeFailures['unknown name'], 0);

test('one call for all who wait for a name on all loops; the answer is kept until setTls', async () => {
  const calls: string[] = [];
  let answer: (value: Awaited<ReturnType<SniCallback>>) => void = () => undefined;
  const SNICallback: SniCallback = (name) => {
    calls.push(name);
    return new Promise((resolve) => {
      answer = resolve;
    });
  };
  await withGroup({ SNICallback }, async (group) => {
    const waiting = Array.from({ length: 12 }, () => shown(group, 'Asked.Test'));
    await until(() => calls.length === 1, 'it is asked');
    await until(() => group.stats().open === 12, 'all are on their loops');
    assert.is(await shown(group, ''), 'localhost');
    answer(pair('www'));
    assert.equal(new Set(await Promise.all(waiting)), new Set(['www.example.org']));
    for (let i = 0; i < LOOPS; i++) assert.is(await shown(group, 'asked.test'), 'www.example.org');
    assert.equal(calls, ['asked.test']);

    // Who has begun with the old context gets the answer of the new one.
    const late = shown(group, 'late.test');
    await until(() => calls.length === 2, 'it is asked');
    const answerOld = answer;
    await group.setTls('secure', { ...ours, SNICallback: () => pair('wildcard') });
    answerOld(pair('www'));
    assert.is(await late, '*.example.org');
    assert.is(await shown(group, 'asked.test'), '*.example.org');
    await group.setTls('secure', ours);
    assert.is(await shown(group, 'asked.test'), 'localhost');
    assert.is(calls.length, 2);
  });
});

test('undefined is the default; what it throws refuses, is counted, and is told once', async () => {
  const SNICallback: SniCallback = async (name) => {
    if (name === 'default.test') return undefined;
    if (name === 'bad.test') return { cert: 'no PEM', key: 'no PEM' };
    throw new Error('not ours');
  };
  await withGroup({ SNICallback }, async (group, errors) => {
    assert.is(await shown(group, 'default.test'), 'localhost');
    const refused = 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME';
    const began = performance.now();
    const many = Array.from({ length: 6 }, (_, i) => shown(group, `stranger${i % 2}.test`));
    for (const code of await Promise.all(many)) assert.is(code, refused);
    await until(() => unknown(group) === 6, 'all are counted');
    // At most one in a second.
    assert.ok(errors.length <= 1 + (performance.now() - began) / 1_000, `${errors.length} errors`);
    assert.match(errors[0].message, /no certificate for 'stranger\d\.test': not ours/);
    assert.is((errors[0] as { code?: string }).code, 'ERR_TLS_HANDSHAKE');
    assert.is(await shown(group, 'bad.test'), refused);
    assert.is(await shown(group, 'default.test'), 'localhost');
  });
});

test('who waits ends with its deadline, its loop or its group', async () => {
  const calls: string[] = [];
  const SNICallback: SniCallback = (name) => {
    calls.push(name);
    return new Promise(() => undefined);
  };
  await withGroup({ SNICallback, handshakeTimeout: 300 }, async (group) => {
    assert.match(await shown(group, 'never.test'), /ECONN|undefined|ERR_/);
    await until(
      () => group.stats().loops.some(({ handshakeFailures }) => handshakeFailures.timeout === 1),
      'it is counted',
    );
  });
  await withGroup({ SNICallback }, async (group) => {
    const some = Array.from({ length: LOOPS }, (_, i) => open(portOf(group), `n${i}.test`));
    await until(() => calls.length === 1 + LOOPS, 'all are asked for');
    const down = once(group, 'loop');
    await group.loops[0].terminate();
    await down;
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
    assert.is(await shown(group, ''), 'localhost');
    await group.close();
    for (const far of some) far.destroy();
  });
});

test('a reload waits for a handshake that waits for its name', async () => {
  let answer: (value: Awaited<ReturnType<SniCallback>>) => void = () => undefined;
  let asked = false;
  const SNICallback: SniCallback = () => {
    asked = true;
    return new Promise((resolve) => {
      answer = resolve;
    });
  };
  await withGroup(
    { SNICallback },
    async (group) => {
      const far = open(portOf(group), 'asked.test');
      await until(() => asked, 'it is asked');
      const reloading = group.reload();
      await once(group, 'loop');
      answer(pair('www'));
      const [data] = await once(far, 'data');
      assert.match(String(data), '"servername":"asked.test"');
      const report = await reloading;
      assert.is(report.closed, 0);
      far.destroy();
    },
    { worker: workerFile('teller') },
  );
});

test('tickets outlive setTls, also over names; another ticketFile is another ring', async () => {
  const secure = { contexts: { 'www.example.org': pair('www') } };
  await withGroup(secure, async (group) => {
    const port = portOf(group);
    const reused = async (session?: Buffer) => {
      const seen = await visit(port, 'localhost', session);
      if (typeof seen === 'string') throw new Error(seen);
      return seen;
    };
    const { session } = await reused();
    await group.setTls('secure', { ...pair('rsa'), ...secure });
    assert.is((await reused(session)).told.reused, true);
    await group.setTls('secure', { ...pair('rsa'), ticketFile: join(folder, 'keys') });
    assert.is((await reused(session)).told.reused, false);
    await group.setTls('secure', { ...ours, tickets: false });
    assert.is((await reused(session)).told.reused, false);
  });
});

test('a ticket file that goes bad is told once, and tickets go on', async () => {
  const ticketFile = join(folder, 'keys');
  await withGroup({ ticketFile }, async (group, errors) => {
    const first = await visit(portOf(group), 'localhost');
    writeFileSync(ticketFile, 'garbage');
    // New tickets have it looked at.
    while (errors.length === 0) await visit(portOf(group), 'localhost');
    assert.match(errors[0].message, /go on with the keys that they have: the ticket file .* else/);
    const seen = await visit(portOf(group), 'localhost', (first as Visit).session);
    assert.is((seen as Visit).told.reused, true);
    assert.is(errors.length, 1);
    await group.setTls('secure', ours);
    const { code, message } = await rejectionOf(group.setTls('secure', { ...ours, ticketFile }));
    assert.match(`${code} ${message}`, /^ERR_TLS_CONFIG tls: the ticket file .* something else/);
  });
});

test('sessions are resumed by another process that has the ticket file', async () => {
  const ticketFile = join(folder, 'keys');
  const children: ChildProcess[] = [];
  const start = async (): Promise<number> => {
    const script = fileURLToPath(new URL('./ticket_server.js', import.meta.url));
    const child = spawn(process.execPath, [script, ticketFile], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    children.push(child);
    const [port] = await within(PATIENCE_MS, once(child.stdout as NodeJS.ReadableStream, 'data'));
    return Number(port);
  };
  try {
    const ports = await Promise.all([start(), start()]);
    let session: Buffer | undefined;
    for (const [i, port] of [...ports, ...ports].entries()) {
      const seen = await visit(port, 'localhost', session);
      if (typeof seen === 'string') throw new Error(seen);
      assert.is(seen.told.reused, i > 0);
      session = seen.session;
    }
  } finally {
    for (const child of children) {
      child.stdin?.end();
      if (child.exitCode === null) await once(child, 'exit');
      assert.is(child.exitCode, 0);
    }
  }
});

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const)
  test(`${maxVersion}: the key log has what the client's own has, for its user alone`, async () => {
    const keylog = join(folder, 'keys.log');
    const names = { contexts: { 'www.example.org': pair('www') }, SNICallback: () => pair('rsa') };
    await withGroup({ keylog, ...names }, async (group) => {
      for (const servername of ['localhost', 'www.example.org', 'asked.test']) {
        const far = open(portOf(group), servername, { maxVersion });
        let lines = '';
        far.on('keylog', (line) => {
          lines += line;
        });
        await once(far, 'data');
        far.destroy();
        const written = readFileSync(keylog, 'latin1');
        assert.ok(lines.length > 0);
        for (const line of lines.trim().split('\n')) assert.ok(written.includes(`${line}\n`), line);
      }
      assert.is(statSync(keylog).mode & 0o777, 0o600);
    });
    const isOpen = () => descriptors().some((fd) => linkOf(fd) === keylog);
    await until(() => !isOpen(), 'it is closed');
  });

test('watched files: by rename, by link, and what cannot be used is told once', async () => {
  const live = join(folder, 'live');
  const [certFile, keyFile] = [join(live, 'cert.pem'), join(live, 'key.pem')];
  mkdirSync(live);
  // As Kubernetes does it: files behind a link, which is replaced.
  const release = (name: string, cert: string, key: string) => {
    mkdirSync(join(live, name));
    copyFileSync(pemFile(cert), join(live, name, 'cert.pem'));
    copyFileSync(pemFile(key), join(live, name, 'key.pem'));
    symlinkSync(name, join(live, '..new'));
    renameSync(join(live, '..new'), join(live, '..data'));
  };
  const replace = (path: string, name: string) => {
    copyFileSync(pemFile(name), `${path}.new`);
    renameSync(`${path}.new`, path);
  };
  release('1', 'localhost', 'localhost-key');
  symlinkSync('..data/cert.pem', certFile);
  symlinkSync('..data/key.pem', keyFile);
  const files = { cert: undefined, key: undefined, certFile, keyFile, watch: true };
  await withGroup(files, async (group, errors) => {
    let renewed = 0;
    group.on('tls', (name) => {
      assert.is(name, 'secure');
      renewed++;
    });
    const old = await visit(portOf(group), 'localhost');
    release('2', 'www', 'www-key');
    await until(() => renewed === 1, 'the link was followed');
    assert.is(await shown(group, 'localhost'), 'www.example.org');
    const seen = await visit(portOf(group), 'localhost', (old as Visit).session);
    assert.is((seen as Visit).told.reused, true);
    // One after the other, as files are: in between they do not fit.
    replace(certFile, 'wildcard');
    replace(keyFile, 'wildcard-key');
    await until(() => renewed === 2, 'both were read');
    assert.is(await shown(group, 'localhost'), '*.example.org');
    assert.equal(errors, []);
    replace(keyFile, 'www-key');
    await until(() => errors.length === 1, 'it is told');
    assert.match(
      errors[0].message,
      /tls: .*cert\.pem, .*key\.pem: the key is not the certificate's/,
    );
    writeFileSync(join(live, 'other'), 'something else happens there');
    assert.is(await shown(group, 'localhost'), '*.example.org');
    replace(certFile, 'www');
    await until(() => renewed === 3, 'it is good again');
    assert.is(await shown(group, 'localhost'), 'www.example.org');
    assert.is(errors.length, 1);
    // Another one by hand, which watches nothing.
    await group.setTls('secure', ours);
    replace(certFile, 'wildcard');
    assert.is(await shown(group, 'localhost'), 'localhost');
    assert.is(renewed, 3);
  });
  const { code } = await rejectionOf(withGroup({ watch: true }, async () => undefined));
  assert.is(code, 'ERR_INVALID_ARG_VALUE');
});

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
