// Datagram sockets: batches in and out over every kind of address, what happens when the kernel
// takes no more, what the network says, and what is refused.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Address,
  Datagram,
  type DatagramMessage,
  type DatagramOptions,
  Ev,
  EventBase,
  sys,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { AddressBook } from '../../src/stream/address_book.js';
import { asynchronous, behaviour, type Trial } from '../event/conformance.js';
import {
  assertNoneLeft,
  codeOf,
  gatheringUncaught,
  openDescriptors,
  thrownBy,
} from '../event/support.js';
import { isPortable } from '../machine.js';

const folder = mkdtempSync(join(tmpdir(), 'multiloop-datagram-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
let paths = 0;
const freshPath = () => join(folder, `${++paths}.sock`);
const freshName = () =>
  isPortable ? join(folder, `name-${++paths}`) : `@multiloop-datagram-${process.pid}-${++paths}`;
const addresses = Object.entries(networkInterfaces()).flatMap(([name, all]) =>
  (all ?? []).map(({ address }) => ({ name, address })),
);
const hasV6 = addresses.some(({ address }) => address === '::1');
const linkLocal = addresses.find(({ address }) => address.startsWith('fe80:'));

const local: Address = { host: '127.0.0.1', port: 0 };
const nothing = () => undefined;
const portOf = (socket: Datagram) => (socket.address as { port: number }).port;
const textOf = (message: DatagramMessage) => Buffer.from(message.data).toString();

/** Puts what comes together, and calls `full` with each message that is not expected any more. */
class Box {
  readonly messages: DatagramMessage[] = [];
  readonly batches: number[] = [];
  readonly socket: Datagram;

  constructor(
    base: EventBase,
    bind: Address | undefined,
    expected: number,
    full: () => void,
    options?: DatagramOptions,
  ) {
    this.socket = new Datagram(
      base,
      bind,
      (batch) => {
        this.messages.push(...batch);
        this.batches.push(batch.length);
        if (this.messages.length >= expected) full();
      },
      options,
    );
  }
  get texts(): string[] {
    return this.messages.map(textOf);
  }
}

// ── there and back ──────────────────────────────────────────────────────────────────────────────

/** Two sockets; the first answers what the second asks, which ends both. */
async function thereAndBack(t: Trial, bindServer: Address, bindClient: Address | undefined) {
  const base = t.base();
  const asked: DatagramMessage[] = [];
  const server = new Datagram(base, bindServer, (batch) => {
    asked.push(...batch);
    for (const { data, from } of batch) server.send(`re: ${Buffer.from(data)}`, from);
  });
  const answers = new Box(base, bindClient, 3, () => {
    server.close();
    answers.socket.close();
  });
  const client = answers.socket;
  for (const text of ['one', 'two', 'três']) assert.is(client.send(text, server.address), true);
  assert.is(await t.run(base), 'empty');
  assert.equal(asked.map(textOf), ['one', 'two', 'três']);
  assert.equal(answers.texts, ['re: one', 're: two', 're: três']);
  assert.is(server.dropped + client.dropped + server.truncated + client.truncated, 0);
  return { server, client, asked, answers: answers.messages };
}

behaviour('messages go there and back over IPv4', async (t) => {
  const { server, client, asked, answers } = await thereAndBack(t, local, local);
  assert.equal({ ...server.address, port: 0 }, { host: '127.0.0.1', port: 0, family: 4 });
  assert.ok(portOf(server) > 0);
  for (const { from } of asked) assert.equal(from, client.address);
  for (const { from } of answers) assert.equal(from, server.address);
  assert.is(asked[0].from, asked[2].from, 'one peer, one object');
  assert.is(Object.isFrozen(asked[0].from), true);
  assert.is('truncated' in asked[0], false);
});

behaviour('without an address the kernel chooses one', async (t) => {
  const { client, asked } = await thereAndBack(t, local, undefined);
  assert.equal({ ...client.address, port: 0 }, { host: '0.0.0.0', port: 0, family: 4 });
  assert.equal(asked[0].from, { host: '127.0.0.1', port: portOf(client), family: 4 });
});

if (hasV6) {
  behaviour('messages go there and back over IPv6', async (t) => {
    const v6 = { host: '::1', port: 0 };
    const { client, asked } = await thereAndBack(t, v6, v6);
    assert.equal(asked[0].from, { host: '::1', port: portOf(client), family: 6 });
  });

  behaviour('an IPv6 socket takes IPv4 too, and sends to it', async (t) => {
    const base = t.base();
    const four = new Box(base, local, 1, () => base.loopExit());
    const six = new Box(base, { host: '::', port: 0 }, 1, () => {
      six.socket.send('back', six.messages[0].from);
      six.socket.send('again', { host: '127.0.0.1', port: portOf(four.socket) });
    });
    four.socket.send('there', { host: '127.0.0.1', port: portOf(six.socket) });
    await t.run(base);
    const { port } = four.socket.address as { port: number };
    assert.equal(six.messages[0].from, { host: '::ffff:127.0.0.1', port, family: 6 });
    assert.is(four.texts[0], 'back');
    four.socket.close();
    six.socket.close();
  });

  behaviour('unless it is told not to', async (t) => {
    const base = t.base();
    const six = new Datagram(base, { host: '::', port: 0 }, nothing, { ipv6Only: true });
    const errors: string[] = [];
    const connect = { host: '127.0.0.1', port: portOf(six) };
    const onError = (error: Error) => {
      errors.push((error as NodeJS.ErrnoException).code ?? '');
      six.close();
      four.close();
    };
    const four = new Datagram(base, undefined, nothing, { connect, onError });
    four.send('nobody there');
    assert.is(await t.run(base), 'empty');
    assert.equal(errors, ['ECONNREFUSED']);
  });
}

if (linkLocal !== undefined)
  behaviour('an address with a zone', async (t) => {
    const host = `${linkLocal.address}%${linkLocal.name}`;
    const { client, asked } = await thereAndBack(t, { host, port: 0 }, { host, port: 0 });
    assert.equal(asked[0].from, { host, port: portOf(client), family: 6 });
  });

behaviour('messages go there and back over unix paths, whose files go away', async (t) => {
  const [a, b] = [{ path: freshPath() }, { path: freshPath() }];
  const { server, client, asked, answers } = await thereAndBack(t, a, b);
  assert.equal(server.address, a);
  assert.equal(client.address, b);
  assert.equal(asked[0].from, b);
  assert.equal(answers[0].from, a);
  assert.is(existsSync(a.path) || existsSync(b.path), false);
});

if (isPortable) test.skip('this build is portable: messages go there and back over abstract names');
else
  behaviour('messages go there and back over abstract names', async (t) => {
    const [a, b] = [{ path: freshName() }, { path: `\0${freshName().slice(1)}` }];
    const { asked } = await thereAndBack(t, a, b);
    assert.equal(asked[0].from, { path: `@${b.path.slice(1)}` });
  });

behaviour('a unix peer without a name can only send', async (t) => {
  const base = t.base();
  const box = new Box(base, { path: freshName() }, 1, () => {
    box.socket.close();
    peer.close();
  });
  const peer = new Datagram(base, undefined, nothing, { family: 'unix' });
  assert.equal(peer.address, { path: '' });
  peer.send('x', box.socket.address);
  assert.is(await t.run(base), 'empty');
  assert.equal(box.messages[0].from, { path: '' });
});

// ── messages ────────────────────────────────────────────────────────────────────────────────────

behaviour('what was given out stays as it is', async (t) => {
  const base = t.base();
  const box = new Box(base, local, 40, () => box.socket.close());
  let sent = 0;
  const timer = base.timer(() => {
    for (let i = 0; i < 4; i++) client.send(`message ${sent++}`, box.socket.address);
    if (sent < 40) timer.add(0);
    else client.close();
  });
  const client = new Datagram(base, undefined, nothing);
  timer.add(0);
  assert.is(await t.run(base), 'empty');
  assert.equal(
    box.texts,
    Array.from({ length: 40 }, (_, i) => `message ${i}`),
  );
});

behaviour('what is sent is copied: the memory is the caller’s again', async (t) => {
  const base = t.base();
  const box = new Box(base, local, 2, () => box.socket.close());
  const client = new Datagram(base, undefined, nothing);
  const bytes = new Uint8Array([65, 66]);
  const timer = base.timer(() => {
    client.send(bytes, box.socket.address);
    bytes.fill(67);
    client.send(bytes.subarray(1), box.socket.address);
    bytes.fill(68);
    assert.is(client.queueLength, 2, 'they leave at the end of the pass');
  });
  base.once(-1, Ev.TIMEOUT, () => client.close(), 1);
  timer.add(0);
  await t.run(base);
  assert.equal(box.texts, ['AB', 'C']);
});

behaviour('an empty message is a message', async (t) => {
  const base = t.base();
  const box = new Box(base, local, 3, () => box.socket.close());
  using client = new Datagram(base, undefined, nothing).unref();
  for (const text of ['', 'x', '']) client.send(text, box.socket.address);
  base.timer(nothing).add(0);
  while (!box.socket.closed) await t.run(base, 1);
  assert.equal(box.texts, ['', 'x', '']);
});

behaviour('the largest message, and one byte more', async (t) => {
  const cases: [Address, number][] = [[local, 65_507]];
  if (hasV6) cases.push([{ host: '::1', port: 0 }, 65_527]);
  for (const [bind, limit] of cases) {
    const base = t.base();
    const box = new Box(base, bind, 1, () => box.socket.close(), { receiveBufferSize: 2 ** 20 });
    const options = { sendBufferSize: 2 ** 20 };
    const client = new Datagram(base, bind, nothing, options);
    const bytes = Buffer.alloc(limit, 'abcdefgh');
    const error = thrownBy(() => client.send(Buffer.alloc(limit + 1), box.socket.address));
    assert.is(error.code, 'EMSGSIZE');
    assert.match(error.message, `this one has ${limit + 1} bytes; over IPv`);
    assert.is(client.send(bytes, box.socket.address), true);
    client.close();
    assert.is(await t.run(base), 'empty');
    assert.is(Buffer.compare(box.messages[0].data, bytes), 0);
    assert.is(client.dropped, 0, 'what throws is not sent and not dropped');
  }
});

behaviour('a message that is too long for messageSize is cut, and says so', async (t) => {
  const base = t.base();
  const box = new Box(base, local, 3, () => box.socket.close(), { messageSize: 8 });
  const client = new Datagram(base, undefined, nothing);
  for (const text of ['12345678', '123456789', 'short']) client.send(text, box.socket.address);
  client.close();
  assert.is(await t.run(base), 'empty');
  assert.equal(box.texts, ['12345678', '12345678', 'short']);
  assert.equal(
    box.messages.map((one) => one.truncated),
    [undefined, true, undefined],
  );
  assert.is(box.socket.truncated, 1);
});

behaviour('unix sockets carry more than IP, in memory of their own', async (t) => {
  const base = t.base();
  const size = 150_000;
  const path = freshName();
  const box = new Box(base, { path }, 1, () => box.socket.close(), { messageSize: 2 ** 18 });
  const client = new Datagram(base, undefined, nothing, { family: 'unix' });
  assert.is(client.send(Buffer.alloc(size, 'multiloop'), { path }), true);
  client.close();
  await t.run(base);
  assert.is(Buffer.compare(box.messages[0].data, Buffer.alloc(size, 'multiloop')), 0);
});

behaviour('more messages than one pass takes come in batches, with others between', async (t) => {
  const base = t.base();
  const count = 150;
  const box = new Box(base, local, count, () => box.socket.close());
  const client = new Datagram(base, undefined, nothing);
  for (let i = 0; i < count; i++) client.send(String(i), box.socket.address);
  client.close();
  let between = -1;
  base
    .timer(() => {
      between = box.messages.length;
    })
    .add(0);
  await t.run(base);
  assert.equal(
    box.texts,
    Array.from({ length: count }, (_, i) => String(i)),
  );
  assert.ok(Math.max(...box.batches) <= 32, `batches of ${box.batches}`);
  assert.ok(box.batches.length < count / 8, `${box.batches.length} batches`);
  assert.ok(between < count, 'another event had its turn meanwhile');
});

behaviour('a paused socket leaves messages with the kernel', async (t) => {
  const base = t.base();
  const box = new Box(base, local, 1, () => box.socket.close());
  box.socket.pause();
  box.socket.pause();
  const client = new Datagram(base, undefined, nothing);
  client.send('later', box.socket.address);
  client.close();
  base
    .timer(() => {
      assert.is(box.messages.length, 0);
      box.socket.resume();
      box.socket.resume();
    })
    .add(5);
  assert.is(await t.run(base), 'empty');
  assert.equal(box.texts, ['later']);
});

behaviour('closing in onMessages ends it there', async (t) => {
  const base = t.base();
  let batches = 0;
  const socket = new Datagram(base, local, () => {
    batches++;
    socket.close();
    socket[Symbol.dispose]();
  });
  const client = new Datagram(base, undefined, nothing);
  for (let i = 0; i < 100; i++) client.send('x', socket.address);
  client.close();
  assert.is(await t.run(base), 'empty');
  assert.is(batches, 1);
  assert.is(socket.closed, true);
  assert.is(socket.remoteAddress, undefined);
  socket.pause();
  socket.resume();
  socket.ref().unref();
});

behaviour(
  'an exception of onMessages is uncaught, and the next batch comes',
  async (t) => {
    const base = t.base();
    const failure = new Error('cannot read this');
    let batches = 0;
    const socket = new Datagram(base, local, () => {
      if (++batches === 2) socket.close();
      else throw failure;
    });
    const client = new Datagram(base, undefined, nothing);
    await gatheringUncaught(async (caught) => {
      client.send('x', socket.address);
      const done = base.loop();
      while (batches === 0) await turn();
      client.send('y', socket.address);
      client.close();
      await done;
      assert.equal(caught, [failure]);
    });
  },
  asynchronous,
);

// ── connected ───────────────────────────────────────────────────────────────────────────────────

behaviour('a connected socket hears and speaks to its peer alone', async (t) => {
  const base = t.base();
  const server = new Box(base, local, 1, () => server.socket.send('yes', server.messages[0].from));
  const stranger = new Datagram(base, local, nothing);
  const { address } = server.socket;
  const client = new Box(
    base,
    undefined,
    1,
    () => {
      for (const one of [server.socket, client.socket, stranger]) one.close();
    },
    { connect: address },
  );
  assert.equal(client.socket.remoteAddress, address);
  assert.is((client.socket.address as { host: string }).host, '127.0.0.1');
  stranger.send('not from the peer', client.socket.address);
  assert.is(
    codeOf(() => client.socket.send('x', address)),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(client.socket.send('really?'), true);
  assert.is(await t.run(base), 'empty');
  assert.equal(client.texts, ['yes']);
  assert.equal(server.messages[0].from, client.socket.address);
});

/** The address of a port where nobody is. */
function nobodyAt(base: EventBase): Address {
  const gone = new Datagram(base, local, nothing);
  gone.close();
  return gone.address;
}

behaviour('what ICMP says is told, and the socket goes on', async (t) => {
  const base = t.base();
  const connect = nobodyAt(base);
  const errors: NodeJS.ErrnoException[] = [];
  let server: Box | undefined;
  const client = new Datagram(base, undefined, nothing, {
    connect,
    onError: (error) => {
      errors.push(error);
      if (errors.length > 1) return;
      // Now somebody comes.
      server = new Box(base, connect, 2, () => {
        server?.socket.close();
        client.close();
      });
      client.send('second');
      client.send('third');
    },
  });
  assert.is(client.send('first'), true);
  assert.is(await t.run(base), 'empty');
  assert.equal(server?.texts, ['second', 'third']);
  assert.equal(
    errors.map(({ code }) => code),
    ['ECONNREFUSED'],
  );
  const { port } = connect as { port: number };
  assert.match(errors[0].message, `ECONNREFUSED: connection refused 127.0.0.1:${port}`);
  assert.is(client.dropped, 0);
});

behaviour('an error that waits for the next send costs no message', async (t) => {
  const base = t.base();
  const connect = nobodyAt(base);
  const codes: unknown[] = [];
  const onError = (error: Error) => codes.push((error as NodeJS.ErrnoException).code);
  const client = new Datagram(base, undefined, nothing, { connect, onError });
  // Outside a pass both leave at once, and nothing has been received between them.
  client.send('into the void');
  const server = new Box(base, connect, 1, () => {
    server.socket.close();
    client.close();
  });
  client.send('heard');
  assert.is(await t.run(base), 'empty');
  assert.equal(server.texts, ['heard']);
  assert.is(client.dropped, 0);
});

behaviour(
  'without onError it is an uncaught exception, each error one',
  async (t) => {
    const base = t.base();
    const socket = new Datagram(base, { path: freshName() }, nothing);
    await gatheringUncaught(async (caught) => {
      for (let i = 0; i < 3; i++)
        assert.is(socket.send('x', { path: join(folder, 'nobody') }), true);
      assert.is(caught.length, 0, 'nothing is told inside the call');
      const done = base.loop();
      while (caught.length < 3) await turn();
      socket.close();
      await done;
      for (const error of caught) assert.is((error as NodeJS.ErrnoException).code, 'ENOENT');
      assert.match((caught[0] as Error).message, /nobody$/);
      assert.is(socket.dropped, 3);
    });
  },
  asynchronous,
);

behaviour('one message that cannot be sent keeps no other back', async (t) => {
  const base = t.base();
  const errors: string[] = [];
  const box = new Box(base, { path: freshName() }, 4, () => {
    box.socket.close();
    client.close();
  });
  const client = new Datagram(base, undefined, nothing, {
    family: 'unix',
    sendBufferSize: 4_608,
    onError: (error) => errors.push(error.message),
  });
  base
    .timer(() => {
      client.send('a', box.socket.address);
      client.send('b', { path: freshName() });
      client.send('c', box.socket.address);
      client.send(Buffer.alloc(60_000), box.socket.address);
      client.send('d', box.socket.address);
      client.send('e', box.socket.address);
    })
    .add(0);
  assert.is(await t.run(base), 'empty');
  assert.equal(box.texts, ['a', 'c', 'd', 'e']);
  assert.is(errors.length, 2);
  // A name in the file system is one of a file that is not there.
  const said = isPortable ? /^sendmsg ENOENT: .* \// : /^sendmsg ECONNREFUSED: .* @multiloop/;
  assert.match(errors[0], said);
  assert.match(errors[1], /^sendmsg EMSGSIZE: .*: this one has 60000 bytes; a unix socket carries/);
  assert.is(client.dropped, 2);
});

// ── when the kernel takes no more ───────────────────────────────────────────────────────────────

/** Sends to a paused unix socket until the kernel is full, then lets it read. */
async function overflow(t: Trial, connected: boolean): Promise<void> {
  const base = t.base();
  const address = { path: freshName() };
  let sent = 0;
  let drained = 0;
  const box = new Box(base, address, Number.POSITIVE_INFINITY, nothing);
  box.socket.pause();
  const client = new Datagram(base, undefined, nothing, {
    family: 'unix',
    connect: connected ? address : undefined,
    onDrain: () => {
      drained++;
      assert.is(client.queueLength, 0);
      client.close();
    },
  });
  const to = connected ? undefined : address;
  while (client.send(`message ${sent++}`, to)) assert.ok(sent < 10_000);
  assert.is(client.queueLength, 1, 'the one that was too many waits');
  for (let i = 0; i < 100; i++) assert.is(client.send(`message ${sent++}`, to), false);
  assert.is(client.queueLength, 101);
  assert.is(drained, 0);
  base.timer(() => box.socket.resume()).add(1);
  const timer = base.timer(
    () => {
      if (box.messages.length < sent) return;
      timer.free();
      box.socket.close();
    },
    { persist: true },
  );
  timer.add(1);
  assert.is(await t.run(base), 'empty');
  assert.is(drained, 1);
  assert.is(client.dropped, 0);
  assert.equal(
    box.texts,
    Array.from({ length: sent }, (_, i) => `message ${i}`),
  );
}

behaviour('what a full peer does not take waits and goes in order', (t) => overflow(t, true));
behaviour('so it does on a socket that is not connected', (t) => overflow(t, false));

/** Turns that a base makes in 60 ms while a socket waits for its peer. */
async function turnsBesideAFullPeer(t: Trial, connected: boolean): Promise<number> {
  const base = t.base();
  const address = { path: freshName() };
  const full = new Datagram(base, address, nothing);
  full.pause();
  const connect = connected ? address : undefined;
  const client = new Datagram(base, undefined, nothing, { family: 'unix', connect });
  while (client.send('x', connected ? undefined : address));
  const before = base._turns;
  base
    .timer(() => {
      full.close();
      client.close();
    })
    .add(60);
  await t.run(base);
  const turns = base._turns - before;
  base.close();
  return turns;
}

behaviour('waiting for a full peer spins on no backend', async (t) => {
  for (const connected of [true, false]) {
    let turns = Infinity;
    // V8's collector alone makes hundreds of turns now and then, but not again and again.
    for (let i = 0; i < 3 && turns >= 120; i++) turns = await turnsBesideAFullPeer(t, connected);
    // The retries every two milliseconds, and libuv's own.
    assert.ok(turns < 120, `${turns} turns in 60 ms`);
  }
});

behaviour('what a pass has sent leaves when its base or the socket is closed in it', async (t) => {
  for (const what of ['base', 'socket']) {
    const base = t.base();
    const ears = t.base();
    const box = new Box(ears, local, 200, () => box.socket.close());
    const client = new Datagram(base, undefined, nothing);
    base
      .timer(() => {
        for (let i = 0; i < 200; i++) client.send(String(i), box.socket.address);
        if (what === 'base') base.close();
        else client.close();
      })
      .add(0);
    await t.run(base);
    assert.is(await t.run(ears), 'empty');
    assert.is(box.messages.length, 200);
    if (what === 'base') {
      assert.is(
        codeOf(() => client.send('x', box.socket.address)),
        'ERR_BASE_CLOSED',
      );
    }
    client.close();
    assert.is(client.dropped, 0);
    ears.close();
  }
});

test('when the queue is full too, messages are dropped and counted', async () => {
  using base = new EventBase();
  const address = { path: freshName() };
  const box = new Box(base, address, Number.POSITIVE_INFINITY, nothing);
  box.socket.pause();
  const client = new Datagram(base, undefined, nothing, { connect: address });
  while (client.send('x'));
  let sent = 1;
  for (; sent < 1_024; sent++) client.send('x');
  assert.equal([client.queueLength, client.dropped], [1_024, 0]);
  for (let i = 0; i < 7; i++) assert.is(client.send('x'), false);
  assert.equal([client.queueLength, client.dropped], [1_024, 7]);
  client.close();
  assert.equal([client.queueLength, client.dropped], [0, 1_031], 'what waits at the end is lost');
  // By bytes it is full earlier.
  const bulky = new Datagram(base, undefined, nothing, { connect: address });
  const big = Buffer.alloc(100_000);
  while (bulky.dropped === 0) assert.is(bulky.send(big), false);
  assert.is(bulky.queueLength, 10);
  bulky.close();
  box.socket.close();
});

test('more than the queue holds leaves within a pass, without a loss', async () => {
  using base = new EventBase();
  const count = 3_000;
  const options = { receiveBufferSize: 2 ** 24 };
  const box = new Box(base, local, count, () => box.socket.close(), options);
  const client = new Datagram(base, undefined, nothing);
  base
    .timer(() => {
      for (let i = 0; i < count; i++) assert.is(client.send(String(i), box.socket.address), true);
      assert.ok(client.queueLength <= 1_024);
    })
    .add(0);
  base.timer(() => client.close()).add(5);
  assert.is(await base.dispatch(), 'empty');
  assert.is(box.messages.length, count);
  assert.is(client.dropped, 0);
  base.close();
  await turn();
});

// ── options ─────────────────────────────────────────────────────────────────────────────────────

behaviour('sending to a broadcast address needs leave', async (t) => {
  const base = t.base();
  const box = new Box(base, { host: '0.0.0.0', port: 0 }, 1, () => {
    box.socket.close();
    allowed.close();
  });
  const to = { host: '127.255.255.255', port: portOf(box.socket) };
  const codes: unknown[] = [];
  const refused = new Datagram(base, undefined, nothing, {
    onError: (error) => {
      codes.push((error as NodeJS.ErrnoException).code);
      refused.close();
      allowed.send('to all', to);
    },
  });
  const allowed = new Datagram(base, undefined, nothing, { broadcast: true });
  refused.send('to all', to);
  assert.is(await t.run(base), 'empty');
  assert.equal(codes, ['EACCES']);
  assert.equal(box.texts, ['to all']);
});

// IPv6 has no route for multicast on the loopback interface.
const members = [{ group: '239.255.42.99', any: '0.0.0.0', name: 'lo', address: '127.0.0.1' }];
if (linkLocal !== undefined) members.push({ group: 'ff02::4299', any: '::', ...linkLocal });

for (const { group, any, name, address } of members)
  behaviour(`a member of a multicast group gets what is sent to it: ${group}`, async (t) => {
    const base = t.base();
    const end = () => {
      box.socket.close();
      client.close();
    };
    const box = new Box(base, { host: any, port: 0 }, 2, end);
    const to = { host: group, port: portOf(box.socket) };
    const errors: Error[] = [];
    const client = new Datagram(base, { host: any, port: 0 }, nothing, {
      multicastInterface: address,
      multicastTtl: 1,
      multicastLoopback: true,
      onError: (error) => {
        errors.push(error);
        end();
      },
    });
    client.send('to nobody yet', to);
    box.socket.addMembership(group, name);
    client.send('first', to);
    box.socket.dropMembership(group, name);
    client.send('to nobody any more', to);
    box.socket.addMembership(group, address);
    client.send('second', to);
    await t.run(base);
    assert.equal(errors, []);
    assert.equal(box.texts, ['first', 'second']);
    assert.is(
      codeOf(() => box.socket.addMembership(group)),
      'ERR_STREAM_WRITE_AFTER_END',
    );
  });

behaviour('reusePort and reuseAddress let two sockets share a port', (t) => {
  const base = t.base();
  for (const options of [{ reusePort: true }, { reuseAddress: true }]) {
    using first = new Datagram(base, local, nothing, options);
    using second = new Datagram(base, first.address, nothing, options);
    assert.equal(second.address, first.address);
    assert.is(
      codeOf(() => new Datagram(base, first.address, nothing)),
      'EADDRINUSE',
    );
  }
});

behaviour('a datagram socket from elsewhere is adopted, and closed with the rest', async (t) => {
  const base = t.base();
  const none = new Uint8Array(0);
  const book = new AddressBook(4);
  const fd = native.datagramOpen(4, book.pack('x', local, 0), none, false, false, -1) as number;
  const box = new Box(base, undefined, 1, () => box.socket.close(), { fd });
  assert.is(box.socket.fd, fd);
  assert.is((box.socket.address as { host: string }).host, '127.0.0.1');
  const peer = book.pack('x', box.socket.address);
  const connected = native.datagramOpen(4, none, peer, false, false, -1) as number;
  const client = new Datagram(base, undefined, nothing, { fd: connected });
  assert.equal(client.remoteAddress, box.socket.address);
  client.send('from one that was connected');
  client.close();
  assert.is(await t.run(base), 'empty');
  assert.equal(box.texts, ['from one that was connected']);
  assert.is(sys.close(fd), -9);
  assert.is(sys.close(connected), -9);
});

behaviour('its events have the priority that is asked for', async (t) => {
  const base = t.base({ priorities: 3 });
  const order: string[] = [];
  const sockets = [2, 0, 1].map((priority) => {
    const socket: Datagram = new Datagram(
      base,
      local,
      () => {
        order.push(String(priority));
        socket.close();
      },
      { priority },
    );
    return socket;
  });
  const client = new Datagram(base, undefined, nothing);
  for (const { address } of sockets) client.send('x', address);
  client.close();
  assert.is(await t.run(base), 'empty');
  assert.equal(order, ['0', '1', '2']);
});

behaviour(
  'a socket keeps a loop going, an unref’d one not the process',
  async (t) => {
    const base = t.base();
    const socket = new Datagram(base, local, nothing);
    const done = base.loop();
    assert.is(base.counts().added, 1);
    socket.unref();
    socket.ref();
    setTimeout(() => socket.close(), 2);
    assert.is(await done, 'empty');
  },
  asynchronous,
);

// ── what goes wrong ─────────────────────────────────────────────────────────────────────────────

behaviour('a descriptor that is closed under our feet is told once', async (t) => {
  const base = t.base();
  const errors: string[] = [];
  const socket = new Datagram(base, local, nothing, { onError: (e) => errors.push(e.message) });
  assert.is(sys.close(socket.fd), 0);
  let rounds = 0;
  const poke = base.timer(
    () => {
      base.activateFd(socket.fd, Ev.READ);
      if (++rounds < 5) return;
      poke.free();
      socket.close();
    },
    { persist: true },
  );
  base.activateFd(socket.fd, Ev.READ);
  poke.add(60);
  assert.is(await t.run(base), 'empty');
  assert.equal(errors, ['recvmsg EBADF: bad file descriptor']);
});

behaviour('so is one that a message is sent on', async (t) => {
  const base = t.base();
  const errors: string[] = [];
  const socket = new Datagram(base, local, nothing, {
    onError: (error) => {
      errors.push(error.message);
      socket.close();
    },
  });
  assert.is(sys.close(socket.fd), 0);
  assert.is(socket.send('x', { host: '127.0.0.1', port: 9 }), true);
  assert.is(await t.run(base), 'empty');
  assert.equal(errors, ['sendmsg EBADF: bad file descriptor 127.0.0.1:9']);
  assert.is(socket.dropped, 1);
});

const TYPE = 'ERR_INVALID_ARG_TYPE';
const VALUE = 'ERR_INVALID_ARG_VALUE';
const RANGE = 'ERR_OUT_OF_RANGE';

test('the arguments of a datagram socket', () => {
  const base = new EventBase({ priorities: 2 });
  const before = openDescriptors();
  const make = (bind: unknown, options?: unknown, onMessages: unknown = nothing) =>
    codeOf(() => new Datagram(base, bind as never, onMessages as never, options as never));
  for (const wrong of [undefined, null, {}, 5])
    assert.is(
      codeOf(() => new Datagram(wrong as never, local, nothing)),
      TYPE,
    );
  for (const wrong of [null, 80, '127.0.0.1', {}, { host: 5, port: 0 }, { host: '127.0.0.1' }])
    assert.is(make(wrong), TYPE, JSON.stringify(wrong));
  assert.is(make({ path: 5 }), TYPE);
  for (const port of [-1, 65_536, 0.5]) assert.is(make({ host: '127.0.0.1', port }), RANGE);
  for (const host of ['localhost', 'a.name', '', '127.0.0.1\0', '1.2.3', `::1${' '.repeat(300)}`])
    assert.is(make({ host, port: 0 }), VALUE, host);
  for (const path of ['', '@', '/a\0b', `/${'x'.repeat(200)}`]) assert.is(make({ path }), VALUE);
  for (const wrong of [null, 5, 'x']) assert.is(make(local, undefined, wrong), TYPE);
  for (const wrong of [null, 5, 'x']) assert.is(make(local, wrong), TYPE);
  for (const key of ['onError', 'onDrain']) assert.is(make(local, { [key]: 5 }), TYPE);
  for (const key of ['reuseAddress', 'reusePort', 'ipv6Only', 'broadcast', 'multicastLoopback'])
    for (const wrong of [0, 'true', null]) assert.is(make(local, { [key]: wrong }), TYPE, key);
  for (const key of ['receiveBufferSize', 'sendBufferSize', 'ttl', 'messageSize'])
    for (const wrong of [0, -1, 0.5, 2 ** 31]) assert.is(make(local, { [key]: wrong }), RANGE, key);
  assert.is(make(local, { ttl: '5' }), TYPE);
  assert.is(make(local, { priority: 2 }), RANGE);
  assert.is(make(undefined, { family: 5 }), VALUE);
  assert.is(make(local, { multicastInterface: 1 }), TYPE);
  assert.is(make(local, { multicastInterface: 'no-such-interface' }), VALUE);
  assert.is(make({ path: freshName() }, { ttl: 5 }), VALUE);
  assert.is(make(local, { connect: { path: '/x' } }), VALUE, 'of another family');
  assert.is(make(local, { connect: { host: '::1', port: 9 } }), VALUE);
  assert.is(make(local, { connect: { host: '127.0.0.1', port: 0 } }), RANGE);
  assert.is(make({ host: '192.0.2.1', port: 1 }), 'EADDRNOTAVAIL');
  assert.is(make({ path: join(folder, 'no/such/folder') }), 'ENOENT');
  assert.is(make(undefined, { connect: { path: join(folder, 'nobody') } }), 'ENOENT');
  assertNoneLeft(before);
  base.close();
  assert.is(make(local), 'ERR_BASE_CLOSED');
});

test('errors name what was to be bound', () => {
  using base = new EventBase();
  using first = new Datagram(base, local, nothing);
  const port = portOf(first);
  const error = thrownBy(() => new Datagram(base, first.address, nothing)) as {
    message: string;
    address?: string;
    port?: number;
  };
  assert.is(error.message, `bind EADDRINUSE: address already in use 127.0.0.1:${port}`);
  assert.equal([error.address, error.port], ['127.0.0.1', port]);
  const path = freshPath();
  using second = new Datagram(base, { path }, nothing);
  assert.is(
    codeOf(() => new Datagram(base, { path }, nothing)),
    'EADDRINUSE',
  );
  assert.is(existsSync(path), true, 'the file is still the first one’s');
  assert.equal(second.address, { path });
});

test('what is no datagram socket is refused, and stays its maker’s', () => {
  using base = new EventBase();
  const [a, b] = sys.socketPair();
  const [pipe, other] = sys.pipe();
  const closed = sys.dup(pipe);
  assert.is(sys.close(closed), 0);
  const cases: [number, string, RegExp][] = [
    [a, VALUE, /"options.fd" must be a datagram socket; descriptor \d+ is none/],
    [pipe, 'ENOTSOCK', /getsockopt ENOTSOCK: .*: descriptor \d+/],
    [closed, 'EBADF', /getsockopt EBADF: .*: descriptor \d+/],
  ];
  for (const [fd, code, message] of cases) {
    const error = thrownBy(() => new Datagram(base, undefined, nothing, { fd }));
    assert.is(error.code, code);
    assert.match(error.message, message);
  }
  assert.is(
    codeOf(() => new Datagram(base, local, nothing, { fd: a })),
    VALUE,
  );
  for (const fd of [-1, 0.5, 2 ** 31])
    assert.is(
      codeOf(() => new Datagram(base, undefined, nothing, { fd })),
      RANGE,
    );
  for (const fd of [a, b, pipe, other]) assert.is(sys.close(fd), 0, 'it is still open');
});

test('the arguments of send, and send after close', () => {
  using base = new EventBase();
  const socket = new Datagram(base, local, nothing);
  const to = { host: '127.0.0.1', port: 9 };
  const send = (data: unknown, address?: unknown) =>
    codeOf(() => socket.send(data as never, address as never));
  for (const data of [undefined, null, 5, {}, [1], new ArrayBuffer(1), new Uint16Array(1)])
    assert.is(send(data, to), TYPE);
  for (const address of [undefined, null, 5, '127.0.0.1:9', {}, { port: 9 }])
    assert.is(send('x', address), TYPE);
  for (const port of [0, -1, 65_536, 1.5]) assert.is(send('x', { ...to, port }), RANGE);
  for (const port of ['9', undefined]) assert.is(send('x', { ...to, port }), TYPE);
  for (const host of ['localhost', 'example.org', '', '::1', '127.0.0.1\0'])
    assert.is(send('x', { host, port: 9 }), VALUE, host);
  assert.match(
    thrownBy(() => socket.send('x', { host: 'example.org', port: 9 })).message,
    /"to.host" must be an IP address: look names up first. Received type string \('example.org'\)/,
  );
  assert.match(
    thrownBy(() => socket.send('x', { host: '::1', port: 9 })).message,
    /"to" is not an address for an IPv4 socket/,
  );
  assert.is(send('x', { path: '/x' }), VALUE);
  assert.is(send(Buffer.alloc(65_508), to), 'EMSGSIZE');
  assert.equal([socket.queueLength, socket.dropped], [0, 0]);
  for (const group of [5, '', 'x', '127.0.0.1', '::1']) {
    const code = codeOf(() => socket.addMembership(group as never));
    assert.ok([TYPE, VALUE, 'EINVAL'].includes(code ?? ''), `${group}: ${code}`);
  }
  assert.is(
    codeOf(() => socket.dropMembership('239.1.2.3')),
    'EADDRNOTAVAIL',
  );
  socket.close();
  socket.close();
  const error = thrownBy(() => socket.send('x', to));
  assert.is(error.code, 'ERR_STREAM_WRITE_AFTER_END');
  assert.match(error.message, /was closed/);
  const unix = new Datagram(base, { path: freshName() }, nothing);
  assert.is(
    codeOf(() => unix.send('x', to)),
    VALUE,
  );
  assert.is(
    codeOf(() => unix.send('x', { path: '' })),
    VALUE,
  );
  assert.is(
    codeOf(() => unix.addMembership('239.1.2.3')),
    VALUE,
  );
  unix.close();
});

test('sockets that come and go leave no descriptor', async () => {
  using base = new EventBase();
  const before = openDescriptors();
  for (let i = 0; i < 100; i++) {
    const path = freshPath();
    using first = new Datagram(base, { path }, nothing);
    using second = new Datagram(base, undefined, nothing, { connect: first.address });
    second.send('x');
    assert.is(
      codeOf(() => new Datagram(base, { path }, nothing)),
      'EADDRINUSE',
    );
  }
  assert.is(base.loopSync(), 'empty');
  assertNoneLeft(before);
});

test('peers are remembered up to a limit, and each is itself', () => {
  const book = new AddressBook(4);
  const names = Buffer.alloc(128);
  const words = new Int32Array(names.buffer, names.byteOffset, 32);
  const seen = new Map<string, Address>();
  for (let i = 0; i < 10_000; i++) {
    const address = { host: `10.${i % 7}.${i % 251}.${i % 13}`, port: 1 + ((i * 37) % 65_535) };
    const packed = book.pack('to', address);
    names.set(packed);
    const got = book.at(names, words, 0, packed.length);
    assert.equal(got, { ...address, family: 4 });
    seen.set(`${address.host}:${address.port}`, got);
    assert.equal([...book.pack('to', got)], [...packed]);
  }
});

test.run();
