// Any Duplex of Node's as a stream of ours: back-pressure both ways, ends, errors, and whose memory
// is whose.

import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex, PassThrough, Readable, type Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import tls from 'node:tls';
import { createGzip, gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BevEvent,
  type BevHandlers,
  type BevOptions,
  BufferEvent,
  Ev,
  EventBase,
  RateLimit,
} from '../../src/index.js';
import { runChild } from '../event/child.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { closed, drives, onEach, patterned, type Rig, textOf, turns, until } from './rig.js';

const KIB = 1024;
const nothing = () => undefined;

/** A stream whose input is gathered and whose events are noted; reading is enabled. */
function over(rig: Rig, duplex: Duplex, options: BevOptions = {}) {
  const events: BevEvent[] = [];
  const chunks: Uint8Array[] = [];
  const bev = BufferEvent.fromDuplex(rig.base, duplex, {
    ...options,
    handlers: {
      read: ({ input }) => chunks.push(input.remove(input.length)),
      event: (_, event) => events.push(event),
      ...options.handlers,
    },
  });
  duplex.on('error', nothing);
  rig.own(duplex);
  rig.atEnd(() => bev.close());
  bev.enable(Ev.READ);
  return { bev, events, text: () => Buffer.concat(chunks).toString('latin1') };
}

/** Two ends of one wire in memory; `far` is for the test, `near` to be made a stream of. */
function wire(options: { writableHighWaterMark?: number; allowHalfOpen?: boolean } = {}) {
  const there = new PassThrough(options);
  const back = new PassThrough(options);
  return {
    near: Duplex.from({ readable: back, writable: there }) as Duplex,
    toNear: back,
    fromNear: there,
  };
}

/** A Duplex that takes what it is given when `takeOne` says so, and keeps it as it came. */
class Keeper extends Duplex {
  readonly kept: Buffer[] = [];
  #taken: (() => void) | undefined = undefined;
  override _read() {}
  override _write(chunk: Buffer, _: BufferEncoding, done: () => void) {
    this.kept.push(chunk);
    this.#taken = done;
  }
  takeOne(): boolean {
    const taken = this.#taken;
    this.#taken = undefined;
    taken?.();
    return taken !== undefined;
  }
}

// ── what it is ──────────────────────────────────────────────────────────────────────────────────

