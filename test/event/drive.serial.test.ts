// How a base drives a Node thread: each rule of the design, under both drives, on the main thread
// and in a worker. What runs there is in scenarios.ts; how it all ends is in drive_end.test.ts.

import { Worker } from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withoutNesting } from '../machine.js';
import { testWhere } from '../where.js';
import { imports, runChild } from './child.js';
import { runScenario, type ScenarioName, scenarioNames } from './scenarios.js';
import { nameOf, type Setting, settings } from './setting.js';
import { PATIENCE_MS, within } from './support.js';

// ── scenarios ───────────────────────────────────────────────────────────────────────────────────

async function inWorker(scenario: ScenarioName, setting: Setting): Promise<void> {
  const worker = new Worker(new URL('./scenarios.js', import.meta.url), {
    workerData: { scenario, setting },
  });
  let passed = false;
  worker.once('message', () => {
    passed = true;
  });
  const code = await new Promise<number>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
  });
  assert.ok(passed, `the worker ended with code ${code} before its scenario did`);
}

const rules: Partial<Record<ScenarioName, string>> = {
  'every millisecond': 'Node is served within 10 ms under an event every millisecond',
  'always active': 'Node is served within 10 ms under an event that is always active',
  'always readable': 'Node is served within 10 ms under a descriptor that is always ready',
  longTimeout: 'a setTimeout of 50 ms fires in time under steady events',
  ownTurns: 'each callback is a turn of its own for ticks and promises',
  localStorage: 'each callback sees the context its event was made in, and leaks none',
  twoBases: 'a second base nests, and Node’s sockets and timers go on beside both',
  acrossBases: 'callbacks of one base activate, add, close and make others',
  defaultDrive: 'libuv waits on the main thread where it can, the base in a worker',
  driveTaken: 'a second base without a descriptor answers ERR_DRIVE_TAKEN',
  driveFree: 'a base without a descriptor drives beside one that libuv waits for',
  nodeBeside: 'http, fetch and fs work beside a base, idle and busy',
  ends: 'a loop ends when nothing is left, however that came about',
  fromOutside: 'what Node’s own callbacks activate or add is seen at once',
  idleShare: 'utilization tells an idle base from a busy one',
  survives: 'an uncaughtException handler keeps the base and all its events',
};
/** Under some settings only: the others have nothing to do with what these show. */
const limits: Partial<Record<ScenarioName, (setting: Setting) => boolean>> = {
  driveTaken: ({ drive }) => drive === 'base',
  defaultDrive: (setting) => setting === settings[0],
};

/** With a second base beside the first. */
const nesting = new Set<ScenarioName>(['twoBases', 'acrossBases', 'driveFree']);

for (const [name, rule] of Object.entries(rules) as [ScenarioName, string][]) {
  for (const setting of settings) {
    if (limits[name]?.(setting) === false) continue;
    const lacking = nesting.has(name) ? withoutNesting : undefined;
    testWhere(lacking, `${nameOf(setting)}, main thread: ${rule}`, () =>
      within(PATIENCE_MS, runScenario(name, setting)),
    );
    testWhere(lacking, `${nameOf(setting)}, worker: ${rule}`, () =>
      within(PATIENCE_MS, inWorker(name, setting)),
    );
  }
}

test('every scenario is a test', () => {
  assert.equal(Object.keys(rules).sort(), [...scenarioNames].sort());
});

// ── cost at rest ────────────────────────────────────────────────────────────────────────────────

/** Reports what the process used in two seconds, and how often each base turned meanwhile. */
const idle = (drives: string[]) => `
  const bases = ${JSON.stringify(drives)}.map((drive) => {
    const base = new EventBase({ drive });
    base.timer(() => undefined).add(1_000_000);
    base.event(sys.socketPair()[0], Ev.READ | Ev.PERSIST, () => undefined).add();
    void base.dispatch();
    return base;
  });
  setTimeout(() => {
    const turns = bases.map((base) => base._turns);
    const begin = process.cpuUsage();
    setTimeout(() => {
      const { user, system } = process.cpuUsage(begin);
      const turned = bases.map((base, i) => base._turns - turns[i]);
      report(JSON.stringify({ ms: (user + system) / 1000, turned }));
    }, 2000);
  }, 300);`;

const onMain = (drives: string[]) => `
  const report = (text) => { console.log(text); process.exit(); };
  ${idle(drives)}`;

const inThread = (drives: string[]) => `
  import { Worker } from 'node:worker_threads';
  const source = ${JSON.stringify(`
    ${imports}
    import { parentPort } from 'node:worker_threads';
    const report = (text) => parentPort.postMessage(text);
    ${idle(drives)}`)};
  new Worker(source, { eval: true }).once('message', (text) => {
    console.log(text);
    process.exit();
  });`;

testWhere(
  withoutNesting,
  'a thread with three idle bases uses less than 1 % of a processor',
  async () => {
    const threes = [
      ['base', 'base', 'base'],
      ['libuv', 'libuv', 'libuv'],
      ['libuv', 'base', 'libuv'],
    ];
    const runs = threes.flatMap((drives) =>
      [onMain, inThread].map(async (place) => {
        const { stdout, stderr } = await runChild(place(drives));
        assert.ok(stdout.startsWith('{'), stdout + stderr);
        const { ms, turned } = JSON.parse(stdout) as { ms: number; turned: number[] };
        assert.ok(ms < 20, `${drives}: ${ms} ms of 2000 are used`);
        assert.ok(Math.max(...turned) < 20, `${drives}: ${turned} turns in 2 s`);
      }),
    );
    await Promise.all(runs);
  },
);

test.run();
