// Which backend a base gets, and what is said of the others.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BackendName,
  EventBase,
  type EventBaseOptions,
  type Feature,
} from '../../src/index.js';
import { allBackends, isPortable, ofThese, wakersHere } from '../machine.js';
import { codeOf, thrownBy } from './support.js';

/** The preferred one of Linux, where this build has it. */
const [first] = ofThese('epoll', 'poll');
const hasEpoll = first === 'epoll';
const here = ofThese('epoll', 'poll', 'select', 'io_uring').join(', ');
const hasUring = allBackends.includes('io_uring');

const all: BackendName[] = ['evport', 'kqueue', 'epoll', 'devpoll', 'poll', 'select', 'io_uring'];

function chosen(options: EventBaseOptions): BackendName {
  using base = new EventBase(options);
  return base.backend;
}

function withEnv(variables: Record<string, string>, body: () => void): void {
  try {
    Object.assign(process.env, variables);
    body();
  } finally {
    for (const name of Object.keys(variables)) delete process.env[name];
  }
}

test('every backend is reported, preferred first, with its features or the reason', () => {
  const reports = EventBase.backends();
  assert.equal(
    reports.map((report) => report.name),
    all,
  );
  for (const { available, reason, features } of reports) {
    assert.is(available, reason === undefined);
    if (!available) assert.equal(features, []);
  }
  const reasonOf = (name: BackendName) => reports.find((report) => report.name === name)?.reason;
  assert.is(reasonOf('kqueue'), `for macOS and the BSDs; this is ${process.platform}`);
  if (isPortable) assert.is(reasonOf('io_uring'), 'left out of this build (ML_PORTABLE)');
});

test('the features are those that libevent declares, and those of io_uring, which it lacks', () => {
  const features = Object.fromEntries(
    EventBase.backends().map((report) => [report.name, report.features]),
  );
  assert.equal(features.epoll, hasEpoll ? ['et', 'o1', 'early-close'] : []);
  // POLLRDHUP is Linux's own.
  assert.equal(features.poll, isPortable ? ['fds'] : ['fds', 'early-close']);
  assert.equal(features.select, ['fds']);
  assert.equal(features.io_uring, hasUring ? ['et', 'o1', 'fds', 'early-close'] : []);
  for (const backend of ofThese('epoll', 'poll', 'select', 'io_uring')) {
    using base = new EventBase({ backend });
    assert.equal([...base.features], features[backend]);
  }
});

test('a report is the caller’s to change', () => {
  for (const report of EventBase.backends()) {
    report.available = false;
    report.features.push('et');
    report.reason = 'changed';
  }
  assert.is(chosen({}), first);
  assert.is(EventBase.backends().find((report) => report.name === 'select')?.features.length, 1);
});

test('the first backend that nothing speaks against is taken', () => {
  const cases: [EventBaseOptions, BackendName][] = [
    [{}, first],
    [{ avoid: [] }, first],
    [{ avoid: ['epoll'] }, 'poll'],
    [{ avoid: ['poll', 'epoll'] }, 'select'],
    [{ avoid: ['kqueue', 'select'] }, first],
    [{ require: ['fds'] }, 'poll'],
    [{ backend: 'select' }, 'select'],
    [{ backend: 'poll', require: ['fds'] }, 'poll'],
  ];
  if (hasEpoll)
    cases.push(
      [{ require: ['et', 'o1'] }, 'epoll'],
      [{ require: ['early-close'] }, 'epoll'],
      [{ require: ['early-close'], avoid: ['epoll'] }, 'poll'],
      [{ require: ['early-close', 'fds'] }, 'poll'],
    );
  // It comes last: only who asks for it, or for what no other has, gets it.
  if (hasEpoll && hasUring)
    cases.push(
      [{ backend: 'io_uring' }, 'io_uring'],
      [{ avoid: ['epoll', 'poll', 'select'] }, 'io_uring'],
      [{ require: ['et', 'fds'] }, 'io_uring'],
    );
  for (const [options, name] of cases) assert.is(chosen(options), name, JSON.stringify(options));
});

