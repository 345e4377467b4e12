// Signals and the process that gets them: beside Node's own listeners, the default action when
// nobody waits any more, what keeps a process alive, and storms. What ends a process is run in one
// of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { EventHandle } from '../../src/index.js';
import { isPortable } from '../machine.js';
import { imports, runChild } from './child.js';
import { asynchronous, behaviour } from './conformance.js';
import { nameOf, settings } from './setting.js';
import { HARMLESS, HARMLESS_NAME, REAL, raise } from './signals.js';
import { PATIENCE_MS, within } from './support.js';

// ── beside Node's listeners ─────────────────────────────────────────────────────────────────────

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what} did not come`);
    await turn();
  }
}

type Side = 'ours' | 'theirs';
const sides: Side[] = ['ours', 'theirs'];
const orders = sides.flatMap((added) => sides.map((removed) => ({ added, removed })));

for (const { added, removed } of orders) {
  behaviour(
    `beside process.on(), ${added} added first and ${removed} removed first: each hears all`,
    async (t) => {
      const base = t.base();
      const heard = { ours: 0, theirs: 0 };
      const listener = () => heard.theirs++;
      let event: EventHandle | undefined;
      const add = {
        ours: () => {
          event = base.signal(HARMLESS, () => heard.ours++).add();
        },
        theirs: () => process.on(HARMLESS_NAME, listener),
      };
      const remove = {
        ours: () => event?.free(),
        theirs: () => process.off(HARMLESS_NAME, listener),
      };
      const raised = { ours: 0, theirs: 0 };
      const raiseFor = async (...those: Side[]) => {
        process.kill(process.pid, HARMLESS);
        for (const side of those) raised[side]++;
        for (const side of those) await until(() => heard[side] === raised[side], side);
      };
      const other = removed === 'ours' ? 'theirs' : 'ours';
      const second = added === 'ours' ? 'theirs' : 'ours';
      // The loop outlives our event, and nothing but it turns.
      const rest = base.timer(() => assert.unreachable()).add(100_000);
      const loop = base.dispatch();
      add[added]();
      await raiseFor(added);
      add[second]();
      await raiseFor('ours', 'theirs');
      await raiseFor('ours', 'theirs');
      remove[removed]();
      await raiseFor(other);
      add[removed]();
      await raiseFor('ours', 'theirs');
      remove[removed]();
      await raiseFor(other);
      remove[other]();
      rest.free();
      assert.is(await loop, 'empty');
      assert.equal(heard, raised);
    },
    asynchronous,
  );
}

behaviour(
  'SIGCHLD is heard beside child_process, which still sees its children end',
  async (t) => {
    const base = t.base();
    let heard = 0;
    const event = base.signal('SIGCHLD', () => heard++).add();
    const loop = base.dispatch();
    const child = spawn('true', { stdio: 'ignore' });
    assert.equal(await once(child, 'exit'), [0, null]);
    await until(() => heard > 0, 'SIGCHLD');
    event.free();
    assert.is(await loop, 'empty');
  },
  asynchronous,
);

// ── the default action ──────────────────────────────────────────────────────────────────────────

const head = `
  import { once } from 'node:events';
  import { setImmediate as turn } from 'node:timers/promises';
  import { Worker } from 'node:worker_threads';
  const raise = () => process.kill(process.pid, 'SIGTERM');
  const told = () => console.log('told');
  const start = (lines) => new Worker(
    new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(imports)} + lines)));
  // What a worker does that holds the signal on a base, and says so.
  const holder = \`
    import { parentPort } from 'node:worker_threads';
    const base = new EventBase();
    base.signal('SIGTERM', () => parentPort.postMessage('told')).add();
    parentPort.postMessage('there');
  \`;
  // A worker that says that it is there, and that it has heard a signal.
  const startHolder = async (lines) => {
    const worker = start(holder + lines);
    worker.gone = new Promise((resolve) => worker.once('exit', resolve));
    await once(worker, 'message');
    raise();
    console.log(...await once(worker, 'message'));
    return worker;
  };
`;

