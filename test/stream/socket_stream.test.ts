// Streams over sockets: what libevent.md says of bufferevents, on every backend.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type BevHandlers, BufferEvent, Ev, EvBuffer, EventBase, sys } from '../../src/index.js';
import { imports } from '../event/child.js';
import { behaviour } from '../event/conformance.js';
import { codeOf, gatheringUncaught, PATIENCE_MS, within } from '../event/support.js';
import { Log, passes, streamOf, until, WriteLog } from './streams.js';

const folder = mkdtempSync(join(tmpdir(), 'multiloop-stream-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

// ── reading ──

behaviour('what comes is in the input, and read is called once for it', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  trial.write(other, 'hello ');
  trial.write(other, 'world');
  await until(trial, base, () => log.text === 'hello world');
  assert.equal(log.lines, ['read']);
  assert.is(bev.bytesRead, 11);
  bev.close();
});

behaviour('reading is not enabled from the beginning, writing is', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const [fd, other] = trial.pair();
  const bev = BufferEvent.socket(base, trial.disown(fd), { handlers: log });
  assert.is(bev.enabled, Ev.WRITE);
  trial.write(other, 'early');
  await passes(trial, base);
  assert.equal(log.lines, []);
  bev.enable(Ev.READ);
  await until(trial, base, () => log.text === 'early');
  bev.close();
});

behaviour('what disable() leaves in the kernel comes after enable()', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  bev.disable(Ev.READ);
  trial.write(other, 'later');
  await passes(trial, base);
  assert.equal(log.lines, []);
  bev.enable(Ev.READ);
  await until(trial, base, () => log.text === 'later');
  bev.close();
});

behaviour('the low watermark: read waits for as much', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  bev.setWatermark(Ev.READ, 10);
  trial.write(other, '12345');
  await until(trial, base, () => bev.inputLength === 5);
  assert.equal(log.lines, []);
  trial.write(other, '67890');
  await until(trial, base, () => log.lines.length > 0);
  assert.is(log.text, '1234567890');
  bev.close();
});

behaviour('the high watermark: no more is read until some is taken', async (trial) => {
  const base = trial.base();
  let calls = 0;
  const { bev, other } = streamOf(trial, base, { read: () => calls++ });
  bev.setWatermark(Ev.READ, 0, 8);
  trial.write(other, 'x'.repeat(20));
  await until(trial, base, () => calls === 1);
  assert.is(bev.inputLength, 8);
  await passes(trial, base);
  assert.is(calls, 1);
  assert.is(bev.inputLength, 8);
  bev.input.drain(5);
  await until(trial, base, () => calls === 2);
  assert.is(bev.inputLength, 8);
  bev.input.drain(8);
  await until(trial, base, () => bev.bytesRead === 20);
  assert.is(bev.inputLength, 7);
  bev.close();
});

behaviour('read that takes a part above the high watermark is called again', async (trial) => {
  const base = trial.base();
  const lengths: number[] = [];
  const { bev, other } = streamOf(trial, base, {
    read({ input }) {
      lengths.push(input.length);
      input.drain(2);
    },
  });
  trial.write(other, 'x'.repeat(10));
  await until(trial, base, () => bev.bytesRead === 10);
  lengths.length = 0;
  trial.write(other, 'y'.repeat(6));
  bev.setWatermark(Ev.READ, 0, 4);
  // 8 are there and the mark is 4: nothing comes before some is taken.
  bev.trigger(Ev.READ);
  await until(trial, base, () => bev.bytesRead === 16);
  assert.equal(lengths.slice(0, 3), [8, 6, 4]);
  bev.close();
});

behaviour('read that takes nothing above the high watermark does not spin', async (trial) => {
  const base = trial.base();
  let calls = 0;
  const { bev, other } = streamOf(trial, base, { read: () => calls++ });
  bev.setWatermark(Ev.READ, 0, 4);
  trial.write(other, 'x'.repeat(10));
  await until(trial, base, () => calls === 1);
  await passes(trial, base, 20);
  assert.is(calls, 1);
  bev.close();
});

