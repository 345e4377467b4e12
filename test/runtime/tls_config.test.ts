// Certificates, keys and settings that cannot be used: what is said of them, wherever they are given,
// and that nothing of them is left, half configured or listening.

import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HttpServer } from '../../src/http.js';
import { EventBase, serve, type TlsServerOptions } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf, thrownBy } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { descriptors, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const why = native.tlsUnavailable();
const good = pair('localhost');
const broken = good.cert.replace(/\n[A-Za-z0-9+/]{10}/, '\n!!!!');
const locked = (type: 'pkcs8' | 'sec1') =>
  createPrivateKey(good.key).export({
    ...{ type, format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' },
  } as never) as unknown as string;

/** Each with what is said of it behind the name of the option. */
const wrong: Record<string, [options: object, message: RegExp]> = {
  'a name in place of a text': [{ cert: 'cert.pem' }, /^: the certificate is no PEM/],
  'a certificate in DER': [
    { cert: new X509Certificate(good.cert).raw },
    /^: the certificate is no PEM/,
  ],
  'a broken certificate': [{ cert: broken }, /^: the certificate is no PEM .*base64/],
  'half a certificate': [{ cert: good.cert.slice(0, 200) }, /^: the certificate is no PEM/],
  'a broken one in the chain': [{ cert: good.cert + broken }, /^: the certificate is no PEM/],
  'a key for a certificate': [{ cert: good.key }, /^: the certificate is no PEM/],
  'a certificate for a key': [{ key: good.cert }, /^: the key is no PEM/],
  'a public key': [
    { key: createPublicKey(good.cert).export({ type: 'spki', format: 'pem' }) },
    /^: the key is no PEM/,
  ],
  'a key with a passphrase': [{ key: locked('pkcs8') }, /^\.key has a passphrase/],
  'the same, as OpenSSL wrote it': [{ key: locked('sec1') }, /^\.key has a passphrase/],
  "another certificate's key": [{ key: pair('www').key }, /^: the key is not the certificate's/],
  'two certificates and one key': [
    { cert: [good.cert, pair('www').cert] },
    / has 2 certificates and 1 keys/,
  ],
  'one of two keys is wrong': [
    { cert: [good.cert, pair('rsa').cert], key: [good.key, good.key] },
    /^: the key is not the certificate's/,
  ],
  'a wrong key for a name': [
    { contexts: { 'a.test': pair('www'), '*.b.test': { ...pair('www'), key: good.key } } },
    /^\.contexts\['\*\.b\.test'\]: the key is not the certificate's/,
  ],
  'broken authorities': [{ ca: broken }, /^: the authorities are no PEM/],
  'no such cipher': [{ ciphers: 'no-such-cipher' }, /^: .*ciphers/],
  'no such group': [{ groups: 'no-such-group' }, /^: .*groups/],
};
const check = (error: NodeJS.ErrnoException, name: string, message: RegExp) => {
  assert.is(error.code, 'ERR_TLS_CONFIG', error.message);
  assert.ok(error.message.startsWith(name), error.message);
  assert.match(error.message.slice(name.length), message);
};

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
const isFree = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(false);
    });
    socket.on('error', () => resolve(true));
  });

test('serve() says which listener and what is wrong, and leaves nothing', async () => {
  const port = await freePort();
  const group = (listen: object | object[]) =>
    serve({ worker: workerFile('mover'), loops: 1, listen: listen as never });
  const contexts = native.tlsContextCount();
  const before = descriptors().length;
  for (const [message, [options, pattern]] of Object.entries(wrong)) {
    const bad = { ...good, ...options };
    const one = await rejectionOf(group({ port, tls: bad }));
    check(one, 'listen.tls', pattern);
    // The first of the two has its socket and its context by then.
    const other = await rejectionOf(
      group([
        { port, tls: good },
        { port: 0, tls: bad },
      ]),
    );
    check(other, 'listen[1].tls', pattern);
    assert.is(native.tlsContextCount(), contexts, message);
    assert.ok(await isFree(port), message);
  }
  await until(() => descriptors().length <= before, 'descriptors are back');
});

interface Far {
  client: LineClient;
  name: string | undefined;
}
async function connect(port: number, servername = 'localhost'): Promise<Far> {
  const far = tls.connect({ host: '127.0.0.1', port, servername, ca, rejectUnauthorized: false });
  far.on('error', () => undefined);
  await once(far, 'secureConnect');
  return { client: LineClient.of(far), name: far.getPeerX509Certificate()?.subject };
}

test('setTls() says the same, and the old one stays for every name', async () => {
  const contexts = { 'www.example.org': pair('www') };
  const before = native.tlsContextCount();
  const group = await serve({
    worker: workerFile('mover'),
    loops: 2,
    listen: { port: 0, name: 'one', tls: { ...good, contexts } },
  });
  try {
    const count = native.tlsContextCount();
    const living = await connect(portOf(group));
    for (const [options, pattern] of Object.values(wrong)) {
      const set = group.setTls('one', { ...good, ...options } as TlsServerOptions);
      check(await rejectionOf(set), 'tls', pattern);
      assert.is(native.tlsContextCount(), count);
    }
    const shown: (string | undefined)[] = [];
    for (const name of ['localhost', 'www.example.org', 'unknown.test', 'a.www.example.org']) {
      const far = await connect(portOf(group), name);
      shown.push(far.name);
      assert.match(await far.client.ask('here'), /^here 1 /);
      await far.client.end();
    }
    assert.equal(shown, ['CN=localhost', 'CN=www.example.org', 'CN=localhost', 'CN=localhost']);
    assert.match(await living.client.ask('still'), /^still 1 /);
    await living.client.end();
  } finally {
    await group.close();
  }
  assert.is(native.tlsContextCount(), before);
});

test('HttpServer.listen() and its setTls() say the same', () => {
  const base = new EventBase();
  const server = new HttpServer(base, { request: (_, response) => response.send('x') });
  const contexts = native.tlsContextCount();
  const before = descriptors().length;
  const listener = server.listen({ port: 0, tls: good });
  for (const [options, pattern] of Object.values(wrong)) {
    const bad = { ...good, ...options };
    check(
      thrownBy(() => server.listen({ port: 0, tls: bad })),
      'listen.tls',
      pattern,
    );
    check(
      thrownBy(() => listener.setTls(bad)),
      'tls',
      pattern,
    );
  }
  assert.is(native.tlsContextCount(), contexts + 1);
  server.close();
  assert.is(native.tlsContextCount(), contexts);
  assert.is(descriptors().length, before);
  base.close();
});

test('a certificate that has expired is used, and each time that is said', async () => {
  const warnings: string[] = [];
  const warn = (warning: Error & { code?: string }) => {
    if (warning.code === 'MULTILOOP_TLS_EXPIRED') warnings.push(warning.message);
  };
  process.on('warning', warn);
  const contexts = { 'www.example.org': pair('expired') };
  const group = await serve({
    worker: workerFile('mover'),
    loops: 1,
    listen: { port: 0, name: 'one', tls: { ...good, contexts } },
  });
  try {
    await group.setTls('one', pair('expired'));
    const far = await connect(portOf(group));
    assert.match(await far.client.ask('here'), /^here 1 /);
    await far.client.end();
    await until(() => warnings.length === 2, 'both are warned of');
    assert.match(warnings[0], "listen.tls.contexts['www.example.org'].cert is not valid any more");
    assert.match(warnings[1], /^tls\.cert is not valid any more/);
  } finally {
    process.off('warning', warn);
    await group.close();
  }
});

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
