// The readers of a connection's first bytes: what they find in real ones, what they make of every
// part of these, and of anything else.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type ClientHello,
  type Head,
  readClientHello,
  readHttpHead,
  readProxyHeader,
} from '../../src/index.js';
import { checkPeek } from '../../src/runtime/peek.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { testWhere } from '../where.js';
import { clientHello, fragmented, hasOpenssl, proxyV1, proxyV2 } from './first_bytes.js';

type Reader = (bytes: Uint8Array) => Head<object>;
const readers: Record<string, Reader> = { readClientHello, readProxyHeader, readHttpHead };

const latin1 = (text: string) => Buffer.from(text, 'latin1');
const httpHead = (text: string) => {
  const head = readHttpHead(latin1(text));
  return head?.done === true ? head : undefined;
};
const proxyHeader = (bytes: Uint8Array) => {
  const head = readProxyHeader(bytes);
  return head?.done === true ? head : undefined;
};

function helloOf(bytes: Uint8Array): ClientHello {
  const head = readClientHello(bytes);
  if (head?.done !== true) throw new Error(`not read: ${JSON.stringify(head)}`);
  return head;
}

/**
 * What every reader promises of `whole`, whose head it reads: each part of it needs more, never
 * more than there will be, and says nothing before it has that; and what follows changes nothing.
 */
function assertEveryPart(read: Reader, whole: Uint8Array): void {
  const head = read(whole) as { done: true; length: number };
  assert.is(head?.done, true);
  let need = 1;
  for (let count = 0; count < head.length; count++) {
    const part = read(whole.subarray(0, count));
    if (part?.done !== false) throw new Error(`${count} bytes: ${JSON.stringify(part)}`);
    if (part.need <= count || part.need > head.length)
      throw new Error(`${count} of ${head.length} bytes need ${part.need}`);
    if (part.need < need) throw new Error(`at ${count} ${need} were needed, now ${part.need}`);
    need = part.need;
  }
  assert.equal(read(whole.subarray(0, head.length)), head);
  assert.equal(read(Buffer.concat([whole, latin1('\0\r\n\r\nGET')])), head);
}

/** For any bytes at all: no exception, and no change of mind. */
function assertSteady(read: Reader, bytes: Uint8Array): void {
  let before: Head<object>;
  for (let count = 0; count <= bytes.length; count++) {
    const now = read(bytes.subarray(0, count));
    if (now?.done === false) assert.ok(now.need > count, `${count} bytes need ${now.need}`);
    if (count === 0) assert.is(now?.done, false, 'no bytes say nothing');
    else if (before?.done === false) {
      if (count < before.need) assert.is.not(now?.done, true, `${before.need} were needed`);
    } else assert.equal(now, before);
    before = now;
  }
}

// ── TLS ──

/** The first bytes that a client sends, up to the end of its ClientHello. */
async function captured(start: (port: number) => () => void): Promise<Buffer> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = start((server.address() as AddressInfo).port);
  try {
    const [socket] = (await within(PATIENCE_MS, once(server, 'connection'), 'connect')) as [
      net.Socket,
    ];
    socket.on('error', () => undefined);
    let bytes = Buffer.alloc(0);
    while (readClientHello(bytes)?.done === false)
      bytes = Buffer.concat([
        bytes,
        ...((await within(PATIENCE_MS, once(socket, 'data'), 'hello')) as Buffer[]),
      ]);
    socket.destroy();
    return bytes;
  } finally {
    stop();
    server.close();
  }
}

const fromNode = (options: tls.ConnectionOptions) =>
  captured((port) => {
    const socket = tls.connect({ port, host: '127.0.0.1', ...options });
    socket.on('error', () => undefined);
    return () => socket.destroy();
  });

const fromOpenssl = (...options: string[]) =>
  captured((port) => {
    const args = ['s_client', '-connect', `127.0.0.1:${port}`, ...options];
    const child = spawn('openssl', args, { stdio: ['pipe', 'ignore', 'ignore'] });
    return () => child.kill('SIGKILL');
  });

const both = ['TLSv1.3', 'TLSv1.2'];

test('ClientHellos of Node', async () => {
  const plain = await fromNode({});
  const { length } = helloOf(plain);
  assert.equal(helloOf(plain), { done: true, alpn: [], versions: both, length } as never);
  const full = await fromNode({ servername: 'WWW.Example.org', ALPNProtocols: ['h2', 'http/1.1'] });
  const { sni, alpn, versions } = helloOf(full);
  assert.equal(
    { sni, alpn, versions },
    {
      sni: 'www.example.org',
      alpn: ['h2', 'http/1.1'],
      versions: both,
    },
  );
  const old = await fromNode({ servername: 'old.test', maxVersion: 'TLSv1.2' });
  assert.equal([helloOf(old).sni, helloOf(old).versions], ['old.test', ['TLSv1.2']]);
  for (const hello of [plain, full, old]) assertEveryPart(readClientHello, hello);
});

