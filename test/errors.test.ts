// Every code that the event layer answers a mistake with, and the shape of errors.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemError } from '../src/errors.js';
import { Ev, EventBase, type EventHandle, Listener, MultiloopError, sys } from '../src/index.js';
import { native } from '../src/native.js';
import { codeOf, openDescriptors, rejectionOf, thrownBy } from './event/support.js';

const TYPE = 'ERR_INVALID_ARG_TYPE';
const RANGE = 'ERR_OUT_OF_RANGE';
const VALUE = 'ERR_INVALID_ARG_VALUE';

const nothing = () => undefined;
// biome-ignore lint/suspicious/noExplicitAny: what is wrong on purpose has no type
type Wrong = any;

const notNumbers = ['1', null, {}, [], true, 1n, Symbol('one'), nothing] as Wrong[];
const notFunctions = [undefined, null, 'text', {}, 5] as Wrong[];

function withBase(body: (base: EventBase) => void): void {
  const base = new EventBase({ priorities: 3, debug: true });
  try {
    body(base);
    assert.equal([...base.events()], [], 'nothing that was refused is left behind');
    assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
  } finally {
    base.close();
  }
}

function assertCodes(code: string, values: readonly Wrong[], body: (value: Wrong) => unknown) {
  for (const value of values) {
    const error = thrownBy(() => body(value));
    assert.is(error.code, code, `for ${String(value)}: ${error.message}`);
    assert.instance(error, code === RANGE ? RangeError : TypeError);
  }
}

// ── arguments ───────────────────────────────────────────────────────────────────────────────────

test('the options of a base', () => {
  const make = (options: Wrong) => new EventBase(options);
  assertCodes(TYPE, [null, 'epoll', 5, nothing], make);
  assertCodes(
    TYPE,
    notNumbers.filter((value) => value !== null),
    (priorities) => make({ priorities }),
  );
  assertCodes(RANGE, [0, -1, 257, 1.5, Number.NaN, Infinity], (priorities) => make({ priorities }));
  assertCodes(VALUE, ['fd', ''], (waker) => make({ waker }));
  assertCodes(VALUE, ['uv', ''], (drive) => make({ drive }));
  assertCodes(TYPE, [5, {}], (drive) => make({ drive }));
});

test('the arguments of event()', () => {
  withBase((base) => {
    assertCodes(TYPE, [...notNumbers, undefined], (fd) => base.event(fd, Ev.READ, nothing));
    assertCodes(RANGE, [-2, 0.5, Number.NaN, 2 ** 31], (fd) => base.event(fd, Ev.READ, nothing));
    assertCodes(TYPE, [...notNumbers, undefined], (mask) => base.event(0, mask, nothing));
    assertCodes(RANGE, [-1, 256, 0.5, Number.NaN], (mask) => base.event(0, mask, nothing));
    assertCodes(TYPE, notFunctions, (callback) => base.event(0, Ev.READ, callback));
    assertCodes(TYPE, notFunctions, (callback) => base.timer(callback));
    assertCodes(TYPE, [null, 5, 'text'], (options) => base.event(0, Ev.READ, nothing, options));
    assertCodes(TYPE, [null, 5, 'text'], (options) => base.timer(nothing, options));
    assertCodes(TYPE, ['1', {}, true], (priority) => base.event(0, Ev.READ, nothing, { priority }));
    assertCodes(RANGE, [-1, 3, 0.5, Number.NaN], (priority) => base.timer(nothing, { priority }));
  });
});

test('masks that make no sense answer ERR_BAD_MASK and say why', () => {
  withBase((base) => {
    const messageOf = (mask: number) => {
      const error = thrownBy(() => base.event(0, mask, nothing));
      assert.is(error.code, 'ERR_BAD_MASK');
      return error.message;
    };
    assert.match(messageOf(Ev.SIGNAL | Ev.READ), 'cannot be joined with READ, WRITE or CLOSED');
    assert.match(messageOf(Ev.SIGNAL | Ev.CLOSED), 'cannot be joined');
    assert.match(messageOf(Ev.SIGNAL | Ev.PERSIST | Ev.WRITE), 'cannot be joined');
    assert.match(messageOf(Ev.ET), 'needs READ, WRITE or CLOSED');
    assert.match(messageOf(Ev.ET | Ev.PERSIST), 'needs READ, WRITE or CLOSED');
    for (const mask of [0, Ev.PERSIST, Ev.READ | Ev.PERSIST, Ev.READ | Ev.SIGNAL, Ev.SIGNAL])
      assert.is(
        codeOf(() => base.once(0, mask, nothing)),
        'ERR_BAD_MASK',
      );
  });
});