/** Connected through Node alone: `near` is to be made a stream of. */
async function sockets(
  rig: Rig,
): Promise<{ near: net.Socket; far: net.Socket; server: net.Server }> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  rig.atEnd(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const near = rig.own(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
  const [far] = (await once(server, 'connection')) as [net.Socket];
  if (near.connecting) await once(near, 'connect');
  return { near, far: rig.own(far.on('error', nothing)), server };
}

onEach(drives, 'over a net.Socket: it connects, talks, and half-closes both ways', async (rig) => {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  rig.atEnd(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const { bev, events, text } = over(rig, socket);
  bev.write('before it is connected');
  const [far] = (await once(server, 'connection')) as [net.Socket];
  rig.own(far);
  await until(() => events.length === 1);
  assert.equal(events, [{ connected: true }]);
  assert.equal(bev.remoteAddress, { host: '127.0.0.1', port, family: 4 });
  assert.equal(bev.localAddress, { host: '127.0.0.1', port: far.remotePort, family: 4 });
  const asked = textOf(far);
  bev.end(', and after');
  assert.is(await asked, 'before it is connected, and after');
  assert.is(bev.bytesWritten, 33);
  far.end(patterned(3_000_000));
  await until(() => events.length === 2);
  assert.equal(events[1], { eof: true, direction: 'read' });
  assert.is(text(), patterned(3_000_000).toString('latin1'));
  assert.is(bev.bytesRead, 3_000_000);
  assert.is((bev as unknown as { duplex: Duplex }).duplex, socket);
  await closed(socket);
});

onEach(
  drives,
  'callbacks run in a pass, and in the async context in which it was made',
  async (rig) => {
    const where = new AsyncLocalStorage<string>();
    const contexts: string[] = [];
    const note = (name: string) => {
      assert.ok(rig.base.runningEvent, `${name} outside a pass`);
      contexts.push(`${name} ${where.getStore()}`);
    };
    const handlers: BevHandlers = {
      read: ({ input }) => {
        note('read');
        input.drain(input.length);
      },
      write: () => note('write'),
      event: (_, event) => note(event.eof ? 'eof' : String(event.error?.message)),
    };
    const { near, toNear, fromNear } = wire({ writableHighWaterMark: 10 });
    const bev = where.run('made', () => BufferEvent.fromDuplex(rig.base, near, { handlers }));
    where.run('enables', () => bev.enable(Ev.READ));
    where.run('pushes', () => toNear.write('12'));
    await until(() => contexts.length === 1);
    where.run('writes', () => {
      bev.write('more than ten bytes');
      assert.is(contexts.length, 1);
    });
    where.run('takes', () => fromNear.resume());
    await until(() => contexts.length === 2);
    where.run('ends', () => toNear.end());
    await until(() => contexts.length === 3);
    const error = new Error('broken');
    where.run('breaks', () => near.on('error', nothing).destroy(error));
    await until(() => contexts.length === 4);
    assert.equal(contexts, ['read made', 'write made', 'eof made', 'broken made']);
    bev.close();
  },
);

test('what is no Duplex of bytes is refused', () => {
  const base = new EventBase();
  const make = (duplex: unknown, options?: unknown) => () =>
    BufferEvent.fromDuplex(base, duplex as Duplex, options as BevOptions);
  for (const wrong of [undefined, null, 1, 'text', {}, nothing, Readable.from([])])
    assert.is(codeOf(make(wrong)), 'ERR_INVALID_ARG_TYPE');
  for (const wrong of [
    new PassThrough({ objectMode: true }),
    new PassThrough({ readableObjectMode: true }),
    new PassThrough({ writableObjectMode: true }),
    new PassThrough().setEncoding('utf8'),
  ])
    assert.is(codeOf(make(wrong)), 'ERR_INVALID_ARG_VALUE');
  const stream = new PassThrough();
  assert.is(codeOf(make(stream, 1)), 'ERR_INVALID_ARG_TYPE');
  assert.is(codeOf(make(stream, { closeFd: 1 })), 'ERR_INVALID_ARG_TYPE');
  assert.equal(
    stream.eventNames().filter((name) => name === 'readable'),
    [],
  );
  assert.equal([...base.events()], []);
  base.close();
  assert.is(codeOf(make(stream)), 'ERR_BASE_CLOSED');
});

// ── reading ─────────────────────────────────────────────────────────────────────────────────────

onEach(drives, 'the high watermark holds the Duplex, and whoever writes to it', async (rig) => {
  const through = new PassThrough();
  const bytes = patterned(2_000_000);
  let most = 0;
  const chunks: Uint8Array[] = [];
  const bev = BufferEvent.fromDuplex(rig.base, through);
  bev.setWatermark(Ev.READ, 0, 10_000);
  bev.enable(Ev.READ);
  through.end(bytes);
  await until(() => bev.inputLength === 10_000);
  await turns();
  assert.is(bev.inputLength, 10_000, 'exactly');
  let ended = false;
  bev.handlers = {
    event: (_, { eof }) => {
      if (eof) ended = true;
    },
  };
  while (!ended) {
    most = Math.max(most, bev.inputLength);
    if (bev.inputLength > 0) chunks.push(bev.input.remove(1 + (chunks.length % 9_999)));
    await turn();
  }
  assert.is(most, 10_000);
  chunks.push(bev.input.remove(bev.inputLength));
  assert.ok(Buffer.concat(chunks).equals(bytes));
  bev.close();
});

onEach(drives, 'a Duplex that always has more leaves the others their turn', async (rig) => {
  const endless = new Duplex({
    read() {
      this.push(Buffer.alloc(1_000));
    },
    write: (_chunk, _encoding, done) => done(),
  });
  const { bev } = over(rig, endless);
  let ticks = 0;
  const timer = rig.base.timer(() => ticks++, { persist: true }).add(1);
  await until(() => ticks >= 5 && bev.bytesRead > 1_000_000);
  // Nobody takes it out of here.
  const held = over(rig, new PassThrough());
  held.bev.close();
  bev.disable(Ev.READ);
  const { bytesRead } = bev;
  await turns();
  assert.is(bev.bytesRead, bytesRead);
  bev.enable(Ev.READ);
  await until(() => bev.bytesRead > bytesRead);
  timer.free();
  bev.destroy();
  await closed(endless);
});

onEach(drives, 'a rate limit and a read timeout hold for it', async (rig) => {
  const { near, toNear } = wire();
  const { bev, events } = over(rig, near, { rateLimit: new RateLimit({ read: 1_000, tick: 5 }) });
  toNear.write(Buffer.alloc(10_000));
  await until(() => bev.bytesRead > 0);
  assert.ok(bev.bytesRead <= 100, `${bev.bytesRead} at once`);
  await until(() => bev.bytesRead > 100);
  bev.setRateLimit(undefined);
  await until(() => bev.bytesRead === 10_000);
  bev.setTimeouts(5);
  await until(() => events.length === 1);
  assert.equal(events, [{ timeout: true, direction: 'read' }]);
  assert.is(bev.enabled & Ev.READ, 0);
  toNear.write('later');
  bev.setTimeouts(60_000);
  bev.enable(Ev.READ);
  await until(() => bev.bytesRead === 10_005);
  assert.is(events.length, 1);
});

// ── writing ─────────────────────────────────────────────────────────────────────────────────────

onEach(
  drives,
  'a slow Duplex holds its mark and a transfer, and tells when there is room',
  async (rig) => {
    const keeper = new Keeper({ writableHighWaterMark: 1_000 });
    let told = 0;
    const { bev } = over(rig, keeper, { handlers: { write: () => told++ } });
    const bytes = patterned(3_000_000);
    let at = 0;
    while (at < bytes.length) {
      const part = bytes.subarray(at, at + 7_000);
      at += part.length;
      if (bev.write(part)) continue;
      assert.ok(bev.outputLength <= 64 * KIB + 7_000);
      assert.ok(keeper.writableLength <= 64 * KIB + 1_000);
      const before = told;
      await until(() => {
        keeper.takeOne();
        return told > before;
      });
    }
    bev.end();
    await until(() => {
      keeper.takeOne();
      return keeper.writableFinished;
    });
    assert.ok(Buffer.concat(keeper.kept).equals(bytes));
  },
);

onEach(
  drives,
  'what a Duplex keeps stays as it is: slabs are copied, memory that was lent comes back after its callback',
  async (rig) => {
    const keeper = new Keeper({ writableHighWaterMark: 1_000_000 });
    const { bev } = over(rig, keeper);
    let expected = '';
    // Small writes fill slabs; more slabs than are kept come and go meanwhile.
    const [one, other] = BufferEvent.pair(rig.base);
    other.handlers = { read: ({ input }) => void input.drain(input.length) };
    other.enable(Ev.READ);
    for (let i = 0; i < 300; i++) {
      const text = `${i}`.padEnd(1_000, '.');
      expected += text;
      bev.write(text);
      one.write('#'.repeat(4_000));
      if (i % 10 === 0) await turn();
      keeper.takeOne();
    }
    let released = 0;
    const lent = patterned(5_000);
    bev.output.addReference(lent, () => released++);
    expected += lent.toString('latin1');
    await turns(3);
    assert.is(released, 0, 'it has not been called back');
    await until(() => {
      keeper.takeOne();
      return released === 1;
    });
    const kept = Buffer.concat(keeper.kept).toString('latin1');
    assert.is(kept, expected);
    assert.ok(
      keeper.kept.some((chunk) => chunk.buffer === lent.buffer),
      'and it was not copied',
    );
    one.close();
    other.close();
  },
);

onEach(drives, 'what one pass writes is one write of the Duplex', async (rig) => {
  let calls = 0;
  const duplex = new Duplex({
    read: nothing,
    writev(_chunks, done) {
      calls++;
      done();
    },
  });
  const { bev } = over(rig, duplex);
  await new Promise<void>((resolve) => {
    rig.base.once(-1, Ev.TIMEOUT, () => {
      for (let i = 0; i < 10; i++) bev.write(i % 2 ? 'small' : patterned(9_000));
      assert.is(calls, 0);
      resolve();
    });
  });
  await turns(3);
  assert.is(bev.bytesWritten, 5 * 9_000 + 5 * 5);
  assert.is(calls, 1);
});

onEach(drives, 'a part of a file is read for it', async (rig) => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-duplex-'));
  const path = join(folder, 'file');
  const bytes = patterned(300_000);
  writeFileSync(path, bytes);
  try {
    const through = new PassThrough();
    const { bev, text } = over(rig, through);
    bev.write('head ');
    bev.output.addFile(openSync(path, 'r'), 1_000, 250_000);
    bev.end(' tail');
    await until(() => bev.bytesRead === 250_010);
    assert.is(text(), `head ${bytes.subarray(1_000, 251_000).toString('latin1')} tail`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

onEach(drives, 'a write timeout is told when the Duplex takes nothing', async (rig) => {
  const keeper = new Keeper({ writableHighWaterMark: 10 });
  const { bev, events } = over(rig, keeper);
  bev.setTimeouts(undefined, 5);
  bev.write(patterned(20));
  await turns();
  assert.equal(events, [], 'nothing is queued');
  bev.write('queued');
  await until(() => events.length === 1);
  assert.equal(events, [{ timeout: true, direction: 'write' }]);
  bev.setTimeouts();
  keeper.takeOne();
  await turns();
  bev.enable(Ev.WRITE);
  await until(() => bev.outputLength === 0);
  assert.is(bev.bytesWritten, 26);
});

// ── ends and errors ─────────────────────────────────────────────────────────────────────────────

onEach(
  drives,
  'an end is told after all that came before it, whenever reading is enabled',
  async (rig) => {
    const early = new PassThrough();
    early.end('all');
    const bev = BufferEvent.fromDuplex(rig.base, early);
    const told: string[] = [];
    bev.handlers = {
      read: ({ input }) => told.push(Buffer.from(input.remove(99)).toString()),
      event: (_, event) => told.push(event.eof ? 'eof' : 'else'),
    };
    await turns();
    assert.equal(told, []);
    bev.enable(Ev.READ);
    await until(() => told.length === 2);
    assert.equal(told, ['all', 'eof']);
    bev.close();

    const ended = new PassThrough({ autoDestroy: false });
    ended.resume().end();
    await once(ended, 'end');
    const { events } = over(rig, ended);
    await until(() => events.length === 1);
    assert.equal(events, [{ eof: true, direction: 'read' }]);
  },
);

onEach(drives, 'an error of the Duplex, and a close before its end, are told once', async (rig) => {
  for (const enable of [true, false]) {
    const { near } = wire();
    const broken = over(rig, near);
    if (!enable) broken.bev.disable(Ev.READ);
    const error = new Error('broken');
    near.destroy(error);
    await until(() => broken.events.length === 1);
    await closed(near);
    await turns();
    assert.equal(broken.events, [{ error }]);
    assert.is(broken.bev.enabled, 0);
    assert.not(broken.bev.closed);

    const shut = new PassThrough();
    const early = over(rig, shut);
    if (!enable) early.bev.disable(Ev.READ);
    shut.write('lost');
    shut.destroy();
    await until(() => early.events.length === 1);
    await turns();
    assert.is((early.events[0].error as NodeJS.ErrnoException).code, 'ERR_STREAM_PREMATURE_CLOSE');
    assert.is(early.events.length, 1);
  }
});

onEach(drives, 'a Duplex that is destroyed already tells so in the next pass', async (rig) => {
  const cause = new Error('long ago');
  const errored = new PassThrough().on('error', nothing);
  errored.destroy(cause);
  const gone = new PassThrough();
  gone.destroy();
  await Promise.all([closed(errored), closed(gone)]);
  const first = over(rig, errored);
  const second = over(rig, gone);
  assert.equal([first.events, second.events], [[], []]);
  await until(() => first.events.length + second.events.length === 2);
  assert.is(first.events[0].error, cause);
  assert.is((second.events[0].error as NodeJS.ErrnoException).code, 'ERR_STREAM_PREMATURE_CLOSE');

  // One that was over in good order has an end, and takes nothing.
  const done = new PassThrough();
  done.resume().end();
  await closed(done);
  const third = over(rig, done);
  await until(() => third.events.length === 1);
  assert.equal(third.events, [{ eof: true, direction: 'read' }]);
  third.bev.write('too late');
  await until(() => third.events.length === 2);
  assert.is((third.events[1].error as NodeJS.ErrnoException).code, 'ERR_STREAM_PREMATURE_CLOSE');
  assert.is(third.events[1].direction, 'write');
  third.bev.end();
});

onEach(drives, 'a Duplex that ends itself with its peer takes no more', async (rig) => {
  const { near, far } = await sockets(rig);
  near.allowHalfOpen = false;
  const { bev, events } = over(rig, near);
  far.end('bye');
  await closed(near);
  await until(() => events.length === 1);
  assert.equal(events, [{ eof: true, direction: 'read' }]);
  bev.write('too late');
  await until(() => events.length === 2);
  assert.is(events[1].direction, 'write');
  assert.instance(events[1].error, Error);
});

onEach(drives, 'destroy(error) destroys it, and a socket’s peer sees a reset', async (rig) => {
  const { near } = wire();
  const { bev, events } = over(rig, near);
  const error = new Error('enough');
  const failed = once(near, 'error');
  bev.destroy(error);
  assert.is((await failed)[0], error);
  await until(() => events.length === 1);
  assert.equal(events, [{ error }]);

  const ends = await sockets(rig);
  const reset = over(rig, ends.near);
  const seen = once(ends.far, 'error');
  ends.far.resume();
  reset.bev.destroy(error);
  assert.is((await seen)[0].code, 'ECONNRESET');
  await until(() => reset.events.some((event) => event.error === error));

  const gentle = await sockets(rig);
  const text = textOf(gentle.far);
  over(rig, gentle.near).bev.destroy();
  assert.is(await text, '');
  await closed(gentle.near);
});

onEach(
  drives,
  'close() lets it write what it has accepted; nothing is told any more',
  async (rig) => {
    const { near, far } = await sockets(rig);
    const { bev, events } = over(rig, near);
    const bytes = patterned(8_000_000);
    near.write(bytes);
    bev.write('and the end');
    bev.close();
    far.write('nobody reads this');
    assert.ok(!near.destroyed);
    const text = await textOf(far);
    assert.is(text.length, bytes.length + 11);
    assert.ok(text.endsWith('and the end'));
    await closed(near);
    assert.equal(events, []);
  },
);

onEach(drives, 'with closeFd false it goes back to whoever had it', async (rig) => {
  const { near, far } = await sockets(rig);
  const before = near.eventNames();
  const bev = BufferEvent.fromDuplex(rig.base, near, { closeFd: false });
  bev.enable(Ev.READ);
  far.write('one');
  await until(() => bev.inputLength === 3);
  bev.close();
  assert.equal(near.eventNames(), before);
  assert.not(near.destroyed);
  far.end('two');
  assert.is(await textOf(near), 'two');
});

// ── round trips ─────────────────────────────────────────────────────────────────────────────────

const there: Record<string, (rig: Rig) => Promise<Duplex> | Duplex> = {
  'toDuplex() of a socket': async (rig) => {
    const [one, other] = rig.sockets({ allowHalfOpen: true });
    other.pipe(other);
    return one;
  },
  'toDuplex() of a pair': (rig) => {
    const [one, other] = rig.pair({ allowHalfOpen: true });
    other.pipe(other);
    return one;
  },
  'a net.Socket': async (rig) => {
    const { near, far } = await sockets(rig);
    far.pipe(far);
    return near;
  },
  'a PassThrough': () => new PassThrough(),
  'a tls.TLSSocket': async (rig) => {
    const { near, far } = await sockets(rig);
    const fixture = (name: string) =>
      readFileSync(new URL(`../../../test/stream/fixtures/${name}`, import.meta.url));
    const [key, cert] = [fixture('key.pem'), fixture('cert.pem')];
    const secureContext = tls.createSecureContext({ key, cert });
    const server = rig.own(new tls.TLSSocket(far, { isServer: true, secureContext }));
    server.on('error', nothing).pipe(server);
    return tls.connect({ socket: near, ca: cert, servername: 'localhost' });
  },
};

for (const [name, make] of Object.entries(there)) {
  onEach(drives, `3 MB to ${name} and back`, async (rig) => {
    const bytes = patterned(3_000_000);
    const { bev, events, text } = over(rig, await make(rig));
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const length = [10, 5_000, 70_000, 1][i % 4];
      bev.write(bytes.subarray(at, at + length));
      at += length;
      if (i % 10 === 0) await turn();
    }
    bev.end();
    await until(() => events.some((event) => event.eof) || events.some((event) => event.error));
    assert.equal(
      events.filter((event) => !event.connected),
      [{ eof: true, direction: 'read' }],
    );
    assert.ok(text() === bytes.toString('latin1'));
  });

  onEach(drives, `toDuplex() of fromDuplex() of ${name}`, async (rig) => {
    const bytes = patterned(3_000_000);
    const inner = await make(rig);
    const bev = BufferEvent.fromDuplex(rig.base, rig.own(inner));
    const duplex = rig.own(bev.toDuplex({ allowHalfOpen: true }));
    const text = textOf(duplex);
    duplex.end(bytes);
    assert.ok((await text) === bytes.toString('latin1'));
    await closed(duplex);
    await closed(inner);
  });
}

onEach(drives, 'over a zlib stream', async (rig) => {
  const { bev, events, text } = over(rig, createGzip());
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`);
  for (const [i, line] of lines.entries()) {
    bev.write(line);
    if (i % 1_000 === 0) await turn();
  }
  bev.end();
  await until(() => events.length === 1);
  assert.equal(events, [{ eof: true, direction: 'read' }]);
  assert.is(String(gunzipSync(Buffer.from(text(), 'latin1'))), lines.join(''));
  assert.ok((bev as unknown as { duplex: Writable }).duplex.writableFinished);
});

// ── the loop and the process ────────────────────────────────────────────────────────────────────

test('the loop goes on while it reads or has to write, and ends after that', async () => {
  const base = new EventBase({ drive: 'libuv' });
  const through = new PassThrough();
  const events: BevEvent[] = [];
  const bev = BufferEvent.fromDuplex(base, through, {
    handlers: { event: (_, event) => events.push(event) },
  });
  bev.enable(Ev.READ);
  let over = false;
  const result = base.dispatch().then((how) => {
    over = true;
    return how;
  });
  await turns();
  assert.not(over);
  bev.end('x');
  assert.is(await within(PATIENCE_MS, result), 'empty');
  assert.equal(events, [{ eof: true, direction: 'read' }]);
  assert.is(bev.inputLength, 1);
  bev.close();
  base.close();
});

const child = `
  import net from 'node:net';
  const base = new EventBase({ drive: DRIVE });
  const server = net.createServer((socket) => socket.resume()).listen(0, '127.0.0.1', () => {
    const socket = net.connect(server.address().port, '127.0.0.1');
    const bev = BufferEvent.fromDuplex(base, socket).enable(Ev.READ);
    base.dispatch().then((how) => console.log(how));
    server.unref().on('connection', (far) => { far.unref(); CONNECTED });
  });
  process.on('exit', () => console.log('exit'));
`.replaceAll('\n', ' ');

for (const drive of ['base', 'libuv']) {
  test(`${drive} drive: its Duplex keeps the process alive, unless it is unref'd`, async () => {
    const lines = child.replace('DRIVE', `'${drive}'`);
    const unrefed = await runChild(lines.replace('CONNECTED', 'bev.unref();'));
    assert.is(unrefed.stdout, 'exit\n', unrefed.stderr);
    const refed = await runChild(
      lines.replace(
        'CONNECTED',
        "bev.unref().ref(); setTimeout(() => { console.log('timer'); bev.close(); }, 50);",
      ),
    );
    assert.is(refed.stdout, 'timer\nempty\nexit\n', refed.stderr);
  });
}

test.run();