testWhere(
  hasOpenssl ? undefined : 'no openssl here',
  'ClientHellos of openssl s_client, whole and in records of any size',
  async () => {
    // What a system's configuration offers by default is its own affair.
    const modern = ['-no_tls1', '-no_tls1_1'];
    const hellos = [
      await fromOpenssl('-servername', 'a.test', '-alpn', 'h2,acme-tls/1', ...modern),
      await fromOpenssl('-noservername', '-tls1_2'),
      await fromOpenssl('-servername', 'long.test', '-alpn', `${'p'.repeat(200)},x`, ...modern),
    ];
    const facts = hellos.map((hello) => {
      const { sni, alpn, versions } = helloOf(hello);
      return [sni, alpn.map((name) => name.length), versions];
    });
    assert.equal(facts, [
      ['a.test', [2, 10], both],
      [undefined, [], ['TLSv1.2']],
      ['long.test', [200, 1], both],
    ]);
    for (const hello of hellos) {
      assertEveryPart(readClientHello, hello);
      for (const size of [1, 3, 4, 5, 100, 400]) {
        const pieces = fragmented(hello, size);
        assert.equal({ ...helloOf(pieces), length: 0 }, { ...helloOf(hello), length: 0 });
        assertEveryPart(readClientHello, pieces);
      }
    }
  },
);

test('what is wrong with a ClientHello is not believed', () => {
  const good = clientHello({ sni: 'good.test', alpn: ['h2'], versions: [0x0a0a, 0x0304, 0x0303] });
  assert.equal(helloOf(good).versions, both);
  assertEveryPart(readClientHello, good);
  const broken: Record<string, Buffer> = {
    'another message': Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0]),
    'another record': Buffer.from([23, 3, 3, 0, 4, 1, 0, 0, 0]),
    'SSL 2': Buffer.from([0x80, 0x2e, 1, 0, 2]),
    'an empty record': Buffer.from([22, 3, 1, 0, 0]),
    'a record that is too long': Buffer.from([22, 3, 1, 0x40, 1]),
    'a message that is too long': Buffer.from([22, 3, 1, 0, 4, 1, 255, 255, 255]),
    'two names': clientHello({ names: ['a.test', 'b.test'] }),
    'a name with a NUL': clientHello({ sni: 'good.test\0.evil.test' }),
    'an empty name': clientHello({ sni: '' }),
    'an empty protocol': clientHello({ alpn: [''] }),
    'an extension twice': clientHello({ sni: 'a.test', extra: [[0, Buffer.alloc(0)]] }),
    'bytes behind the extensions': clientHello({ sni: 'a.test', behind: Buffer.from([0]) }),
    'a random that is cut off': clientHello({ cut: 30 }),
  };
  for (const [what, bytes] of Object.entries(broken))
    assert.is(readClientHello(bytes), undefined, what);
  assert.equal(helloOf(clientHello({ bare: true })).versions, ['TLSv1.2'], 'no extensions');
});

// ── PROXY ──

test('PROXY headers, version 1', () => {
  const source = { host: '192.0.2.1', port: 56_324, family: 4 };
  const destination = { host: '192.0.2.2', port: 443, family: 4 };
  const line = proxyV1('TCP4 192.0.2.1 192.0.2.2 56324 443');
  const facts = { done: true, version: 1, local: false, source, destination, length: line.length };
  assert.equal(readProxyHeader(line), facts as never);
  const six = proxyHeader(proxyV1('TCP6 2001:DB8:0:0::1 ::1 1 65535'));
  assert.equal(six?.source, { host: '2001:db8::1', port: 1, family: 6 });
  for (const unknown of ['UNKNOWN', 'UNKNOWN ff:ff 1.2.3.4 what ever']) {
    const found = proxyHeader(proxyV1(unknown));
    assert.equal([found?.version, found?.source], [1, undefined]);
    assertEveryPart(readProxyHeader, proxyV1(unknown));
  }
  assertEveryPart(readProxyHeader, line);
  for (const wrong of [
    'TCP4 192.0.2.1 192.0.2.2 56324',
    'TCP4 192.0.2.1 192.0.2.2 56324 443 ',
    'TCP4  192.0.2.1 192.0.2.2 56324 443',
    'TCP4 192.0.2.256 192.0.2.2 1 443',
    'TCP4 ::1 ::1 1 443',
    'TCP6 192.0.2.1 192.0.2.2 1 443',
    'TCP6 fe80::1%eth0 ::1 1 443',
    'TCP4 192.0.2.1 192.0.2.2 01 443',
    'TCP4 192.0.2.1 192.0.2.2 1 65536',
    'UDP4 192.0.2.1 192.0.2.2 1 2',
    `UNKNOWN ${'x'.repeat(107)}`,
  ])
    assert.is(readProxyHeader(proxyV1(wrong)), undefined, wrong);
});

