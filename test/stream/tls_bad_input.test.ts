// What peers send that is no TLS, or half of it: the handshake cut and damaged at every byte, both
// ways; plain text, records over the limit; peers that stop, reset or never read.

import * as assert from 'uvu/assert';
import { BufferEvent, Ev } from '../../src/index.js';
import { native } from '../../src/native.js';
import { turns, until } from './rig.js';
import { client, End, server, type TlsRig, tlsSuite, VERSIONS } from './tls_rig.js';

const { test, run } = tlsSuite('bad input');
/** Streams that are open at a time. */
const BATCH = 100;

/** What is done to the byte at `at` of those that come; the first that is not passed on ends it. */
type Change = (bytes: Buffer, at: number) => { bytes: Buffer; ends: boolean };

/** Passes on what comes, changed. */
function relay(from: BufferEvent, to: BufferEvent, change: Change): void {
  let at = 0;
  let ended = false;
  from.handlers = {
    read: () => {
      const all = Buffer.from(from.input.remove(from.input.length));
      if (ended || to.closed) return;
      const { bytes, ends } = change(all, at);
      at += all.length;
      to.write(bytes);
      ended = ends;
      if (ends) to.end();
    },
    event: (_, { eof }) => {
      if (eof && !ended && !to.closed) to.end();
    },
  };
  from.enable(Ev.READ);
}
const passed: Change = (bytes) => ({ bytes, ends: false });
const cutAt =
  (cut: number): Change =>
  (bytes, at) => ({
    bytes: bytes.subarray(0, Math.max(0, cut - at)),
    ends: at + bytes.length >= cut,
  });
const changedAt =
  (which: number, mask: number): Change =>
  (bytes, at) => {
    if (which >= at && which < at + bytes.length) bytes[which - at] ^= mask;
    return { bytes, ends: false };
  };

/**
 * How much the lengths of two handshakes may differ: a signature of ECDSA is two numbers, each
 * without its leading zeros (RFC 3279 section 2.2.3), of which more than two bytes are rare.
 */
const SIGNATURE_SPREAD = 5;

interface Through {
  client: End;
  server: End;
  /** Bytes that went through until both were connected. */
  bytes: { toServer: number; toClient: number };
  close(): void;
}
function through(
  rig: TlsRig,
  version: (typeof VERSIONS)[number],
  toServer: Change,
  toClient: Change,
): Through {
  const [near, nearRelay] = BufferEvent.pair(rig.base);
  const [far, farRelay] = BufferEvent.pair(rig.base);
  const bytes = { toServer: 0, toClient: 0 };
  const counted =
    (name: keyof typeof bytes, change: Change): Change =>
    (all, at) => {
      bytes[name] = at + all.length;
      return change(all, at);
    };
  relay(nearRelay, farRelay, counted('toServer', toServer));
  relay(farRelay, nearRelay, counted('toClient', toClient));
  const tls = { ...client, maxVersion: version };
  const ends = {
    client: new End((rest) => BufferEvent.tls(near, { tls, ...rest })),
    server: new End((rest) => BufferEvent.tls(far, { tls: server, ...rest })),
  };
  const close = () => {
    for (const one of [ends.client.bev, ends.server.bev, nearRelay, farRelay]) one.close();
  };
  return { ...ends, bytes, close };
}

/** Each of `count` trials, some at a time; `look` when both sides have been told something. */
async function each(
  count: number,
  start: (at: number) => Through,
  look: (at: number, ends: Through) => void,
  ready: (ends: Through, at: number) => boolean,
): Promise<void> {
  const sessions = native.tlsSessionCount();
  for (let from = 0; from < count; from += BATCH) {
    const all = Array.from({ length: Math.min(BATCH, count - from) }, (_, i) => start(from + i));
    await until(() => all.every((ends, i) => ready(ends, from + i)));
    await turns(3);
    for (const [i, ends] of all.entries()) {
      look(from + i, ends);
      ends.close();
    }
    assert.is(native.tlsSessionCount(), sessions);
  }
}