behaviour('maxRead: one read a pass, of so many bytes', async (trial) => {
  const base = trial.base();
  const lengths: number[] = [];
  const { bev, other } = streamOf(trial, base, {
    read({ input }) {
      lengths.push(input.length);
      input.drain(input.length);
    },
  });
  bev.maxRead = 4;
  trial.write(other, '0123456789');
  await until(trial, base, () => bev.bytesRead === 10);
  assert.equal(lengths, [4, 4, 2]);
  bev.close();
});

// ── writing ──

behaviour('write() in a callback leaves at the end of the pass, in order', async (trial) => {
  const base = trial.base();
  let seen: number | undefined;
  const { bev, other } = streamOf(trial, base, {
    read(stream) {
      stream.write('a');
      stream.write(Buffer.from('b'));
      stream.write(new Uint8Array([99]));
      stream.write(stream.input);
      seen = sys.read(other, Buffer.alloc(10));
    },
  });
  trial.write(other, 'd');
  await until(trial, base, () => seen !== undefined);
  assert.ok((seen as number) < 0, 'nothing had left inside the callback');
  assert.is(trial.read(other), 'abcd');
  assert.is(bev.outputLength, 0);
  assert.is(bev.bytesWritten, 4);
  bev.close();
});

behaviour('write() outside a pass leaves at once', (trial) => {
  const base = trial.base();
  const { bev, other } = streamOf(trial, base, {});
  bev.write('now');
  assert.is(trial.read(other), 'now');
  bev.output.add(' and ');
  assert.is(trial.read(other), ' and ');
  bev.output.add('this');
  assert.is(trial.read(other), 'this');
  bev.close();
});

behaviour('write is called when the output has drained to the low watermark', async (trial) => {
  const base = trial.base();
  const log = new WriteLog();
  const { bev, other } = streamOf(trial, base, log);
  bev.write('x');
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['write']);
  await passes(trial, base);
  assert.equal(log.lines, ['write']);
  assert.is(trial.read(other), 'x');
  bev.close();
});

behaviour('a slow reader: write() says so, and nothing is lost', async (trial) => {
  const base = trial.base();
  const { bev, other } = streamOf(trial, base, {});
  const chunk = Buffer.alloc(50_000);
  let sent = 0;
  const fill = () => {
    for (let i = 0; i < chunk.length; i++) chunk[i] = (sent + i) % 251;
    sent += chunk.length;
    // Large data is not copied.
    return bev.write(Buffer.from(chunk));
  };
  let accepted = true;
  while (accepted) accepted = fill();
  assert.ok(bev.outputLength > 64 * 1024);
  let drained = 0;
  bev.handlers = { write: () => drained++ };
  const into = Buffer.alloc(7_000);
  let got = 0;
  while (got < sent) {
    const count = sys.read(other, into);
    if (count < 0) {
      await passes(trial, base, 1);
      continue;
    }
    for (let i = 0; i < count; i++)
      if (into[i] !== (got + i) % 251) assert.unreachable(`byte ${got + i}`);
    got += count;
  }
  await until(trial, base, () => drained > 0);
  assert.is(bev.outputLength, 0);
  bev.close();
});

behaviour('write-low: write is called while some output is left', async (trial) => {
  const base = trial.base();
  const log = new WriteLog();
  const { bev, other } = streamOf(trial, base, log);
  bev.setWatermark(Ev.WRITE, 1_000_000);
  bev.write(Buffer.alloc(1_200_000));
  assert.ok(bev.outputLength > 0);
  const into = Buffer.alloc(65_536);
  while (log.lines.length === 0) {
    while (sys.read(other, into) > 0);
    await passes(trial, base, 1);
  }
  assert.ok(bev.bytesWritten >= 200_000);
  bev.close();
});