test('PROXY headers, version 2', () => {
  const inet = Buffer.from([192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 187]);
  const source = { host: '192.0.2.1', port: 56_324, family: 4 };
  const destination = { host: '192.0.2.2', port: 443, family: 4 };
  const v4 = proxyV2(1, 0x11, inet);
  const facts = { done: true, version: 2, local: false, length: 28, source, destination };
  assert.equal(readProxyHeader(v4), facts as never);
  const withTlv = proxyV2(1, 0x11, Buffer.concat([inet, Buffer.from([4, 0, 2, 9, 9])]));
  assert.equal(readProxyHeader(withTlv), { ...facts, length: 33 } as never);
  const inet6 = Buffer.alloc(36);
  inet6.writeUInt32BE(0x20010db8, 0);
  inet6[15] = inet6[31] = 1;
  inet6.writeUInt16BE(80, 32);
  const v6 = proxyV2(1, 0x21, inet6);
  assert.equal(proxyHeader(v6)?.source, { host: '2001:db8::1', port: 80, family: 6 });
  assert.equal(proxyHeader(v6)?.destination, { host: '::1', port: 0, family: 6 });
  const unix = Buffer.alloc(216);
  unix.write('/run/app.sock', 0);
  unix.write('\0abstract', 108);
  const v9 = proxyV2(1, 0x31, unix);
  assert.equal(proxyHeader(v9)?.source, { path: '/run/app.sock' });
  assert.equal(proxyHeader(v9)?.destination, { path: '@abstract' });
  const local = proxyV2(0, 0x11, inet);
  assert.equal([proxyHeader(local)?.local, proxyHeader(local)?.source], [true, undefined]);
  const unspecified = proxyV2(1, 0, Buffer.alloc(5));
  assert.equal([proxyHeader(unspecified)?.local, proxyHeader(unspecified)?.length], [false, 21]);
  for (const whole of [v4, withTlv, v6, v9, local, unspecified])
    assertEveryPart(readProxyHeader, whole);
  const versionOne = Buffer.from(v4);
  versionOne[12] = 0x11;
  const wrong = {
    'version 1': versionOne,
    'a command that is none': proxyV2(2, 0x11, inet),
    'a family that is none': proxyV2(1, 0x41, inet),
    'a transport that is none': proxyV2(1, 0x13, inet),
    'an address that is cut off': proxyV2(1, 0x21, inet),
  };
  for (const [what, bytes] of Object.entries(wrong))
    assert.is(readProxyHeader(bytes), undefined, what);
});

// ── HTTP ──

test('HTTP heads', () => {
  const text =
    'GET /chat/7?x=1 HTTP/1.1\r\nHost: WWW.Example.org:8080\r\n' +
    'Cookie: sid=42; theme = dark\r\nX-One:  a \r\nx-one:\tb\r\ncookie: sid=43; q="1=2"\r\n\r\n';
  const head = httpHead(`${text}body`);
  assert.equal(
    { ...head?.headers },
    {
      host: 'WWW.Example.org:8080',
      cookie: 'sid=42; theme = dark; sid=43; q="1=2"',
      'x-one': 'a, b',
    },
  );
  assert.equal({ ...head?.cookies }, { sid: '42', theme: 'dark', q: '"1=2"' });
  const { method, target, path, version, host, length } = head ?? {};
  assert.equal(
    [method, target, path, version, host, length],
    ['GET', '/chat/7?x=1', '/chat/7', '1.1', 'www.example.org', text.length],
  );
  assertEveryPart(readHttpHead, latin1(text));
  const bare = '\r\n\nOPTIONS * HTTP/1.0\n\n';
  assert.equal([httpHead(bare)?.path, httpHead(bare)?.version], ['*', '1.0']);
  assert.is(httpHead(bare)?.host, undefined);
  assert.is(httpHead(bare)?.headers.constructor, undefined);
  const hostOf = (target: string, header: string) =>
    httpHead(`GET ${target} HTTP/1.1\r\nhost:${header}\r\n\r\n`)?.host;
  assert.is(hostOf('http://a.test:1/b?c', 'b.test'), 'a.test', 'the target is stronger');
  assert.is(hostOf('/', '[::1]:80'), '[::1]');
  for (const none of ['', 'a b', 'a,b', 'a:b', '[::1', 'u@a'])
    assert.is(hostOf('/', none), undefined, none);
  assert.is(httpHead('GET http://a.test?q HTTP/1.1\r\n\r\n')?.path, '/');
  assert.is(httpHead('GET http://u@a.test HTTP/1.1\r\n\r\n')?.host, 'a.test');
});