for (const version of VERSIONS) {
  for (const to of ['server', 'client'] as const) {
    const way = to === 'server' ? 'toServer' : 'toClient';
    const start = (rig: TlsRig, change: Change) =>
      to === 'server'
        ? through(rig, version, change, passed)
        : through(rig, version, passed, change);
    const measured = async (rig: TlsRig) => {
      const whole = start(rig, passed);
      await until(() => whole.client.events.length > 0 && whole.server.events.length > 0);
      assert.equal([whole.client.events, whole.server.events], [['connected'], ['connected']]);
      const count = whole.bytes[way];
      whole.close();
      assert.ok(count > 200, `${count} bytes`);
      return count;
    };

    test(`${version}: what goes to the ${to} ends at every byte`, async (rig) => {
      const count = await measured(rig);
      let connected = 0;
      let whole = Number.POSITIVE_INFINITY;
      await each(
        count,
        (at) => start(rig, cutAt(at)),
        (at, ends) => {
          const { events, errors } = ends[to];
          if (events[0] === 'connected') {
            // The last of a server's flights are tickets, after its handshake.
            connected++;
            whole = Math.min(whole, at);
            if (ends.bytes[way] < at) return;
            assert.is(events[1], 'ERR_TLS_TRUNCATED read', `cut at ${at}`);
            return;
          }
          assert.equal(events, ['ERR_TLS_HANDSHAKE'], `cut at ${at}`);
          assert.match(errors[0].message, 'closed the connection in the middle');
          assert.ok(at - whole < SIGNATURE_SPREAD, `cut at ${at}, and ${whole} was whole`);
        },
        ({ client, server, bytes, [to]: { events } }, at) =>
          (events[0] !== undefined && events[0] !== 'connected') ||
          events.length > 1 ||
          // It was shorter than the one that was measured, and has not come to the cut.
          (bytes[way] < at && client.events.length > 0 && server.events.length > 0),
      );
      assert.ok(to === 'client' || connected === 0, `${connected}`);
    });

    test(`${version}: what goes to the ${to} is damaged at every byte`, async (rig) => {
      const count = await measured(rig);
      let harmless = 0;
      const done = ({ client, server }: Through) =>
        client.events.length > 0 && server.events.length > 0;
      await each(
        count,
        (at) => start(rig, changedAt(at, at % 2 === 0 ? 0x01 : 0xff)),
        (at, ends) => {
          const { events, errors } = ends[to];
          if (errors.length === 0) harmless++;
          for (const error of errors)
            assert.match(String(error.code), /^ERR_TLS_(HANDSHAKE|PROTOCOL|TRUNCATED)$/, `${at}`);
          assert.ok(events.filter((one) => one.startsWith('ERR_TLS_HANDSHAKE')).length <= 1);
          assert.is(ends[to].text, '');
        },
        (ends) => done(ends) || stuck(ends),
      );
      // Versions in headers of records that nobody looks at, and lengths that wait for more.
      assert.ok(harmless < 40, `${harmless} of ${count}`);
    });
  }
}

/** A length that was damaged has it wait for more, until its deadline. */
const asked = new WeakMap<Through, number>();
function stuck(ends: Through): boolean {
  const times = (asked.get(ends) ?? 0) + 1;
  asked.set(ends, times);
  return times > 100;
}

test('garbage and plain text in the place of a handshake, to a server and to a client', async (rig) => {
  const cases: [string | Buffer, RegExp][] = [
    ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', /plain HTTP|no TLS/],
    ['SSH-2.0-OpenSSH_9.6\r\n', /no TLS/],
    [Buffer.alloc(64, 0xff), /no TLS/],
    [Buffer.alloc(64), /no TLS|length/],
    // A record over the limit (RFC 8446 section 5.1), and an empty one of the handshake's.
    [Buffer.from('160301ffff', 'hex'), /no TLS|length|too long|record/],
    [Buffer.from('1603010000', 'hex'), /length|closed|bad/],
    // A close_notify, and a fatal alert.
    [Buffer.from('15030300020100', 'hex'), /unexpected message|closed/],
    [Buffer.from('15030300020228', 'hex'), /unexpected message|alert handshake failure/],
  ];
  for (const options of [server, client])
    for (const [bytes, reason] of cases) {
      const [one, other] = BufferEvent.pair(rig.base);
      const near = rig.over(one, options);
      near.bev.write('nobody reads it');
      other.write(bytes);
      other.end();
      assert.is(await near.nth(), 'ERR_TLS_HANDSHAKE');
      assert.match(near.errors[0].message, reason);
      near.bev.write('nobody');
      await turns(3);
      const text = Buffer.from(other.input.remove(other.inputLength)).toString('latin1');
      assert.not.match(text, 'nobody');
      assert.is(near.events.length, 1);
      assert.is(near.bev.tls, undefined);
      near.bev.close();
      assert.ok(one.closed);
      other.close();
    }
});