behaviour('disabled, nothing leaves; enabled, it does', async (trial) => {
  const base = trial.base();
  const { bev, other } = streamOf(trial, base, {});
  bev.disable(Ev.WRITE);
  bev.write('held');
  await passes(trial, base);
  assert.is(sys.read(other, Buffer.alloc(9)), -11);
  bev.enable(Ev.WRITE);
  assert.is(trial.read(other), 'held');
  bev.close();
});

behaviour('a file is sent between other data', async (trial) => {
  const base = trial.base();
  const file = join(folder, 'sent');
  writeFileSync(file, 'from the file');
  const { bev, other } = streamOf(trial, base, {});
  const buffer = new EvBuffer().add('<').addFile(openSync(file, 'r'), 5, 8).add('>');
  bev.write(buffer);
  assert.is(buffer.length, 0);
  await until(trial, base, () => bev.outputLength === 0);
  let text = '';
  while (text.length < 10) text += trial.read(other);
  assert.is(text, '<the file>');
  bev.close();
});

behaviour('a file that became shorter is an error, and the descriptor is closed', async (trial) => {
  const base = trial.base();
  const file = join(folder, 'short');
  writeFileSync(file, 'long enough');
  const log = new Log();
  const { bev } = streamOf(trial, base, log);
  bev.disable(Ev.WRITE);
  bev.write(new EvBuffer().addFile(openSync(file, 'r')));
  writeFileSync(file, 'no');
  bev.enable(Ev.WRITE);
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['write ERR_FILE_TRUNCATED']);
  assert.is(bev.enabled & Ev.WRITE, 0);
  bev.close();
});

// ── ends and errors ──

behaviour('eof: reading is over, writing goes on', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  const far = BufferEvent.socket(base, trial.disown(other));
  far.end('bye');
  await until(trial, base, () => log.lines.includes('read eof'));
  assert.equal(log.lines, ['read', 'read eof']);
  assert.is(log.text, 'bye');
  assert.is(bev.enabled, Ev.WRITE);
  const answer = new Log();
  far.handlers = answer;
  far.enable(Ev.READ);
  bev.write('still here');
  await until(trial, base, () => answer.text === 'still here');
  bev.close();
  await until(trial, base, () => answer.lines.includes('read eof'));
  far.close();
});

behaviour('end() ends after what was written', async (trial) => {
  const base = trial.base();
  const { bev, other } = streamOf(trial, base, {});
  bev.write(Buffer.alloc(1_000_000, 'x'));
  bev.end('!');
  assert.ok(bev.ended);
  assert.is(
    codeOf(() => bev.write('more')),
    'ERR_STREAM_WRITE_AFTER_END',
  );
  bev.end();
  const into = Buffer.alloc(65_536);
  let got = 0;
  for (let count = -1; count !== 0; ) {
    count = sys.read(other, into);
    if (count > 0) got += count;
    else if (count < 0) await passes(trial, base, 1);
  }
  assert.is(got, 1_000_001);
  bev.close();
});

behaviour('a reset while reading is an error of reading', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  // Unread data turns the close of a socket pair into a reset (unix(7)).
  bev.write('unread');
  trial.close(other);
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['read ECONNRESET']);
  assert.match(log.errors[0].message, /^recv ECONNRESET/);
  assert.is(bev.enabled & Ev.READ, 0);
  bev.close();
});

behaviour('writing to a peer that is gone is an error of writing', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  bev.disable(Ev.READ);
  trial.close(other);
  assert.is(bev.write('lost'), true);
  assert.equal(log.lines, [], 'nothing calls back from inside write()');
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['write EPIPE']);
  assert.is(bev.enabled & Ev.WRITE, 0);
  bev.close();
});

behaviour('close() is final: the descriptor is closed, no callback follows', async (trial) => {
  const base = trial.base();
  const log = new WriteLog();
  const { bev, other } = streamOf(trial, base, log);
  trial.write(other, 'never read');
  bev.write('flushed');
  bev.trigger(Ev.READ | Ev.WRITE, { ignoreWatermarks: true });
  const { fd } = bev;
  bev.close();
  assert.is(bev.fd, -1);
  assert.is(sys.read(fd, Buffer.alloc(1)), -9);
  assert.is(trial.read(other), 'flushed');
  bev.close();
  assert.is(bev.write('dropped'), false);
  bev.enable(Ev.READ).disable(Ev.WRITE).end();
  await passes(trial, base);
  assert.equal(log.lines, []);
});

