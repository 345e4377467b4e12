// What the command line says about itself and about this machine.

import * as assert from 'uvu/assert';
import { wakerReports } from '../../src/event/wakers.js';
import { EventBase } from '../../src/index.js';
import { test } from '../hooks.js';
import { isPortable } from '../machine.js';
import { Cli, cleanUp, type Ended, run } from './cli.js';

test.after(cleanUp);

function good({ code, stdout, stderr }: Ended): string {
  assert.is(stderr, '');
  assert.is(code, 0);
  return stdout;
}

test('help and version at every level, on stdout', async () => {
  const top = good(await run('--help'));
  assert.match(top, 'Usage: multiloop <command> [options]');
  assert.match(top, 'serve [worker] [argument ...]');
  assert.match(top, 'doctor');
  assert.is(good(await run('-h')), top);
  assert.match(good(await run('doctor', '--help')), '--json');
  const serve = good(await run('serve', '-h'));
  for (const flag of [
    'port',
    'host',
    'path',
    'loops',
    'backend',
    'waker',
    'policy',
    'accept',
    'drain-ms',
    'watchdog-ms',
    'kill-ms',
  ])
    assert.match(serve, `--${flag} `);
  assert.match(serve, '--max-connections');
  assert.match(serve, 'ready-made one: echo, http [FOLDER], tail FILE');
  for (const level of [[], ['serve'], ['doctor']])
    assert.match(good(await run(...level, '--version')), /^\d+\.\d+\.\d+\n$/);
});

test('doctor tells what there is and why not more', async () => {
  const text = good(await run('doctor'));
  for (const { name, available, reason } of EventBase.backends()) {
    const row = text.split('\n').find((line) => line.trim().startsWith(`${name} `)) ?? '';
    assert.match(row, available ? 'yes' : `no    ${reason}`);
  }
  assert.match(text, process.version);
  assert.match(text, process.versions.uv);
  for (const { name, available, reason } of wakerReports()) {
    const row = text.split('\n').find((line) => line.trim().startsWith(`${name} `)) ?? '';
    assert.match(row, available ? 'yes' : `no    ${reason}`);
  }
  assert.match(text, /pipe +yes/);
  assert.is(text.includes('portable (ML_PORTABLE)'), isPortable);
  assert.match(text, /open files +\S/);
  assert.match(text, /cores +\d+\n/);
  assert.is(text.includes('\x1b'), false, 'no colours in a pipe');
});

test('doctor --json is one object', async () => {
  for (const cli of [new Cli(['doctor', '--json']), new Cli(['doctor'], { MULTILOOP_JSON: '1' })]) {
    const report = JSON.parse(good(await cli.ended));
    assert.is(report.node, process.version);
    assert.is(report.arch, process.arch);
    assert.equal(report.backends, EventBase.backends());
    assert.equal(report.wakers, wakerReports());
    assert.is(report.portable, isPortable);
    assert.match(report.addon, /multiloop|prebuilds/);
    assert.is(report.limits.cores > 0, true);
    if (process.platform === 'linux') {
      assert.type(report.limits.openFilesSoft, 'number');
      assert.type(report.limits.somaxconn, 'number');
    }
  }
});

test('colours where they are asked for', async () => {
  assert.match(good(await new Cli(['doctor'], { FORCE_COLOR: '1' }).ended), '\x1b[');
  const env = { FORCE_COLOR: '0' };
  assert.is(good(await new Cli(['doctor'], env).ended).includes('\x1b'), false);
});

test('a reader that goes away early is no error', async () => {
  const cli = new Cli(['doctor']);
  // Long before it has anything to write.
  cli.child.stdout?.destroy();
  const { code, stderr } = await cli.ended;
  assert.is(stderr, '');
  assert.is(code, 0);
});

test.run();