test('records over the limit after the handshake', async (rig) => {
  for (const version of VERSIONS)
    for (const head of ['1703034901', '170303ffff', '1803030003', 'ff03030010']) {
      const [one, other] = BufferEvent.pair(rig.base);
      const near = rig.over(one, server);
      const far = rig.make((rest) =>
        BufferEvent.tls(other, {
          tls: { ...client, maxVersion: version },
          closeFd: false,
          ...rest,
        }),
      );
      rig.own(other);
      await near.nth();
      assert.is(await far.nth(), 'connected');
      other.write(Buffer.concat([Buffer.from(head, 'hex'), Buffer.alloc(20_000)]));
      assert.is(await near.nth(1), 'ERR_TLS_PROTOCOL read', head);
      near.bev.close();
    }
});

test('a peer that stops in the middle has its deadline', async (rig) => {
  for (const options of [server, client]) {
    const [one, other] = BufferEvent.pair(rig.base);
    const near = rig.over(one, { ...options, handshakeTimeout: 30 } as typeof client);
    other.enable(Ev.READ);
    other.write(Buffer.from('160301', 'hex'));
    assert.is(await near.nth(), 'timeout ERR_TLS_HANDSHAKE');
    assert.match(near.errors[0].message, /30 ms/);
    other.close();
  }
});

test('a peer that never reads has its deadline, and what is for it is bounded', async (rig) => {
  const [one, other] = BufferEvent.pair(rig.base);
  const near = rig.over(one, { ...server, handshakeTimeout: 50 });
  near.bev.write('x'.repeat(1_000_000));
  const hello = await firstFlight(rig);
  other.write(hello);
  assert.is(await near.nth(), 'timeout ERR_TLS_HANDSHAKE');
  assert.ok(one.outputLength > 0 && one.outputLength < 16_384, `${one.outputLength}`);
  near.bev.close();
  other.close();
});

test('a peer that resets, goes, or is closed by somebody else', async (rig) => {
  const ways: [(one: BufferEvent, other: BufferEvent) => void, RegExp][] = [
    [(_, other) => other.destroy(new Error('reset')), /^ERR_TLS_HANDSHAKE$/],
    [(_, other) => other.close(), /^ERR_TLS_HANDSHAKE$/],
    [(one) => one.close(), /^ERR_UNDERLYING_CLOSED$/],
  ];
  for (const options of [server, client])
    for (const [end, code] of ways) {
      const [one, other] = BufferEvent.pair(rig.base);
      const near = rig.over(one, options);
      other.write(Buffer.from('16', 'hex'));
      await turns(2);
      end(one, other);
      assert.match(await near.nth(), code);
      await turns(3);
      assert.is(near.events.length, 1);
      near.bev.close();
      other.close();
    }
});

test('a stream that times out below fails the handshake', async (rig) => {
  const [one, other] = BufferEvent.pair(rig.base);
  one.setTimeouts(10);
  const near = rig.over(one, server);
  assert.is(await near.nth(), 'ERR_TLS_HANDSHAKE');
  other.close();
});

/** What a client sends first. */
async function firstFlight(rig: TlsRig): Promise<Buffer> {
  const [one, other] = BufferEvent.pair(rig.base);
  const near = rig.over(one, client);
  other.enable(Ev.READ);
  await until(() => other.inputLength > 0);
  const bytes = Buffer.from(other.input.remove(other.inputLength));
  near.bev.close();
  other.close();
  return bytes;
}

run();