behaviour('close() from inside each callback', async (trial) => {
  const base = trial.base();
  for (const name of ['read', 'write', 'event'] as const) {
    let calls = 0;
    const handlers: BevHandlers = {
      [name](stream: BufferEvent) {
        calls++;
        stream.close();
      },
    };
    const { bev, other } = streamOf(trial, base, handlers);
    trial.write(other, 'x');
    bev.write('y');
    bev.triggerEvent({ timeout: true });
    await until(trial, base, () => calls > 0);
    await passes(trial, base);
    assert.is(calls, 1, name);
    assert.ok(bev.closed);
  }
});

behaviour('destroy(error): a reset for the peer, and the error as the last call', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  const far = new Log();
  const peer = BufferEvent.socket(base, trial.disown(other), { handlers: far });
  trial.write(bev.fd, 'x');
  bev.disable(Ev.READ);
  bev.destroy(new Error('of mine'));
  assert.equal(log.lines, []);
  await until(trial, base, () => log.errors.length > 0);
  assert.is(log.errors[0].message, 'of mine');
  peer.close();
  await passes(trial, base);
  assert.is(log.lines.length, 1);
});

behaviour('closeFd: false leaves the descriptor open', (trial) => {
  const base = trial.base();
  const [fd, other] = trial.pair();
  const bev = BufferEvent.socket(base, fd, { closeFd: false });
  bev.close();
  trial.write(fd, 'mine');
  assert.is(trial.read(other), 'mine');
});

behaviour('a callback that throws costs nobody else', async (trial) => {
  const base = trial.base();
  const first = streamOf(trial, base, {
    read: () => {
      throw new Error('of the callback');
    },
  });
  const log = new Log();
  const second = streamOf(trial, base, log);
  trial.write(first.other, 'x');
  trial.write(second.other, 'y');
  await gatheringUncaught(async (caught) => {
    for (let i = 0; i < 20 && log.text === ''; i++)
      try {
        await trial.run(base, 1);
      } catch (error) {
        caught.push(error);
      }
    assert.is(caught.length, 1);
  });
  assert.is(log.text, 'y');
  assert.is(first.bev.inputLength, 1, 'what it did not take is still there');
  first.bev.close();
  second.bev.close();
});

behaviour('a descriptor closed under our feet is an error of the next write', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev } = streamOf(trial, base, log, { closeFd: false });
  bev.disable(Ev.READ);
  await passes(trial, base, 1);
  closeSync(bev.fd);
  bev.write('nowhere');
  assert.equal(log.lines, []);
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['write EBADF']);
  bev.close();
  // Later work of the base is unaffected.
  const after = streamOf(trial, base, log);
  trial.write(after.other, 'fine');
  await until(trial, base, () => log.text === 'fine');
  after.bev.close();
});

test('a blocking descriptor does not block the base', async () => {
  // What a child has as its descriptor 3 is a stream socket that nobody made non-blocking.
  const code = `
    import { constants, readFileSync } from 'node:fs';
    const text = readFileSync('/proc/self/fdinfo/3', 'utf8');
    const flags = parseInt(text.split('flags:')[1].trim(), 8);
    if (flags & constants.O_NONBLOCK) throw new Error('it is non-blocking: ' + text);
    const base = new EventBase({ drive: 'base' });
    let ticks = 0;
    const timer = base.timer(() => { if (++ticks === 3) console.log('ticks'); }, { persist: true }).add(1);
    BufferEvent.socket(base, 3, { handlers: {
      read: (bev) => bev.write(bev.input),
      event: (bev) => { bev.close(); timer.free(); },
    } }).enable(Ev.READ);
    await base.dispatch();
    console.log('over');
  `;
  const args = ['--input-type=module', '-e', imports + code];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'pipe'] });
  let said = '';
  const told = (text: string) =>
    new Promise<void>((resolve) => {
      child.stdout?.on('data', (data) => {
        said += data;
        if (said.includes(text)) resolve();
      });
    });
  const ended = once(child, 'exit');
  await within(PATIENCE_MS, told('ticks'));
  const socket = child.stdio[3] as Socket;
  socket.write('echo');
  const [back] = await within(PATIENCE_MS, once(socket, 'data'));
  assert.is(String(back), 'echo');
  socket.end();
  assert.is((await within(PATIENCE_MS, ended))[0], 0);
});