/** Each ends by raising SIGTERM when nobody waits for it any more; before that one was told. */
const gone: Record<string, string> = {
  'del()': `
    const base = new EventBase();
    const event = base.signal('SIGTERM', told).add();
    raise();
    await base.loop(LoopFlag.ONCE);
    event.del();
    raise();`,
  'free(), of the last of several events': `
    const base = new EventBase();
    const events = [1, 2, 3].map((n) => base.signal('SIGTERM', () => n === 3 && told()).add());
    events[0].free();
    events[1].free();
    raise();
    await base.loop(LoopFlag.ONCE);
    events[2].free();
    raise();`,
  'free() in the callback': `
    const base = new EventBase();
    base.signal('SIGTERM', (_, event) => { told(); event.free(); raise(); }).add();
    raise();
    await base.dispatch();`,
  'close()': `
    const base = new EventBase();
    base.signal('SIGTERM', told).add();
    raise();
    await base.loop(LoopFlag.ONCE);
    base.close();
    raise();`,
  'close() in the callback': `
    const base = new EventBase();
    base.signal('SIGTERM', () => { told(); base.close(); raise(); }).add();
    raise();
    await base.dispatch();`,
  'close() in the callback, under the base drive': `
    const base = new EventBase({ drive: 'base' });
    base.signal('SIGTERM', () => { told(); base.close(); raise(); }).add();
    raise();
    await base.dispatch();`,
  'close() of the last of several bases': `
    const bases = [1, 2, 3].map(() => new EventBase());
    for (const base of bases) base.signal('SIGTERM', () => base === bases[2] && told()).add();
    bases[0].close();
    bases[1].close();
    raise();
    await bases[2].loop(LoopFlag.ONCE);
    bases[2].close();
    raise();`,
  'a one-shot event, when its loop is over': `
    const base = new EventBase();
    base.event(15, Ev.SIGNAL, told).add();
    raise();
    await base.dispatch();
    raise();`,
  'a one-shot event, when loopSync is over': `
    const base = new EventBase();
    base.event(15, Ev.SIGNAL, told).add();
    raise();
    base.loopSync();
    raise();`,
  'a one-shot event that is freed before its callback': `
    const base = new EventBase();
    const late = base.event(15, Ev.SIGNAL, () => console.log('too much')).add();
    const event = base.signal('SIGTERM', () => { told(); base.loopBreak(); }).add();
    raise();
    await base.dispatch();
    event.free();
    late.free();
    raise();`,
  'wait(), in its continuation': `
    const base = new EventBase();
    base.timer(raise).add(1);
    void base.dispatch();
    await base.wait(15, Ev.SIGNAL);
    told();
    raise();`,
  'a base that nobody closed, collected': `
    await (async () => {
      const base = new EventBase();
      base.signal('SIGTERM', told).add();
      raise();
      await base.loop(LoopFlag.ONCE);
    })();
    for (let i = 0; i < 1000; i++) { await turn(); gc(); raise(); }`,
  'the end of a worker that held it': `
    const worker = await startHolder('await base.loop(LoopFlag.ONCE);');
    await worker.gone;
    raise();`,
  'a worker that held it was terminated': `
    const worker = await startHolder('base.dispatch();');
    await worker.terminate();
    raise();`,
  'a worker that held it was terminated in loopSync': `
    const worker = await startHolder('base.loopSync();');
    await worker.terminate();
    raise();`,
  'process.exit() in a worker that held it': `
    const worker = await startHolder(
      'base.signal(15, () => setImmediate(() => process.exit())).add(); void base.dispatch();');
    await worker.gone;
    raise();`,
  'an uncaught exception in a worker that held it': `
    const worker = await startHolder(
      'parentPort.once("message", () => { throw new Error(); }); void base.dispatch();');
    worker.postMessage('throw');
    await once(worker, 'error');
    await worker.gone;
    raise();`,
};

for (const { added, removed } of orders) {
  const [first, second] = added === 'ours' ? ['ours', 'theirs'] : ['theirs', 'ours'];
  const [gone1, gone2] = removed === 'ours' ? ['ours', 'theirs'] : ['theirs', 'ours'];
  gone[`a listener of Node's, ${first} added first and ${gone1} removed first`] = `
    const base = new EventBase();
    const listener = () => undefined;
    let event;
    const add = {
      ours: () => { event = base.signal('SIGTERM', told).add(); },
      theirs: () => process.on('SIGTERM', listener),
    };
    const remove = {
      ours: () => event.free(),
      theirs: () => process.off('SIGTERM', listener),
    };
    add.${first}();
    add.${second}();
    raise();
    await base.loop(LoopFlag.ONCE);
    remove.${gone1}();
    raise(); // It is caught as before.
    await turn();
    remove.${gone2}();
    raise();`;
}