test('times', () => {
  withBase((base) => {
    const event = base.timer(nothing);
    const bad: [string, Wrong[]][] = [
      [TYPE, notNumbers],
      [RANGE, [-1, -0.001, Number.NaN, Infinity, -Infinity, 1e300]],
    ];
    for (const [code, values] of bad) {
      assertCodes(code, values, (ms) => event.add(ms));
      assertCodes(code, values, (ms) => base.once(-1, Ev.TIMEOUT, nothing, ms));
      assertCodes(code, values, (ms) => base.loopExit(ms));
    }
    assert.is(event.pending(0xff), 0);
    event.free();
  });
});

test('the arguments of the other calls', () => {
  withBase((base) => {
    const event = base.timer(nothing);
    assertCodes(TYPE, [...notNumbers, undefined], (what) => event.activate(what));
    assertCodes(RANGE, [0, -1, 256, 0.5], (what) => event.activate(what));
    assertCodes(TYPE, [...notNumbers, undefined], (mask) => event.pending(mask));
    assertCodes(RANGE, [-1, 256, 0.5], (mask) => event.pending(mask));
    assertCodes(TYPE, [...notNumbers, undefined], (priority) => {
      event.priority = priority;
    });
    assertCodes(RANGE, [-1, 3, 0.5], (priority) => {
      event.priority = priority;
    });
    assertCodes(TYPE, [...notNumbers, undefined], (fd) => base.activateFd(fd, Ev.READ));
    assertCodes(TYPE, [...notNumbers, undefined], (mask) => base.activateFd(0, mask));
    assertCodes(RANGE, [-1, 256], (mask) => base.activateFd(0, mask));
    assertCodes(TYPE, notFunctions, (callback) => base.once(0, Ev.READ, callback));
    assertCodes(TYPE, [...notNumbers, undefined], (mask) => base.once(0, mask, nothing));
    assertCodes(TYPE, notNumbers, (flags) => base.loopSync(flags));
    assertCodes(RANGE, [-1, 8, 0.5], (flags) => base.loopSync(flags));
    event.free();
  });
});

test('what answers with a promise rejects, and throws nothing', async () => {
  const base = new EventBase();
  const cases: [Promise<unknown>, string][] = [
    [base.loop('0' as Wrong), TYPE],
    [base.loop(8), RANGE],
    [base.loop(0, null as Wrong), TYPE],
    [base.loop(0, { signal: {} as Wrong }), TYPE],
    [base.dispatch({ signal: 'now' as Wrong }), TYPE],
    [base.dispatch(5 as Wrong), TYPE],
    [base.wait('0' as Wrong, Ev.READ), TYPE],
    [base.wait(0, 256), RANGE],
    [base.wait(0, Ev.SIGNAL), RANGE],
    [base.wait(10, Ev.SIGNAL | Ev.READ), 'ERR_BAD_MASK'],
    [base.wait(-1, 0, { timeout: -1 }), RANGE],
    [base.wait(-1, 0, { timeout: Number.NaN }), RANGE],
    [base.wait(-1, 0, null as Wrong), TYPE],
    [base.wait(-1, 0, { signal: {} as Wrong }), TYPE],
  ];
  for (const [at, [promise, code]] of cases.entries())
    assert.is((await rejectionOf(promise)).code, code, `case ${at}`);
  assert.is(await base.loop(), 'empty');
  base.close();
  for (const promise of [base.loop(), base.dispatch(), base.wait(0, Ev.READ)])
    assert.is((await rejectionOf(promise)).code, 'ERR_BASE_CLOSED');
});