// ── timeouts ──

behaviour('the read timeout: once, and reading is disabled', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  bev.setTimeouts(20);
  trial.write(other, 'x');
  await until(trial, base, () => log.lines.includes('read timeout'));
  assert.equal(log.lines, ['read', 'read timeout']);
  assert.is(bev.enabled, Ev.WRITE);
  bev.enable(Ev.READ);
  await until(trial, base, () => log.lines.length === 3);
  assert.is(log.lines[2], 'read timeout');
  bev.close();
});

behaviour('the read timeout rests while reading is held', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, { event: log.event.bind(log) });
  bev.setWatermark(Ev.READ, 0, 1);
  trial.write(other, 'xy');
  await until(trial, base, () => bev.inputLength === 1);
  bev.setTimeouts(5);
  const clock = base.timer(() => undefined).add(40);
  await until(trial, base, () => clock.remaining === undefined);
  assert.equal(log.lines, []);
  bev.input.drain(1);
  await until(trial, base, () => bev.inputLength === 1);
  bev.input.drain(1);
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['read timeout']);
  bev.close();
});

behaviour('the write timeout: only while something is queued', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev } = streamOf(trial, base, log);
  bev.setTimeouts(undefined, 20);
  bev.write('taken at once');
  const clock = base.timer(() => undefined).add(40);
  await until(trial, base, () => clock.remaining === undefined);
  assert.equal(log.lines, []);
  bev.write(Buffer.alloc(2_000_000));
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['write timeout']);
  assert.is(bev.enabled, Ev.READ);
  bev.close();
});

behaviour('setTimeouts() without times takes them back', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev } = streamOf(trial, base, log);
  bev.setTimeouts(10, 10);
  bev.write(Buffer.alloc(2_000_000));
  bev.setTimeouts();
  const clock = base.timer(() => undefined).add(40);
  await until(trial, base, () => clock.remaining === undefined);
  assert.equal(log.lines, []);
  assert.equal(bev.timeouts, { read: undefined, write: undefined });
  bev.close();
});

// ── the rest ──

behaviour('defer: callbacks wait for the next pass, in libevent’s order', async (trial) => {
  const base = trial.base();
  const log = new WriteLog();
  const { bev, other } = streamOf(trial, base, log, { defer: true });
  bev.triggerEvent({ timeout: true });
  bev.trigger(Ev.WRITE);
  bev.trigger(Ev.READ);
  bev.triggerEvent({ connected: true });
  await until(trial, base, () => log.lines.length >= 4);
  assert.equal(log.lines, ['connected', 'read', 'write', 'timeout']);
  trial.write(other, 'x');
  await until(trial, base, () => log.text === 'x');
  bev.close();
});

behaviour('trigger() minds the watermarks unless it is told not to', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev } = streamOf(trial, base, log);
  bev.setWatermark(Ev.READ, 5);
  bev.trigger(Ev.READ);
  await passes(trial, base);
  assert.equal(log.lines, []);
  bev.trigger(Ev.READ, { ignoreWatermarks: true });
  await until(trial, base, () => log.lines.length > 0);
  assert.equal(log.lines, ['read']);
  bev.close();
});