for (const [name, lines] of Object.entries(gone)) {
  test(`the default action is back after ${name}`, async () => {
    const alive = `\nconsole.log('and it lives'); process.exit();`;
    const { signal, code, stdout, stderr } = await runChild(head + lines + alive, {
      flags: ['--expose-gc'],
    });
    const text = `code ${code}, ${signal}: ${stdout}${stderr}`;
    assert.is(signal, 'SIGTERM', text);
    assert.match(stdout, /^(told\n)+$/, text);
    assert.is(stderr, '', text);
  });
}

test('the default action of a real-time signal is back too', async () => {
  const { stdout } = await runChild(`
    const base = new EventBase();
    base.signal(${REAL}, () => { console.log('told'); base.close(); }).add();
    process.kill(process.pid, ${REAL});
    await base.dispatch();
    process.kill(process.pid, ${REAL});
    console.log('and it lives');
  `);
  // Node has no name for what ended it.
  assert.is(stdout, 'told\n');
});

test('SIGPIPE, which Node ignores, stays ignored when the last event is gone', async () => {
  const { signal, stdout, stderr } = await runChild(`
    const [reader, writer] = sys.pipe();
    sys.close(reader);
    const write = () => console.log(sys.write(writer, Buffer.from('x')));
    const base = new EventBase();
    write();
    const event = base.signal('SIGPIPE', () => console.log('told')).add();
    write();
    await base.loop(LoopFlag.ONCE);
    event.free();
    write();
    // Now with a listener of Node's that is gone before ours: libuv's last watcher is ours.
    const again = base.signal('SIGPIPE', () => console.log('told')).add();
    const listener = () => undefined;
    process.on('SIGPIPE', listener);
    process.off('SIGPIPE', listener);
    write();
    await base.loop(LoopFlag.ONCE);
    base.close();
    write();
  `);
  const EPIPE = -32;
  const lines = [EPIPE, EPIPE, 'told', EPIPE, EPIPE, 'told', EPIPE];
  assert.is(`${signal} ${stdout}${stderr}`, `null ${lines.join('\n')}\n`);
});

test('SIGPIPE stays ignored at every moment of coming and going', async () => {
  const { signal, stdout, stderr } = await runChild(`
    import { Worker } from 'node:worker_threads';
    const writing = ${JSON.stringify(imports)} + \`
      const [reader, writer] = sys.pipe();
      sys.close(reader);
      const byte = Buffer.from('x');
      for (;;) if (sys.write(writer, byte) !== -32) throw new Error('no EPIPE');
    \`;
    const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(writing)));
    worker.on('error', (error) => console.log(error));
    await new Promise((resolve) => worker.once('online', resolve));
    const base = new EventBase();
    let told = 0;
    const event = base.signal('SIGPIPE', () => told++);
    const end = performance.now() + 300;
    for (let round = 0; round < 5000 || (told === 0 && performance.now() < end); round++) {
      event.add();
      if (round % 500 === 0) base.loopSync(LoopFlag.ONCE);
      event.del();
    }
    base.close();
    await worker.terminate();
    console.log(told > 0);
  `);
  assert.is(`${signal} ${stdout}${stderr}`, 'null true\n');
});

// ── what keeps a process alive ──────────────────────────────────────────────────────────────────

async function eachDrive(lines: string, stdout: string): Promise<void> {
  const ends = settings.map(async (setting) => {
    const ended = await runChild(
      `const base = new EventBase(${JSON.stringify(setting)});\n${lines}`,
    );
    const text = `${ended.code}, ${ended.signal}: ${ended.stdout}${ended.stderr}`;
    assert.is(text, `0, null: ${stdout}`, nameOf(setting));
  });
  await Promise.all(ends);
}

test('a signal event keeps the process alive as long as it is added', () =>
  eachDrive(
    `
    const event = base.signal('SIGTERM', () => {
      console.log('told');
      setTimeout(() => { console.log('alive'); event.del(); }, 20).unref();
    });
    event.add();
    setTimeout(() => process.kill(process.pid, 'SIGTERM'), 20).unref();
    void base.dispatch();
    `,
    'told\nalive\n',
  ));