test('the arguments of a listener', () => {
  withBase((base) => {
    const listen = (options: Wrong) => new Listener(base, options, nothing);
    assertCodes(TYPE, [undefined, null, 80, 'path'], listen);
    assertCodes(TYPE, ['80', {}], (port) => listen({ port }));
    assertCodes(RANGE, [-1, 65_536, 0.5], (port) => listen({ port }));
    assertCodes(TYPE, [5, {}], (host) => listen({ host }));
    assertCodes(VALUE, ['', 'a.name'], (host) => listen({ host }));
    assertCodes(TYPE, [5, {}], (path) => listen({ path }));
    assertCodes(VALUE, [''], (path) => listen({ path }));
    assertCodes(RANGE, [-1], (fd) => listen({ fd }));
    assertCodes(RANGE, [0, -1], (backlog) => listen({ backlog }));
    for (const key of ['reusePort', 'ipv6Only', 'deferAccept'])
      assertCodes(TYPE, [0, 'true', null, {}], (value) => listen({ [key]: value }));
    assertCodes(VALUE, ['/a\0b', '@', '\0'], (path) => listen({ path }));
    assertCodes(VALUE, ['/tmp/a.sock', '@a'], (path) => listen({ path, reusePort: true }));
    // Other layers bring them; until then nothing listens in the clear that should not.
    assertCodes(VALUE, [{}, { cert: '', key: '' }, null, true], (tls) => listen({ tls }));
    assertCodes(VALUE, [true, 'required', null, 1], (proxyProtocol) => listen({ proxyProtocol }));
    listen({ proxyProtocol: false, tls: undefined }).close();
    assertCodes(TYPE, notFunctions, (onAccept) => new Listener(base, {}, onAccept));
    assertCodes(TYPE, ['x', 5], (onError) => new Listener(base, {}, nothing, onError));
  });
});

test('the wording is Node’s', () => {
  withBase((base) => {
    const message = (body: () => unknown) => thrownBy(body).message;
    assert.is(
      message(() => base.event('7' as Wrong, Ev.READ, nothing)),
      `The "fd" argument must be of type number. Received type string ('7')`,
    );
    assert.is(
      message(() => base.event(0, Ev.READ, null as Wrong)),
      'The "callback" argument must be of type function. Received null',
    );
    assert.is(
      message(() => base.event(0, 256, nothing)),
      'The value of "mask" is out of range. It must be >= 0 && <= 255. Received 256',
    );
    assert.is(
      message(() => base.event(0, 1.5, nothing)),
      'The value of "mask" is out of range. It must be an integer. Received 1.5',
    );
  });
});

// ── after the end ───────────────────────────────────────────────────────────────────────────────

test('a freed event answers ERR_EVENT_FREED', () => {
  withBase((base) => {
    const event = base.timer(nothing);
    event.free();
    const uses: ((event: EventHandle) => unknown)[] = [
      () => event.add(),
      () => event.add(1),
      () => event.activate(1),
      () => event.pending(1),
      () => event.removeTimer(),
      () => event.ref(),
      () => event.unref(),
      () => {
        event.priority = 0;
      },
    ];
    for (const use of uses) {
      const error = thrownBy(() => use(event));
      assert.is(error.code, 'ERR_EVENT_FREED', String(use));
      assert.instance(error, MultiloopError);
    }
    event.free();
    event.del();
    event[Symbol.dispose]();
    assert.is(event.remaining, undefined);
    assert.is(event.priority, 1);
  });
});

test('with debug, the error of a freed event tells where it was freed', () => {
  for (const debug of [true, false]) {
    using base = new EventBase({ debug });
    const event = base.timer(nothing);
    event.free();
    const cause = thrownBy(() => event.add()).cause as Error | undefined;
    assert.is(cause?.message, debug ? 'It was freed here' : undefined);
    if (debug) assert.match(cause?.stack ?? '', /errors\.test/);
  }
});

test('a closed base answers ERR_BASE_CLOSED, and so do its events', () => {
  const base = new EventBase();
  const event = base.timer(nothing).add(5);
  base.close();
  const uses: (() => unknown)[] = [
    () => base.event(0, Ev.READ, nothing),
    () => base.timer(nothing),
    () => base.once(-1, Ev.TIMEOUT, nothing),
    () => base.activateFd(0, Ev.READ),
    () => base.loopSync(),
    () => base.loopExit(),
    () => base.loopBreak(),
    () => base.loopContinue(),
    () => base.now(),
    () => base.updateTime(),
    () => base.counts(),
    () => event.add(),
    () => event.activate(1),
    () => event.pending(1),
    () => event.removeTimer(),
    () => event.ref(),
    () => event.unref(),
  ];
  for (const use of uses) assert.is(codeOf(use), 'ERR_BASE_CLOSED', String(use));
  event.del();
  event.free();
  base.close();
  base[Symbol.dispose]();
  assert.is(event.remaining, undefined);
  assert.equal([...base.events()], []);
  assert.ok(base.utilization().utilization <= 1);
});

