// A loop group that is out of descriptors: those who wait are refused, told and counted, the
// accounts stay balanced, and it serves again when descriptors come back.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runChild } from '../event/child.js';

const url = (path: string) => new URL(path, import.meta.url).href;

for (const accept of ['handoff', 'reuseport', 'shared']) {
  test(`${accept}: out of descriptors, a group sheds who waits and serves again`, async () => {
    const { stdout, stderr } = await runChild(
      `
    import { once } from 'node:events';
    import { spawn } from 'node:child_process';
    import { connect } from 'node:net';
    const { serve } = await import('${url('../../src/index.js')}');
    const worker = new URL('${url('../../workers/echo.js')}');
    const group = await serve({ worker, loops: 1, accept: '${accept}' });
    const shed = [];
    const errors = [];
    group.on('shed', (reason, count) => shed.push([reason, count]));
    group.on('error', (error) => errors.push(error.code));
    const { port } = group.addresses[0];
    const client = () => connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      .on('error', () => undefined).resume();
    // Four in a process of their own, which has descriptors.
    const others = spawn(process.execPath, ['-e', \`
      process.stdin.once('data', () => {
        let left = 4;
        for (let i = 0; i < 4; i++)
          require('node:net').connect(\${port}, '127.0.0.1')
            .on('error', () => undefined)
            .on('close', () => --left === 0 && process.stdout.write('all closed'))
            .resume();
      });
      process.stdout.write('ready');\`], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(others.stdout, 'data');
    const first = client();
    await once(first, 'connect');
    // By another thread, where loops accept.
    while (group.stats().open === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const taken = [];
    for (let fd; (fd = sys.dup(0)) >= 0; ) taken.push(fd);
    others.stdin.write('go');
    await once(others.stdout, 'data');
    const during = group.stats();
    for (const fd of taken) sys.close(fd);
    const last = client();
    last.write('still here');
    const [answer] = await once(last, 'data');
    const { accepted, open, served, refused, lost } = group.stats();
    console.log(JSON.stringify({
      shed, errors, answer: String(answer), refused: during.refused,
      balance: accepted - open - served - refused - lost,
    }));
    for (const one of [first, last]) one.destroy();
    others.kill();
    await group.close();
    process.exit();`,
      { shell: 'ulimit -n 96' },
    );
    assert.is(stderr, '');
    const { shed, errors, answer, refused, balance } = JSON.parse(stdout);
    assert.equal(errors, ['EMFILE']);
    assert.is(answer, 'still here');
    assert.is(refused, 4);
    assert.is(balance, 0);
    const total = shed.reduce((sum: number, [reason, count]: [string, number]) => {
      assert.is(reason, 'out of descriptors');
      return sum + count;
    }, 0);
    assert.is(total, 4);
  });
}

test.run();
