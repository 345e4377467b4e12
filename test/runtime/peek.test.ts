// Policies that see the first bytes of a connection: what they are told, that the bytes reach the
// loop as they were sent, and what becomes of clients that send too little, too slowly or nothing.

import { once } from 'node:events';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import * as assert from 'uvu/assert';
import {
  EventBase,
  type Incoming,
  type LoopGroup,
  type PeekFunction,
  type ServeOptions,
  serve,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { Coordinator } from '../../src/runtime/coordinator.js';
import { rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { allBackends } from '../machine.js';
import { testWhere } from '../where.js';
import { connect, epollSets, gone, portOf, until, workerFile } from './clients.js';
import { clientHello, fragmented, proxyV1, proxyV2 } from './first_bytes.js';
import { PSK } from './workers/tls_ender.js';

/** Longer than any test: what it bounds does not happen. */
const NEVER_MS = 60_000;
const PATIENCE_MS = 20_000;

let group: LoopGroup;
/** What the policy was told, in order. */
let told: Incoming[] = [];
let errors: (Error & { code?: string })[] = [];

type Peek = NonNullable<ServeOptions['peek']>;

/** A group whose policy notes what it is told, and asks `choose` for a loop. */
async function start(
  peek: Peek,
  choose: (incoming: Incoming) => number | 'refuse' = () => 0,
  options: Partial<ServeOptions> = {},
): Promise<void> {
  told = [];
  errors = [];
  const policy = (incoming: Incoming) => {
    told.push(incoming);
    return choose(incoming);
  };
  group = await serve({ worker: workerFile('taker'), loops: 1, policy, peek, ...options });
  group.on('error', (error) => errors.push(error));
}

test.after.each(async () => {
  await group?.close();
  assertBalanced();
  assert.is(native.ledgerCount(), 0, 'no descriptor is left');
});

function assertBalanced(): void {
  const { accepted, open, served, refused, lost } = group.stats();
  assert.is(accepted, open + served + refused + lost);
}

const patient = <T>(promise: Promise<T>, what: string) => within(PATIENCE_MS, promise, what);

async function allOf(socket: net.Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await patient(once(socket, 'end'), 'the answer');
  socket.destroy();
  return text;
}

/** Sends the pieces, each when the one before was looked at; answers which loop got what. */
async function deliver(...pieces: (string | Uint8Array)[]): Promise<[loop: number, bytes: string]> {
  const socket = await connect(group);
  socket.setNoDelay(true);
  for (const piece of pieces.slice(0, -1)) {
    await new Promise<void>((resolve) => socket.write(piece, () => resolve()));
    // Another turn of the coordinator, which runs on this thread.
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  socket.end(pieces.at(-1) as string | Uint8Array);
  const [loop, bytes] = (await allOf(socket)).split(' ');
  return [Number(loop), Buffer.from(bytes, 'base64').toString('latin1')];
}

const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

/** Bytes, cut into pieces of `size`. */
function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
  return pieces;
}

// ── routing ─────────────────────────────────────────────────────────────────────────────────────

const bySni = ({ sni }: Incoming) => Number(/^loop-(\d)\./.exec(sni ?? '')?.[1] ?? 0);

test('by SNI: TLS clients whose ClientHello arrives in pieces are served by their loop', async () => {
  await start({ read: 'tls', ms: NEVER_MS }, bySni, { worker: workerFile('tls_ender'), loops: 3 });
  // Sends on what a client sends, a few bytes at a time.
  const splitter = net.createServer((client) => {
    const onward = net.connect({ port: portOf(group), host: '127.0.0.1', noDelay: true });
    onward.pipe(client);
    client.on('error', () => undefined);
    onward.on('error', () => undefined);
    client.on('data', async (chunk) => {
      client.pause();
      for (const piece of cut(chunk, 40)) {
        onward.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      client.resume();
    });
  });
  await new Promise<void>((resolve) => splitter.listen(0, '127.0.0.1', resolve));
  const { port } = splitter.address() as net.AddressInfo;
  const answers = await Promise.all(
    [0, 1, 2, 1].map(async (loop) => {
      const socket = tls.connect({
        port,
        host: '127.0.0.1',
        servername: `loop-${loop}.test`,
        ciphers: PSK.ciphers,
        maxVersion: PSK.maxVersion,
        ALPNProtocols: ['h2', 'http/1.1'],
        pskCallback: () => ({ psk: PSK.key, identity: 'test' }),
        checkServerIdentity: () => undefined,
      });
      return allOf(socket);
    }),
  );
  splitter.close();
  assert.equal(
    answers,
    [0, 1, 2, 1].map((loop) => `${loop} loop-${loop}.test`),
  );
  for (const { alpn, tls: hello, peek } of told) {
    assert.equal(alpn, ['h2', 'http/1.1']);
    assert.equal(hello?.versions, ['TLSv1.2']);
    assert.is(peek, 'done');
  }
});

test('a ClientHello in any pieces and records, byte by byte too, arrives as it was sent', async () => {
  await start({ read: 'tls', ms: NEVER_MS }, bySni, { loops: 3 });
  const hello = clientHello({ sni: 'loop-2.test', alpn: ['x'] });
  for (const bytes of [hello, fragmented(hello, 50)])
    for (const size of [bytes.length, bytes.length - 1, 5, 1]) {
      const pieces = cut(bytes, size);
      if (size === 1) pieces.length = Math.min(pieces.length, 24);
      const sent = Buffer.concat([...pieces, bytes.subarray(pieces.length * size)]);
      const [loop, got] = await deliver(...pieces, bytes.subarray(pieces.length * size), 'more');
      assert.is(loop, 2);
      assert.is(got, `${latin1(sent)}more`);
      assert.is(told.at(-1)?.peek, 'done');
      assert.ok((told.at(-1) as Required<Incoming>).head.length >= bytes.length);
    }
});

test('by HTTP path, host and cookie', async () => {
  await start(
    { read: 'http', ms: NEVER_MS },
    ({ http }) => {
      if (http?.cookies.sid === 'two') return 2;
      if (http?.host === 'one.test') return 1;
      return http?.path === '/refused' ? 'refuse' : 0;
    },
    { loops: 3 },
  );
  const two = 'GET /x HTTP/1.1\r\nHost: a\r\nCookie: sid=two\r\n\r\n';
  assert.equal(await deliver(two), [2, two]);
  const one = 'POST /x HTTP/1.1\r\nHost: One.test:80\r\nContent-Length: 4\r\n\r\nbody';
  assert.equal(await deliver(...one.split(/(?<=\n)/)), [1, one]);
  const none = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
  assert.equal(await deliver(none.slice(0, 3), none.slice(3)), [0, none]);
  const refused = await connect(group);
  refused.write('GET /refused HTTP/1.1\r\n\r\n');
  await patient(gone(refused), 'the refusal');
  assert.is(group.stats().refused, 1);
  assert.is(latin1((told[0] as Required<Incoming>).head), two, "it is the policy's to keep");
});

test('by PROXY header, and by what follows it', async () => {
  await start(
    { read: ['proxy', 'tls', 'http'], ms: NEVER_MS },
    ({ proxy, sni, http }) => {
      const { source } = proxy ?? {};
      const last = source !== undefined && 'host' in source ? source.host.at(-1) : undefined;
      return sni === undefined && http === undefined ? 0 : Number(last ?? 0);
    },
    { loops: 3 },
  );
  const inet = Buffer.from([192, 0, 2, 1, 192, 0, 2, 9, 1, 2, 3, 4]);
  const get = 'GET / HTTP/1.1\r\n\r\n';
  const one = Buffer.concat([proxyV2(1, 0x11, inet), clientHello({ sni: 'any.test' })]);
  assert.equal(await deliver(...cut(one, 60)), [1, latin1(one)]);
  assert.is(told.at(-1)?.sni, 'any.test');
  const two = `${proxyV1('TCP6 2001:db8::2 ::1 5 6')}${get}`;
  assert.equal(await deliver(two.slice(0, 20), two.slice(20)), [2, two]);
  assert.equal([told.at(-1)?.http?.method, told.at(-1)?.proxy?.version], ['GET', 1]);
  assert.equal(await deliver(get), [0, get], 'without a header');
  const other = `${proxyV1('UNKNOWN')}\0other`;
  assert.equal(await deliver(other), [0, other]);
  assert.equal([told.at(-1)?.peek, told.at(-1)?.proxy?.version], ['other', 1]);
});

test("'sticky' behind a proxy goes by the address that the proxy says", async () => {
  await start({ read: 'proxy', ms: NEVER_MS }, undefined, { policy: 'sticky', loops: 3 });
  const loopsOf = async (host: string) => {
    const line = `${proxyV1(`TCP4 ${host} 10.0.0.1 1 2`)}`;
    const loops = [await deliver(line), await deliver(line.slice(0, 9), line.slice(9))];
    return loops.map(([loop]) => loop);
  };
  const seen = new Set<number>();
  for (let i = 0; i < 12; i++) {
    const [first, second] = await loopsOf(`192.0.2.${i}`);
    assert.is(first, second);
    seen.add(first);
  }
  assert.ok(seen.size > 1, 'all peers are 127.0.0.1, and they are shared out');
});

test('a reader of your own: by bytes, listener and peer; and bytes alone', async () => {
  const read: PeekFunction = (bytes, { listener, remote }) => {
    const end = bytes.indexOf(0x3b);
    if (bytes[0] === 0x21) return undefined;
    if (end === -1) return { done: false, need: bytes.length + 1 };
    const word = Buffer.from(bytes.subarray(0, end)).toString();
    return { done: true, word, name: listener.name, host: (remote as { host: string }).host };
  };
  await start({ read, ms: NEVER_MS }, ({ facts }) => (facts === undefined ? 0 : 1), {
    listen: { port: 0, name: 'words' },
    loops: 2,
  });
  assert.equal(await deliver('wo', 'rd;re', 'st'), [1, 'word;rest']);
  assert.equal(told[0].facts, { word: 'word', name: 'words', host: '127.0.0.1' });
  assert.equal(await deliver('!word;'), [0, '!word;']);
  assert.equal([told[1].peek, told[1].facts], ['other', undefined]);
  await group.close();
  await start({ bytes: 8, ms: NEVER_MS });
  assert.equal(await deliver('1234', '5678', '9'), [0, '123456789']);
  assert.equal([told[0].peek, latin1(told[0].head as Uint8Array)], ['done', '12345678']);
});

test('over a unix socket, where a client has no address', async () => {
  const path = join(tmpdir(), `multiloop-peek-${process.pid}.sock`);
  await start({ read: 'http', ms: NEVER_MS }, undefined, { listen: { path } });
  const client = net.connect({ path, allowHalfOpen: true });
  client.write('GET /unix HT');
  await until(() => group.stats().accepted === 1, 'it is accepted');
  client.end('TP/1.1\r\n\r\n');
  const text = 'GET /unix HTTP/1.1\r\n\r\n';
  assert.is(await allOf(client), `0 ${Buffer.from(text).toString('base64')}`);
  assert.equal([told[0].http?.path, told[0].remote], ['/unix', undefined]);
});

// ── bad times ───────────────────────────────────────────────────────────────────────────────────

test('readers that throw or answer nonsense are an error, and the connection is served', async () => {
  const answers = [
    () => {
      throw new Error('of the reader');
    },
    () => 'nonsense',
    () => null,
    () => ({ done: false }),
    () => ({ done: false, need: 3 }),
    () => Promise.resolve({ done: true }),
  ] as unknown as PeekFunction[];
  let next = 0;
  await start({ read: (...args) => answers[next++](...args), ms: NEVER_MS });
  for (const _ of answers) assert.equal(await deliver('one'), [0, 'one']);
  assert.is(errors[0].message, 'of the reader');
  assert.equal(
    errors.slice(1).map(({ code }) => code),
    Array.from({ length: 5 }, () => 'ERR_PEEK'),
  );
  assert.equal([...new Set(told.map(({ peek }) => peek))], ['error']);
});

test('slow and silent clients are handed on when the time is over, and go on', async () => {
  await start({ read: 'http', ms: 100 });
  const [silent, slow] = [await connect(group), await connect(group)];
  slow.write('GET / HT');
  await until(() => told.length === 2, 'both are handed on');
  for (const { peek } of told) assert.is(peek, 'ms');
  assert.equal(told.map(({ head }) => latin1(head as Uint8Array)).sort(), ['', 'GET / HT']);
  silent.end('x');
  slow.end('TP');
  assert.equal((await allOf(silent)).split(' ')[1], Buffer.from('x').toString('base64'));
  assert.equal((await allOf(slow)).split(' ')[1], Buffer.from('GET / HTTP').toString('base64'));
});

test('garbage, too many bytes, an early end and a reset', async () => {
  await start({ read: 'http', bytes: 64, ms: NEVER_MS });
  assert.equal(await deliver('\x16\x03garbage'), [0, '\x16\x03garbage']);
  const long = `GET /${'x'.repeat(100)}`;
  assert.equal(await deliver(long.slice(0, 40), long.slice(40)), [0, long]);
  assert.equal(await deliver(''), [0, '']);
  const resets = [await connect(group), await connect(group)];
  resets[1].write('GET');
  await until(() => group.stats().open === 2, 'both are accepted');
  await new Promise((resolve) => setTimeout(resolve, 5));
  for (const socket of resets) socket.resetAndDestroy();
  await until(() => group.stats().open === 0, 'their ends are noticed');
  assert.equal(
    told.map(({ peek }) => peek),
    ['other', 'bytes', 'end', 'end', 'end'],
  );
  assert.is((told[1].head as Uint8Array).length, 64);
  assert.is(group.stats().served, 5);
});

testWhere(
  EventBase.backends()
    .find(({ available }) => available)
    ?.features.includes('early-close')
    ? undefined
    : 'no early close here',
  'the end of a peer that has sent a part is noticed at once',
  async () => {
    await start({ read: 'http', ms: NEVER_MS });
    assert.equal(await deliver('GET', ' /'), [0, 'GET /']);
    assert.is(told[0].peek, 'end');
  },
);

test('a head that says it is longer than what is looked at is not waited for', async () => {
  await start({ read: 'tls', bytes: 100, ms: NEVER_MS });
  const hello = clientHello({ sni: 'a.test', alpn: ['y'.repeat(200)] });
  const socket = await connect(group);
  socket.write(hello.subarray(0, 10));
  await until(() => told.length === 1, 'it is handed on');
  assert.is(told[0].peek, 'bytes');
  socket.destroy();
});

test('one more than may wait, and the oldest is handed on', async () => {
  await start({ read: 'http', connections: 4, ms: NEVER_MS });
  const clients: net.Socket[] = [];
  for (let i = 0; i < 7; i++) {
    const client = await connect(group);
    clients.push(client);
    await until(() => group.stats().accepted === i + 1, 'it is accepted');
  }
  await until(() => told.length === 3, 'three are handed on');
  for (const { peek } of told) assert.is(peek, 'connections');
  const ports = told.map(({ remote }) => (remote as { port: number }).port);
  assert.equal(
    ports,
    clients.slice(0, 3).map((client) => client.localPort),
  );
  for (const client of clients) client.destroy();
  await until(() => group.stats().served === 7, 'all have ended');
});

test('many clients at once, each in two pieces', async () => {
  // One loop: on a busy machine one of several may be blocked, and is not among those to choose.
  await start({ read: 'http', ms: NEVER_MS });
  const texts = Array.from({ length: 200 }, (_, i) => `GET /${i} HTTP/1.1\r\nNo: ${i}\r\n\r\n`);
  const answers = await Promise.all(
    texts.map((text, i) => deliver(text.slice(0, i % text.length), text.slice(i % text.length))),
  );
  assert.equal(
    answers,
    texts.map((text) => [0, text]),
  );
  const numbers = told.map(({ http }) => [http?.path, http?.headers.no]);
  assert.equal(
    numbers.sort(([, a], [, b]) => Number(a) - Number(b)),
    texts.map((_, i) => [`/${i}`, `${i}`]),
  );
  const { accepted, served } = group.stats();
  assert.equal([accepted, served], [200, 200]);
});

test('a group that closes while it waits leaves nothing behind', async () => {
  await start({ read: 'http', ms: NEVER_MS });
  const clients = await Promise.all(Array.from({ length: 10 }, () => connect(group)));
  clients[0].write('GET');
  await until(() => group.stats().accepted === 10, 'all are accepted');
  assert.is(group.stats().open, 10);
  await patient(group.close(), 'closing');
  await patient(Promise.all(clients.map(gone)), 'the clients learn it');
  assert.is(told.length, 0);
  const { open, refused } = group.stats();
  assert.equal([open, refused], [0, 10]);
});

test('a reader that closes the group', async () => {
  const read: PeekFunction = (bytes) => {
    if (bytes.length === 3) group.close();
    return { done: false, need: bytes.length + 1 };
  };
  await start({ read, ms: NEVER_MS });
  const clients = [await connect(group), await connect(group)];
  clients[0].write('GE');
  clients[1].write('GET');
  await patient(Promise.all(clients.map(gone)), 'both learn it');
  await patient(group.closed, 'the group has closed');
  assert.equal([group.stats().refused, told.length], [2, 0]);
});

test('a loop that dies before it took a connection: the policy sees the first bytes again', async () => {
  await start({ read: 'http', ms: NEVER_MS }, undefined, { worker: workerFile('mover') });
  const [first, second] = [await connect(group), await connect(group)];
  const lines = (socket: net.Socket) => patient(once(socket, 'data'), 'an answer').then(String);
  first.write('GET / HTTP/1.1\r\n\r\n');
  await lines(first);
  first.write('spin 20000\n');
  assert.match(await lines(first), 'spinning');
  await until(() => group.loops[0].state === 'blocked', 'the loop is busy');
  second.write('GET /second HTTP/1.1\r\n\r\n');
  await until(() => told.length === 2, 'it is in the inbox of the loop');
  await group.loops[0].terminate();
  assert.match(await lines(second), 'GET /second HTTP/1.1');
  // Twice, and once more if it was asked while the loop's end was not known yet.
  const paths = told.map(({ http }) => http?.path);
  assert.ok(paths.length >= 3, `${paths}`);
  assert.equal([...new Set(paths.slice(1))], ['/second']);
  for (const socket of [first, second]) socket.destroy();
});

testWhere(
  allBackends.includes('epoll') ? undefined : 'epoll is not available here',
  'what is handed on is in no set of the coordinator any more',
  async () => {
    await start({ read: 'http', ms: NEVER_MS });
    await deliver('GET / HTTP/1.1\r\n\r\n');
    const before = new Set(epollSets().flat());
    const client = await connect(group);
    const own = (client as unknown as { _handle: { fd: number } })._handle.fd;
    client.write('GET');
    await until(() => group.stats().accepted === 2, 'it is accepted');
    const watched = () =>
      epollSets()
        .flat()
        .filter((fd) => !before.has(fd) && fd !== own);
    await until(() => watched().length === 1, 'it is in the set of the coordinator');
    const [fd] = watched();
    client.write(' / HTTP/1.1\r\n\r\n');
    await until(() => group.loops[0].stats.open === 1, 'the loop has it');
    await until(() => watched().length === 1 && told.length === 2, 'it waits there');
    const { bytesRead } = group.loops[0].stats;
    client.write('more');
    await until(() => group.loops[0].stats.bytesRead > bytesRead, 'the loop has read it');
    assert.equal(watched(), [fd], "it is in one set, which is the loop's");
    client.destroy();
  },
);

// ── what it costs ───────────────────────────────────────────────────────────────────────────────

const TRICKLED = 60;
/** More than it takes: by the clock each look is when the connection is half as old again. */
const LOOKS_MAX = 16 + 30;
const TURNS_MAX = 150;

for (const backend of allBackends)
  test(`${backend}: a client that trickles costs few looks, and nothing while it is silent`, async () => {
    const others = allBackends.filter((name) => name !== backend);
    const variables = others.map((name) => `EVENT_NO${name.toUpperCase()}`);
    for (const variable of variables) process.env[variable] = '1';
    let looks = 0;
    const read: PeekFunction = (bytes) => {
      looks++;
      return { done: false, need: bytes.length + 1 };
    };
    try {
      await start({ read, ms: NEVER_MS });
    } finally {
      for (const variable of variables) delete process.env[variable];
    }
    const coordinator = Coordinator.acquire();
    try {
      const { base } = coordinator;
      assert.is(base.backend, backend);
      const client = await connect(group);
      client.setNoDelay(true);
      for (let i = 0; i < TRICKLED; i++) {
        client.write('x');
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await until(() => looks > 1, 'it is looked at');
      assert.ok(looks <= LOOKS_MAX, `${looks} looks at ${TRICKLED} bytes`);
      let turns = 0;
      const watcher = base.prepare(() => {
        turns++;
      });
      await new Promise((resolve) => setTimeout(resolve, 200));
      watcher.free();
      assert.ok(turns < TURNS_MAX, `${turns} turns in 200 ms without a byte`);
      assert.is(told.length, 0);
      client.resetAndDestroy();
      await until(() => told.length === 1, 'its end is noticed');
      assert.equal([told[0].peek, (told[0].head as Uint8Array).length], ['end', TRICKLED]);
      await until(() => group.stats().open === 0, 'the loop sees it too');
    } finally {
      coordinator.release();
    }
  });

// ── options ─────────────────────────────────────────────────────────────────────────────────────

test('options that make no sense', async () => {
  const refusal = async (peek: unknown, policy: unknown = () => 0) =>
    rejectionOf(
      serve({ worker: workerFile('taker'), peek, policy } as ServeOptions).then((served) =>
        served.close(),
      ),
    );
  const codes: [peek: unknown, code: string, message: RegExp, policy?: unknown][] = [
    ['smtp', 'ERR_INVALID_ARG_VALUE', /"options\.peek".*'tls', 'proxy', 'http'/],
    [['tls', 'smtp'], 'ERR_INVALID_ARG_VALUE', /"options\.peek"/],
    [[], 'ERR_INVALID_ARG_VALUE', /1 to 8 readers/],
    [true, 'ERR_INVALID_ARG_TYPE', /"options\.peek"/],
    [null, 'ERR_INVALID_ARG_TYPE', /"options\.peek"/],
    [{}, 'ERR_INVALID_ARG_VALUE', /options\.peek\.bytes/],
    [{ read: 5 }, 'ERR_INVALID_ARG_TYPE', /"options\.peek\.read"/],
    [{ read: 'tls', bytes: 0 }, 'ERR_OUT_OF_RANGE', /"options\.peek\.bytes"/],
    [{ read: 'tls', bytes: 65_537 }, 'ERR_OUT_OF_RANGE', /65536/],
    [{ read: 'tls', bytes: '9' }, 'ERR_INVALID_ARG_TYPE', /"options\.peek\.bytes"/],
    [{ read: 'tls', ms: 0 }, 'ERR_OUT_OF_RANGE', /"options\.peek\.ms"/],
    [{ read: 'tls', connections: 1.5 }, 'ERR_OUT_OF_RANGE', /"options\.peek\.connections"/],
    ['tls', 'ERR_INVALID_ARG_VALUE', /no other looks at it/, 'round-robin'],
    ['tls', 'ERR_INVALID_ARG_VALUE', /no other looks at it/, 'sticky'],
  ];
  for (const [peek, code, message, policy] of codes) {
    const error = await refusal(peek, policy);
    assert.is(error.code, code, `${JSON.stringify(peek)}: ${error.message}`);
    assert.match(error.message, message);
  }
});

test.run();