test('more bases than a thread may have answer EMFILE, and closing one makes room', () => {
  const bases: EventBase[] = [];
  const make = () => bases.push(new EventBase({ backend: 'poll' }));
  const error = thrownBy(() => {
    while (bases.length < 2000) make();
  });
  assert.is(error.code, 'EMFILE');
  assert.is(error.syscall, 'event_base_new');
  bases.pop()?.close();
  make();
  for (const base of bases) base.close();
});

// ── the kernel ──────────────────────────────────────────────────────────────────────────────────

test('a descriptor that is not open answers EBADF when it is added', () => {
  withBase((base) => {
    const [a, b] = sys.pipe();
    sys.close(a);
    sys.close(b);
    for (const fd of [a, 2 ** 20, 2 ** 31 - 1]) {
      const event = base.event(fd, Ev.READ, nothing);
      const error = thrownBy(() => event.add(5));
      assert.instance(error, Error);
      assert.is(error.message, `event_add EBADF: bad file descriptor: ${event}`);
      assert.is(error.code, 'EBADF');
      assert.is(error.errno, -9);
      assert.is(error.syscall, 'event_add');
      event.free();
    }
  });
});

test('failures of the kernel have the shape that Node gives them', async () => {
  const own = systemError(-99, 'listen', { address: '192.0.2.1', port: 1 });
  const nodes = await new Promise<NodeJS.ErrnoException & { address: string; port: number }>(
    (resolve) =>
      createServer()
        .on('error', resolve as never)
        .listen(1, '192.0.2.1'),
  );
  assert.is(own.message, nodes.message);
  for (const key of ['code', 'errno', 'syscall', 'address', 'port'] as const)
    assert.is(own[key], nodes[key], key);
  assert.is(systemError(-9999, 'nothing').code, 'E9999');
  assert.is(systemError(-13, 'bind', { address: '/x' }).message.endsWith(' /x'), true);
});

test('an error of multiloop has a name, a code and a cause', () => {
  const cause = new Error('below');
  const error = new MultiloopError('ERR_LOOP_GONE', 'above', { cause });
  assert.instance(error, Error);
  assert.is(error.name, 'MultiloopError');
  assert.is(error.code, 'ERR_LOOP_GONE');
  assert.is(error.cause, cause);
  assert.match(String(error), 'MultiloopError: above');
});

test('sys.close refuses a descriptor that belongs to a connection', async () => {
  const base = new EventBase();
  const inbox = native.inboxNew(8, 'pipe', 0);
  assert.is(native.inboxAttach(base._id, inbox), 0);
  const listener = native.sockListen(0, '127.0.0.1', 0, 5, false, false, false) as number;
  const socket = connect(native.sockLocal(listener)?.port as number, '127.0.0.1');
  await once(socket, 'connect');
  const listening = native.ledgerListen(listener, inbox, 0, 0);
  const before = openDescriptors();
  const ids = new Float64Array(2);
  assert.is(native.ledgerAccept(listening, inbox, true, ids), 1);
  const [made] = openDescriptors().filter((one) => !before.includes(one));
  const fd = Number.parseInt(made, 10);
  const error = thrownBy(() => sys.close(fd));
  assert.is(error.code, 'ERR_FD_OWNED');
  assert.match(error.message, `Descriptor ${fd} is a connection or listener`);
  assert.is(sys.write(fd, Buffer.from('still open')), 10);
  assert.equal(await once(socket, 'data').then(String), 'still open');
  assert.is(native.ledgerClose(base._id, ids[0], false), true);
  await new Promise((resolve) => socket.resume().on('close', resolve));
  assert.is(thrownBy(() => sys.close(listener)).code, 'ERR_FD_OWNED');
  assert.is(native.ledgerUnlisten(listening, inbox), true);
  base.close();
  native.inboxFree(inbox);
});

test.run();