test('what is no HTTP head, or may be read in two ways', () => {
  for (const wrong of [
    'HELO mail.example.org\r\n',
    'SSH-2.0-OpenSSH_9.9\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'GET /\r\n',
    'GET / HTTP/1.1 \r\n',
    'GET  / HTTP/1.1\r\n',
    'GET /\x01 HTTP/1.1\r\n',
    `${'M'.repeat(33)} `,
    '\x16\x03\x01',
    '\r\n\r\n\0\r\nQUIT\n',
    'GET / HTTP/1.1\r\nHost : a\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n',
    'GET / HTTP/1.1\r\nno colon\r\n\r\n',
    'GET / HTTP/1.1\r\nX: a\rb\r\n\r\n',
    'GET / HTTP/1.1\r\nX: a\0b\r\n\r\n',
    `GET / HTTP/1.1\r\n${'a:b\r\n'.repeat(257)}\r\n`,
  ])
    assert.is(readHttpHead(latin1(wrong)), undefined, JSON.stringify(wrong));
  // Seen at the first byte that cannot be, not at the end of a line that never comes.
  assert.is(readHttpHead(latin1('GET / HTTQ')), undefined);
});

// ── what is asked for ───────────────────────────────────────────────────────────────────────────

test('the forms of the option, and its defaults', () => {
  const policy = () => 0;
  const limits = { bytes: 16_384, ms: 1_000, connections: 4_096 };
  assert.equal(checkPeek('tls', policy), { readers: ['tls'], ...limits });
  assert.equal(checkPeek(['proxy', 'http'], policy), { readers: ['proxy', 'http'], ...limits });
  assert.equal(checkPeek('proxy', 'sticky'), { readers: ['proxy'], ...limits });
  assert.equal(checkPeek({ bytes: 9 }, policy), { readers: [], ...limits, bytes: 9 });
  const options = { read: 'http', bytes: 1, ms: 2, connections: 3 };
  const { read, ...given } = options;
  assert.equal(checkPeek(options, policy), { readers: [read], ...given });
  assert.is(checkPeek(undefined, 'round-robin'), undefined);
});

// ── anything ──

/** Bytes that are near what is expected: real beginnings, changed and cut together. */
const pieces = [
  clientHello({ sni: 'a.test', alpn: ['h2'] }).subarray(0, 60),
  Buffer.from([22, 3, 1, 0, 3, 1, 0, 0, 22, 3, 3, 0, 1, 40]),
  proxyV1('TCP4 1.2.3.4 5.6.7.8 9 10'),
  proxyV2(1, 0x11, Buffer.alloc(12)),
  latin1('GET / HTTP/1.1\r\nHost: a\r\n\r\n'),
  latin1('\r\n'),
  latin1('PROXY '),
  latin1('Cookie: a=b; c\r\n'),
];
const near = fc
  .array(
    fc.oneof(
      fc.constantFrom(...pieces),
      fc.uint8Array({ maxLength: 6 }),
      fc.tuple(fc.constantFrom(...pieces), fc.nat(), fc.nat(255)).map(([piece, at, value]) => {
        const changed = Buffer.from(piece);
        changed[at % changed.length] = value;
        return changed;
      }),
    ),
    { maxLength: 5 },
  )
  .map((parts) => Buffer.concat(parts));

for (const [name, read] of Object.entries(readers))
  test(`${name} throws for nothing and changes its mind about nothing`, () => {
    fc.assert(
      fc.property(near, (bytes) => assertSteady(read, bytes)),
      { numRuns: 400 },
    );
  });

test('a ClientHello with any one byte changed is read or refused', () => {
  const hello = clientHello({ sni: 'some.test', alpn: ['h2', 'http/1.1'], versions: [0x0304] });
  for (let at = 0; at < hello.length; at++)
    for (const value of [0, 1, 0x7f, 0xff, hello[at] ^ 1]) {
      const changed = Buffer.from(hello);
      changed[at] = value;
      const head = readClientHello(changed);
      if (head?.done === false) assert.ok(head.need > changed.length);
      if (head?.done === true) assert.ok(head.length <= changed.length);
    }
});

test.run();
