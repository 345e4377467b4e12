// TLS over streams that are no sockets.

import { X509Certificate } from 'node:crypto';
import * as assert from 'uvu/assert';
import { BufferEvent, Ev, RateLimit, type TlsInfo } from '../../src/index.js';
import { HANDSHAKE_STEPS_MAX } from '../../src/stream/handshake_turns.js';
import { codeOf } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { patterned, textOf, until } from './rig.js';
import { Tape } from './tape.js';
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

test('it is for another stream what a socket with TLS is: its facts go through what is above', async (rig) => {
  const ALPNProtocols = ['one'];
  const ofServer = { ...server, ALPNProtocols };
  const ofClient = { ...client, ALPNProtocols };
  const { near, far } = await rig.open('pair', ofServer, ofClient);
  const filter = rig.own(BufferEvent.filter(near.bev, {}));
  const duplex = filter.toDuplex();
  const again = rig.own(BufferEvent.fromDuplex(rig.base, duplex));
  for (const one of [near.bev, filter, duplex, again]) assert.is(one.tls?.alpn, 'one');
  far.bev.write('with data comes the ticket');
  again.enable(Ev.READ);
  await until(() => again.inputLength > 0);
  assert.instance(near.bev.tlsSession, Uint8Array);
  const session = near.bev.tlsSession;
  again.close();
  await until(() => near.bev.closed);
  assert.equal([filter.tls, near.bev.tls, again.tls], [undefined, undefined, undefined]);
  const second = await rig.open('pair', ofServer, { ...ofClient, session });
  assert.is(second.near.bev.tls?.reused, true);
  assert.is(second.far.bev.tls?.reused, true);
});

test('closeFd false: the stream below goes on in plain text, before and after', async (rig) => {
  const [one, other] = BufferEvent.pair(rig.base);
  const tape = new Tape();
  one.handlers = tape;
  one.enable(Ev.READ);
  other.write('STARTTLS');
  await until(() => tape.text === 'STARTTLS');
  const near = rig.make((rest) => BufferEvent.tls(one, { tls: server, closeFd: false, ...rest }));
  const far = rig.make((rest) => BufferEvent.tls(other, { tls: client, closeFd: false, ...rest }));
  far.bev.write('secret');
  await until(() => near.text === 'secret');
  near.bev.close();
  assert.is(await far.nth(1), 'eof read');
  far.bev.close();
  other.write(' over');
  await until(() => tape.text.endsWith(' over'));
  one.close();
  other.close();
});

test('timeouts, and going on after them', async (rig) => {
  const { near, far } = await rig.open();
  near.bev.setTimeouts(20);
  assert.is(await near.nth(1), 'timeout read');
  near.bev.setTimeouts(undefined, 20).enable(Ev.READ);
  far.bev.disable(Ev.READ);
  near.bev.write('x'.repeat(1_000_000));
  assert.is(await near.nth(2), 'timeout write');
  far.bev.enable(Ev.READ);
  near.bev.setTimeouts();
  near.bev.enable(Ev.WRITE);
  await until(() => far.text.length === 1_000_000);
});

test('watermarks, and the write callback', async (rig) => {
  const { near, far } = await rig.open();
  const lengths: number[] = [];
  let drained = 0;
  near.bev.setWatermark(Ev.READ, 3, 5);
  near.bev.handlers = { read: (bev) => lengths.push(bev.inputLength) };
  far.bev.handlers = { write: () => drained++ };
  far.bev.write('ab');
  await until(() => near.bev.inputLength === 2);
  assert.equal(lengths, []);
  far.bev.write('cdefgh');
  await until(() => lengths.length === 1);
  assert.equal(lengths, [5]);
  near.bev.input.drain(5);
  await until(() => near.bev.inputLength === 3);
  assert.ok(drained >= 1);
});

test('flush: what is held by a watermark comes, and an end', async (rig) => {
  const { near, far, under } = await rig.open();
  near.bev.setWatermark(Ev.READ, 0, 10);
  near.bev.handlers = { event: near.event.bind(near) };
  far.bev.write('0123456789'.repeat(10));
  await until(() => near.bev.inputLength === 10);
  far.bev.flush(Ev.WRITE, 'flush');
  near.bev.flush(Ev.READ, 'flush');
  assert.is(near.bev.inputLength, 100);
  far.bev.flush(Ev.WRITE, 'finished');
  assert.ok(far.bev.ended && under[1].ended);
  near.bev.setWatermark(Ev.READ, 0, 1_000);
  assert.is(await near.nth(1), 'eof read');
});

test('rate limits are those of the stream below', async (rig) => {
  const { near, far, under } = await rig.open();
  const limit = new RateLimit({ read: 200_000, readBurst: 2_000, tick: 10 });
  near.bev.setRateLimit(limit);
  assert.is(under[0].rateLimit, limit);
  assert.is(near.bev.rateLimit, limit);
  far.bev.write('x'.repeat(8_000));
  await until(() => near.text.length === 8_000);
});

test('it begins when the stream below is connected, and fails with it', async (rig) => {
  const { port, accepted } = rig.listenOne(server);
  const to = { host: '127.0.0.1', port };
  const near = rig.over(BufferEvent.connect(rig.base, to), client);
  near.bev.write('through');
  assert.is(await near.nth(), 'connected');
  const far = await accepted;
  await until(() => far.text === 'through');
  const nobody = rig.over(BufferEvent.connect(rig.base, { path: '/nowhere/at/all' }), client);
  assert.is(await nobody.nth(), 'ENOENT');
  assert.is(nobody.events.length, 1);
});