test('an unref’d signal event lets the process go, and is told as long as it lives', () =>
  eachDrive(
    `
    const other = base.timer(() => console.log('too long')).add(60_000);
    base.signal('SIGTERM', () => { console.log('told'); other.free(); }).unref().add();
    setImmediate(() => process.kill(process.pid, 'SIGTERM'));
    setTimeout(() => console.log('too long'), 60_000).unref();
    void base.dispatch();
    process.on('exit', () => console.log('gone'));
    `,
    'told\ngone\n',
  ));

test('ref() of a signal event takes unref() back', () =>
  eachDrive(
    `
    const event = base.signal('SIGTERM', () => undefined).unref().add();
    event.ref();
    setTimeout(() => { console.log('alive'); event.unref(); }, 20).unref();
    void base.dispatch();
    `,
    'alive\n',
  ));

test('a signal event of a base that does not loop keeps nothing alive', () =>
  eachDrive(`base.signal('SIGTERM', () => undefined).add(); console.log('gone');`, 'gone\n'));

test('process.exit() in a signal callback ends the process with its code', () =>
  eachDrive(
    `
    base.signal('SIGTERM', () => { console.log('told'); process.exit(); }).add();
    setImmediate(() => process.kill(process.pid, 'SIGTERM'));
    void base.dispatch();
    `,
    'told\n',
  ));

// ── storms ──────────────────────────────────────────────────────────────────────────────────────

/** Another process that sends `signal` to this one; a shell does it without a process for each. */
function startSender(signal: number, times: number) {
  const lines = `i=0; while [ $i -lt ${times} ]; do kill -${signal} ${process.pid}; i=$((i+1)); done`;
  const child = spawn('sh', ['-c', lines], { stdio: 'inherit' });
  return within(PATIENCE_MS, once(child, 'exit'), 'the sender');
}

behaviour('thousands of real-time signals of another process are all counted', async (t) => {
  const base = t.base();
  const times = 3_000;
  let heard = 0;
  const event = base.signal(REAL, () => {
    if (++heard === times) event.free();
  });
  event.add();
  const sent = startSender(REAL, times);
  assert.is(await t.run(base), 'empty');
  assert.equal(await sent, [0, null]);
  assert.is(heard, times);
});

behaviour('of a storm of standard signals some are told, and never more than came', async (t) => {
  const base = t.base();
  const times = 3_000;
  let heard = 0;
  base.signal(HARMLESS, () => heard++).add();
  const end = base.signal(REAL, () => base.loopExit()).add();
  const sent = startSender(HARMLESS, times);
  // What is under way when the sender has ended is before the last.
  const last = sent.then(() => raise(REAL));
  if (t.sync) await last;
  assert.is(await t.run(base), 'stopped');
  await last;
  end.free();
  assert.ok(heard > 0 && heard <= times, `${heard} of ${times}`);
});

/** How many signals the kernel keeps for a process that does not take them. */
function pendingMax(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const limit = limits.match(/^Max pending signals +(\d+|unlimited)/m)?.[1];
  return limit === 'unlimited' ? Infinity : Number(limit ?? 0);
}

test('a process that stood still counts every real-time signal that came meanwhile', async () => {
  // libuv's pipe has room for 4,096 of them, and a portable build cannot make it larger.
  const times = Math.min(isPortable ? 4_000 : 20_000, pendingMax() - 100);
  const lines = `
    const base = new EventBase();
    let heard = 0;
    const end = () => { console.log(heard); base.close(); };
    base.signal(${REAL}, () => { if (++heard === ${times}) end(); }).add();
    base.timer(end).add(${PATIENCE_MS / 2});
    void base.dispatch();
    console.log('there');
  `;
  const args = ['--input-type=module', '-e', imports + lines];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  const there = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      resolve();
    });
  });
  const ended = once(child, 'close');
  await within(PATIENCE_MS, there, 'the child');
  child.kill('SIGSTOP');
  for (let i = 0; i < times; i++) process.kill(child.pid ?? 0, REAL);
  child.kill('SIGCONT');
  await within(PATIENCE_MS, ended, 'the child');
  assert.is(stdout, `there\n${times}\n`);
});

test.run();
