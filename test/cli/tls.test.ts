// TLS by two flags: each ready-made worker behind it, what is wrong with the files, new files by
// SIGHUP.

import { createPrivateKey, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { native } from '../../src/native.js';
import { test } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { Cli, cleanUp, run, scratch } from './cli.js';

test.after(cleanUp);

const why = native.tlsUnavailable();
const file = (name: string) =>
  fileURLToPath(new URL(`../../../test/tls/${name}.pem`, import.meta.url));
const flags = (cert: string, key: string) => ['--tls-cert', cert, '--tls-key', key];
const localhost = flags(file('localhost'), file('localhost-key'));

async function connect(port: number, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> {
  const far = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ...options });
  await once(far, 'secureConnect');
  return far;
}
/** Node gives it once only. */
const shown = (far: tls.TLSSocket) => far.getPeerX509Certificate()?.fingerprint256;

async function heard(far: tls.TLSSocket, pattern: RegExp): Promise<string> {
  let text = '';
  while (!pattern.test(text)) text += String((await once(far, 'data'))[0]);
  return text;
}

async function stopped(cli: Cli): Promise<void> {
  cli.kill('SIGINT');
  const { code, stderr } = await cli.ended;
  assert.is(code, 0, stderr);
}

test('http is https, and so its banner says', async () => {
  const cli = new Cli(['serve', '--port', '0', '--loops', '1', ...localhost]);
  const port = await cli.port();
  assert.match(cli.stdout, `http on https://127.0.0.1:${port}\n`);
  const far = await connect(port);
  far.write('GET /loop.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(await heard(far, /\}/), /^HTTP\/1\.1 200 [\s\S]*"loop":0/);
  far.destroy();
  await stopped(cli);
});

test('a folder over TLS: a large file to a slow client comes whole, and others do not wait', async () => {
  const folder = scratch('big-site');
  mkdirSync(folder);
  const big = randomBytes(6 * 1024 * 1024 + 123);
  writeFileSync(`${folder}/big.bin`, big);
  writeFileSync(`${folder}/small.txt`, 'small');
  const site = ['http', 'big-site', '--port', '0', '--loops', '1'];
  const cli = new Cli(['serve', ...site, ...localhost]);
  const port = await cli.port();
  const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
  const slow = await connect(port);
  slow.write(get('/big.bin'));
  const pieces: Buffer[] = [];
  let received = 0;
  let others = 0;
  for await (const piece of slow) {
    pieces.push(piece as Buffer);
    await new Promise((resolve) => setTimeout(resolve, 1));
    received += (piece as Buffer).length;
    // In its course, at one MiB after the other.
    if (others === 4 || received < others * 1024 * 1024) continue;
    const quick = await connect(port);
    quick.write(get('/small.txt'));
    assert.match(await heard(quick, /small$/), /^HTTP\/1\.1 200 /);
    quick.destroy();
    others++;
  }
  assert.is(others, 4);
  const answer = Buffer.concat(pieces);
  const at = answer.indexOf('\r\n\r\n') + 4;
  assert.match(
    answer.toString('latin1', 0, at),
    /^HTTP\/1\.1 200 [\s\S]*Content-Length: 6291579\r/,
  );
  assert.ok(answer.subarray(at).equals(big), 'it is the file');
  // A part of it, the way that a broken download goes on.
  const rest = await connect(port);
  rest.write(
    'GET /big.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=6291400-\r\nConnection: close\r\n\r\n',
  );
  const part = Buffer.concat(await rest.toArray());
  assert.match(part.toString('latin1', 0, 13), 'HTTP/1.1 206 ');
  assert.ok(part.subarray(part.indexOf('\r\n\r\n') + 4).equals(big.subarray(6_291_400)));
  await stopped(cli);
});

test('tail over TLS; a certificate that has expired is used, with a warning', async () => {
  const log = scratch('tls.log', '');
  const expired = flags(file('expired'), file('expired-key'));
  const cli = new Cli(['serve', 'tail', log, '--port', '0', '--loops', '1', ...expired]);
  const far = await connect(await cli.port(), { rejectUnauthorized: false });
  assert.match(cli.stderr, /certificate in .*expired\.pem has expired: /);
  // A line before its loop has the client is not for it.
  const writing = setInterval(() => appendFileSync(log, 'a line\n'), 20);
  await heard(far, /a line\n/);
  clearInterval(writing);
  far.destroy();
  await stopped(cli);
});

test('echo by the environment; SIGHUP reads the files anew, and connections go on', async () => {
  const [cert, key] = [scratch('cert.pem'), scratch('key.pem')];
  const use = (name: string) => {
    copyFileSync(file(name), cert);
    copyFileSync(file(`${name}-key`), key);
  };
  use('localhost');
  const cli = new Cli(['serve', 'echo', '--port', '0', '--loops', '2'], {
    MULTILOOP_TLS_CERT: cert,
    MULTILOOP_TLS_KEY: key,
  });
  const port = await cli.port();
  assert.match(cli.stdout, `echo on tls://127.0.0.1:${port}\n`);
  const first = await connect(port);
  first.write('one');
  await heard(first, /one/);
  use('rsa');
  cli.kill('SIGHUP');
  await cli.seen('stderr', /cert\.pem was read anew, for connections from now on\n/);
  const second = await connect(port, { checkServerIdentity: () => undefined });
  const now = shown(second);
  assert.is.not(now, shown(first));
  first.write('two');
  await heard(first, /two/);
  await cli.seen('stderr', /generation 1 serves/);
  copyFileSync(file('www-key'), key);
  cli.kill('SIGHUP');
  await cli.seen('stderr', /the certificate stays as it was: the key in .*key\.pem is not that of/);
  const third = await connect(port, { checkServerIdentity: () => undefined });
  assert.is(shown(third), now);
  for (const far of [first, second, third]) far.destroy();
  await stopped(cli);
});

test('over a unix socket, and what is no TLS is counted by --stats', async () => {
  const path = scratch('tls.sock');
  const cli = new Cli(['serve', 'echo', '--path', path, '--loops', '1', '--stats', ...localhost]);
  await cli.seen('stdout', /echo on tls:\/\/.*tls\.sock\n[\s\S]*Ctrl-C stops\n/);
  const far = tls.connect({ path, servername: 'localhost', ca } as tls.ConnectionOptions);
  await once(far, 'secureConnect');
  far.write('hello');
  await heard(far, /hello/);
  const plain = net.connect(path);
  plain.on('error', () => undefined).resume();
  plain.write('GET / HTTP/1.1\r\n\r\n');
  await cli.seen('stdout', /\nhandshakes failed: 1 \(not TLS 1\)\n/);
  plain.destroy();
  far.destroy();
});

test('--tls-watch: new files by themselves, and what is wrong with them', async () => {
  const [cert, key] = [scratch('watched.pem'), scratch('watched-key.pem')];
  const use = (name: string) => {
    copyFileSync(file(name), cert);
    copyFileSync(file(`${name}-key`), key);
  };
  use('localhost');
  const cli = new Cli([
    'serve',
    'echo',
    '--port',
    '0',
    '--loops',
    '1',
    ...flags(cert, key),
    '--tls-watch',
  ]);
  const port = await cli.port();
  const first = await connect(port);
  use('rsa');
  await cli.seen('stderr', /watched\.pem was read anew, for connections from now on\n/);
  const second = await connect(port, { checkServerIdentity: () => undefined });
  assert.is.not(shown(second), shown(first));
  copyFileSync(file('www-key'), key);
  await cli.seen('stderr', /watched\.pem, .*watched-key\.pem: the key is not the certificate's/);
  for (const far of [first, second]) far.destroy();
  await stopped(cli);
});

test('what is wrong is said of the file that it is wrong with', async () => {
  const locked = createPrivateKey(pair('localhost').key).export({
    ...{ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' },
  } as never);
  const withPassphrase = scratch('locked.pem', String(locked));
  const empty = scratch('empty.pem', '');
  const folder = scratch('.');
  const text = scratch('text.pem', 'no PEM at all');
  const broken = scratch('broken.pem', '-----BEGIN CERTIFICATE-----\nxx\n');
  const [cert, key] = [file('localhost'), file('localhost-key')];
  const cases: [string[], number, RegExp][] = [
    [['--tls-cert', cert], 2, /--tls-cert needs --tls-key too/],
    [['--tls-key', key], 2, /--tls-key needs --tls-cert too/],
    [['--tls-watch'], 2, /--tls-watch needs --tls-cert and --tls-key/],
    [flags('/nowhere/c.pem', key), 1, /certificate cannot be read: \/nowhere\/c\.pem: there is no/],
    [flags(text, key), 1, /text\.pem is no PEM/],
    [flags(empty, key), 1, /empty\.pem is no PEM/],
    [flags(cert, text), 1, /text\.pem is no PEM.*--tls-key takes PEM only/],
    [flags(folder, key), 1, /certificate cannot be read: .*: it is a folder/],
    [flags(cert, '/nowhere/k.pem'), 1, /key cannot be read: \/nowhere\/k\.pem: there is no/],
    [flags(cert, withPassphrase), 1, /locked\.pem has a passphrase/],
    [['--tls-cert', '', '--tls-key', key], 2, /--tls-cert must not be empty/],
    [flags(broken, key), 1, /broken\.pem is no certificate in PEM/],
    [flags(cert, cert), 1, /localhost\.pem is no private key in PEM/],
    [flags(cert, file('www-key')), 1, /the key in .*www-key\.pem is not .* in .*localhost\.pem/],
  ];
  // A few at a time: on a busy machine each of them would wait for all.
  while (cases.length > 0) {
    const some = cases.splice(0, 4);
    const ends = await Promise.all(some.map(([args]) => run('serve', 'echo', ...args)));
    for (const [i, [, code, message]] of some.entries()) {
      assert.is(ends[i].code, code, ends[i].stderr);
      assert.match(ends[i].stderr, message);
      assert.is(ends[i].stdout, '');
    }
  }
});

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