behaviour('setFd() goes on with another socket', async (trial) => {
  const base = trial.base();
  const log = new Log();
  const { bev, other } = streamOf(trial, base, log);
  const [fd, far] = trial.pair();
  const { fd: old } = bev;
  bev.setFd(trial.disown(fd), { close: true });
  assert.is(sys.read(old, Buffer.alloc(1)), -9);
  assert.is(trial.read(other), '');
  trial.write(far, 'new');
  await until(trial, base, () => log.text === 'new');
  bev.write('out');
  assert.is(trial.read(far), 'out');
  bev.close();
});

behaviour('priorities: the stream that is more urgent is told first', async (trial) => {
  const base = trial.base({ priorities: 3 });
  const order: string[] = [];
  const take = (name: string): BevHandlers => ({
    read(stream) {
      order.push(name);
      stream.input.drain(stream.inputLength);
    },
  });
  const low = streamOf(trial, base, take('low'), { priority: 2 });
  const high = streamOf(trial, base, take('high'));
  high.bev.priority = 0;
  trial.write(low.other, 'x');
  trial.write(high.other, 'x');
  await until(trial, base, () => order.length === 2);
  assert.equal(order, ['high', 'low']);
  assert.is(high.bev.priority, 0);
  low.bev.close();
  high.bev.close();
});

behaviour(
  'a stream that reads keeps the base going until it is unref’ed or closed',
  async (trial) => {
    const base = trial.base();
    const { bev } = streamOf(trial, base, {});
    assert.is(base.counts().added, 1);
    bev.close();
    assert.is(await trial.run(base), 'empty');
  },
);

test('what makes no sense is refused', () => {
  const base = new EventBase();
  const [fd, other] = sys.socketPair();
  const [pipe, pipeIn] = sys.pipe();
  assert.is(
    codeOf(() => BufferEvent.socket(base, pipe)),
    'ENOTSOCK',
  );
  assert.is(
    codeOf(() => BufferEvent.socket(base, 9_999)),
    'EBADF',
  );
  for (const bad of [-1, 1.5, '1', undefined])
    assert.match(
      codeOf(() => BufferEvent.socket(base, bad as number)) as string,
      /ERR_INVALID_ARG_TYPE|ERR_OUT_OF_RANGE/,
    );
  assert.is(
    codeOf(() => BufferEvent.socket(base, fd, { priority: 1 })),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => BufferEvent.pair(base, { tls: {} })),
    'ERR_TLS_UNAVAILABLE',
  );
  assert.is(
    codeOf(() => BufferEvent.socket(base, fd, { closeFd: 1 } as object)),
    'ERR_INVALID_ARG_TYPE',
  );
  const bev = BufferEvent.socket(base, fd);
  for (const bad of [Ev.SIGNAL, Ev.READ | Ev.ET, 0x100, '2'])
    assert.ok(codeOf(() => bev.enable(bad as number)));
  assert.is(
    codeOf(() => bev.setWatermark(Ev.READ, 10, 5)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => bev.setWatermark(Ev.READ, -1)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => bev.setTimeouts(-1)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => bev.setTimeouts(1, Number.NaN)),
    'ERR_OUT_OF_RANGE',
  );
  for (const bad of [1, null, undefined, {}, [1]])
    assert.is(
      codeOf(() => bev.write(bad as string)),
      'ERR_INVALID_ARG_TYPE',
    );
  assert.is(
    codeOf(() => bev.input.add('x')),
    'ERR_BUFFER_FROZEN',
  );
  bev.output.add('y');
  bev.disable(Ev.WRITE);
  bev.write('z');
  assert.is(
    codeOf(() => bev.output.drain(1)),
    'ERR_BUFFER_FROZEN',
  );
  bev.write('');
  bev.write(new Uint8Array(0));
  bev.write(new EvBuffer());
  bev.close();
  for (const one of [other, pipe, pipeIn]) sys.close(one);
  base.close();
  assert.is(
    codeOf(() => BufferEvent.socket(base, 0)),
    'ERR_BASE_CLOSED',
  );
  assert.is(
    codeOf(() => BufferEvent.socket({} as EventBase, 0)),
    'ERR_INVALID_ARG_TYPE',
  );
});

test.run();