test('closing: with all that is written, or as a cut', async (rig) => {
  const clean = await rig.open();
  clean.near.bev.write('all');
  clean.near.bev.close();
  assert.is(await clean.far.nth(1), 'eof read');
  assert.is(clean.far.text, 'all');
  // What does not fit below is lost by close(), and the peer must not take it for an end.
  const cut = await rig.open('sockets');
  cut.far.bev.disable(Ev.READ);
  cut.near.bev.write('x'.repeat(4_000_000));
  await until(() => cut.near.bev.outputLength > 0 && cut.under[0].outputLength > 0);
  cut.near.bev.close();
  cut.far.keeps = false;
  cut.far.bev.enable(Ev.READ);
  assert.is(await cut.far.nth(1), 'ERR_TLS_TRUNCATED read');
  const broken = await rig.open();
  broken.near.bev.destroy(new Error('mine'));
  assert.is(await broken.far.nth(1), 'ERR_PARTNER_GONE read');
  const under = await rig.open();
  under.under[0].close();
  assert.is(await under.near.nth(1), 'ERR_UNDERLYING_CLOSED read');
  under.near.bev.write('nowhere');
  assert.is(await under.near.nth(2), 'ERR_UNDERLYING_CLOSED write');
});

test('a socket of its own that is closed with much to write is a cut, too', async (rig) => {
  const { port, accepted } = rig.listenOne(server);
  const near = rig.connect(port);
  const far = await accepted;
  assert.is(await near.nth(), 'connected');
  await far.nth();
  // Tickets come before it: a socket that is closed with something to read is reset.
  far.bev.write('go');
  await until(() => near.text === 'go');
  far.bev.disable(Ev.READ);
  near.bev.write('x'.repeat(16_000_000));
  await until(() => near.bev.outputLength > 0);
  near.bev.close();
  far.keeps = false;
  far.bev.enable(Ev.READ);
  assert.is(await far.nth(1), 'ERR_TLS_TRUNCATED read');
});

test('what is wrong with the call is said, and the stream below is as it was', (rig) => {
  const [one, other] = BufferEvent.pair(rig.base);
  const { handlers } = one;
  // biome-ignore lint/suspicious/noExplicitAny: what is wrong on purpose has no type
  const tls = (under: any, options: any) => codeOf(() => BufferEvent.tls(under, options));
  assert.is(tls(one, undefined), 'ERR_INVALID_ARG_TYPE');
  assert.is(tls(one, {}), 'ERR_INVALID_ARG_TYPE');
  assert.is(tls(5, { tls: server }), 'ERR_INVALID_ARG_TYPE');
  assert.is(tls(one, { tls: {} }), 'ERR_INVALID_ARG_VALUE');
  assert.is(tls(one, { tls: { ...server, key: 'no PEM' } }), 'ERR_TLS_CONFIG');
  assert.is(tls(one, { tls: { ...client, session: Buffer.from('none') } }), 'ERR_TLS_CONFIG');
  assert.is(
    codeOf(() => BufferEvent.pair(rig.base, { tls: server })),
    'ERR_TLS_UNAVAILABLE',
  );
  assert.is(one.handlers, handlers);
  rig.over(one, server);
  assert.is(tls(one, { tls: server }), 'ERR_INVALID_ARG_VALUE');
  other.close();
  assert.is(tls(other, { tls: server }), 'ERR_INVALID_ARG_VALUE');
});

test('a storm of handshakes takes turns', async (rig) => {
  const ends = Array.from({ length: 60 }, () => rig.both());
  const answered: number[] = [];
  const look = () => answered.push(ends.filter(({ far }) => far.bev.tls !== undefined).length);
  const watcher = rig.own(
    Object.assign(
      rig.base.prepare(() => void look()),
      { close: () => watcher.free() },
    ),
  );
  await until(() => ends.every(({ near, far }) => near.events.length + far.events.length === 2));
  // Of the last turn, which no other may have followed yet.
  look();
  const jumps = answered.map((count, i) => count - (answered[i - 1] ?? 0));
  assert.ok(Math.max(...jumps) <= HANDSHAKE_STEPS_MAX, `${jumps}`);
  assert.is(answered.at(-1), 60);
});

test('a name is asked for while the streams below rest, and an answer is used', async (rig) => {
  const asked: string[] = [];
  const SNICallback = async (name: string) => {
    asked.push(name);
    await new Promise(setImmediate);
    if (name === 'refused.test') throw new Error('not here');
    return pair('www');
  };
  const clientFor = (servername: string) => ({ ca, servername, rejectUnauthorized: false });
  for (const kind of Object.keys(rig.pairs)) {
    const { near } = await rig.open(kind, { ...server, SNICallback }, clientFor('www.test'));
    const { peerCertificate } = near.bev.tls as TlsInfo;
    assert.is(
      new X509Certificate(peerCertificate as Uint8Array).subject,
      'CN=www.example.org',
      kind,
    );
  }
  assert.is(asked.length, Object.keys(rig.pairs).length);
  const refused = rig.both('pair', { ...server, SNICallback }, clientFor('refused.test'));
  await refused.near.nth();
  await refused.far.nth();
  assert.match(refused.near.errors[0].message, /unrecognized name/);
  assert.match(refused.far.errors[0].message, /'refused\.test' was refused: not here/);
});

test('who waits for its name has its deadline, and may be closed meanwhile', async (rig) => {
  const never = { ...server, SNICallback: () => new Promise<undefined>(() => undefined) };
  const late = rig.both(
    'pair',
    { ...never, handshakeTimeout: 50 },
    { ...client, servername: 'a.b' },
  );
  assert.match(await late.far.nth(), /timeout/);
  const gone = rig.both('pair', never, { ...client, servername: 'a.b' });
  await new Promise(setImmediate);
  gone.far.bev.close();
  await gone.near.nth();
});

run();