test('EVENT_NO<NAME> disables a backend, empty or not, unless ignoreEnv is set', () => {
  const variable = `EVENT_NO${first.toUpperCase()}`;
  withEnv({ [variable]: '' }, () => {
    assert.is(chosen({}), hasEpoll ? 'poll' : 'select');
    assert.is(chosen({ ignoreEnv: true }), first);
    assert.is(chosen({ backend: first, ignoreEnv: true }), first);
    const error = thrownBy(() => chosen({ backend: first }));
    assert.is(error.code, 'ERR_BACKEND_UNAVAILABLE');
    assert.match(error.message, `${first} (${variable} is set)`);
  });
  withEnv({ EVENT_NOEPOLL: '1', EVENT_NOPOLL: '0' }, () => assert.is(chosen({}), 'select'));
  assert.is(chosen({}), first);
});

test('without a usable backend the error has every reason and what there is', () => {
  const error = thrownBy(() => chosen({ avoid: ['epoll', 'io_uring'], require: ['et'] }));
  assert.is(error.code, 'ERR_BACKEND_UNAVAILABLE');
  for (const part of [
    hasEpoll ? 'epoll (in options.avoid)' : 'epoll (left out of this build (ML_PORTABLE))',
    'poll (lacks et)',
    'select (lacks et)',
    'kqueue (for macOS and the BSDs; this is linux)',
    `Available here: ${here}`,
  ])
    assert.match(error.message, part);
  assert.is(
    codeOf(() => chosen({ avoid: all })),
    'ERR_BACKEND_UNAVAILABLE',
  );
});

test('a backend that is asked for is taken or refused, never replaced', () => {
  const cases: [EventBaseOptions, string][] = [
    [{ backend: 'kqueue' }, 'kqueue (for macOS and the BSDs; this is linux)'],
    [{ backend: 'select', require: ['et', 'fds', 'o1'] }, 'select (lacks et, o1)'],
    [{ backend: 'poll', avoid: ['poll'] }, 'poll (in options.avoid)'],
  ];
  for (const [options, reason] of cases) {
    const error = thrownBy(() => chosen(options));
    assert.is(error.code, 'ERR_BACKEND_UNAVAILABLE');
    assert.match(error.message, `No usable backend: ${reason}. Available`);
  }
});

test('a waker that is asked for is taken or refused, and without one the best is taken', () => {
  const wakerOf = (options: EventBaseOptions) => {
    using base = new EventBase(options);
    return base.waker;
  };
  assert.is(wakerOf({}), wakersHere[0]);
  for (const waker of wakersHere) assert.is(wakerOf({ waker }), waker);
  assert.ok(wakersHere.includes('pipe'), 'every build has the pipe');
  assert.is(wakersHere.includes('eventfd'), !isPortable);
  if (!isPortable) return;
  const error = thrownBy(() => wakerOf({ waker: 'eventfd' }));
  assert.is(error.code, 'ERR_WAKER_UNAVAILABLE');
  assert.match(
    error.message,
    'eventfd (left out of this build (ML_PORTABLE)). Available for poll: pipe',
  );
});

test('names that do not exist are mistakes', () => {
  const cases: [unknown, string][] = [
    [{ backend: 'wepoll' }, 'ERR_INVALID_ARG_VALUE'],
    [{ backend: '' }, 'ERR_INVALID_ARG_VALUE'],
    [{ backend: 3 }, 'ERR_INVALID_ARG_TYPE'],
    [{ avoid: ['epol'] }, 'ERR_INVALID_ARG_VALUE'],
    [{ avoid: 'epoll' }, 'ERR_INVALID_ARG_TYPE'],
    [{ avoid: [1] }, 'ERR_INVALID_ARG_TYPE'],
    [{ require: ['edge'] }, 'ERR_INVALID_ARG_VALUE'],
    [{ require: 'et' satisfies Feature }, 'ERR_INVALID_ARG_TYPE'],
  ];
  for (const [options, code] of cases)
    assert.is(
      codeOf(() => chosen(options as never)),
      code,
      JSON.stringify(options),
    );
});

test.run();
