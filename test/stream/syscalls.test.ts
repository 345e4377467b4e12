// What a stream costs in system calls, counted by strace: at most two for the echo of a small
// message besides the wait that all streams of a pass share; and no readiness that nobody needs.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { callsBetween, runTraced, withStrace } from '../event/strace.js';

const MESSAGES = 20;
const calls =
  '-e trace=recvfrom,sendto,sendmsg,read,write,readv,writev,ioctl,epoll_ctl,epoll_wait,epoll_pwait,epoll_pwait2,fcntl';

withStrace('an echo is one recv and one send', async () => {
  const traced = await runTraced(
    `
    const base = new EventBase({ backend: 'epoll', drive: 'base' });
    const [far, near] = sys.socketPair();
    let echoed = 0;
    const bev = BufferEvent.socket(base, near, { handlers: {
      read(stream) { stream.write(stream.input); echoed++; },
    } }).enable(Ev.READ);
    base.loopSync(LoopFlag.NONBLOCK);
    const message = Buffer.alloc(64, 'x');
    const back = Buffer.alloc(128);
    process.stdout.write('begin echo\\n');
    for (let i = 0; i < ${MESSAGES}; i++) {
      sys.write(far, message);
      base.loopSync(LoopFlag.ONCE);
      if (sys.read(far, back) !== 64) throw new Error('no echo');
    }
    process.stdout.write('end echo\\n');
    if (echoed !== ${MESSAGES}) throw new Error(String(echoed));
    bev.close(); sys.close(far); base.close();
    `,
    calls,
  );
  assert.is(traced.code, 0, traced.stderr);
  const count = (call: string) => callsBetween(traced, 'echo', call).length;
  assert.is(count('recvfrom'), MESSAGES);
  assert.is(count('sendto'), MESSAGES);
  assert.is(count('epoll_(p?wait2?)'), MESSAGES);
  // The test's own writes and reads of the other end.
  assert.is(count('write'), MESSAGES + 1);
  assert.is(count('read'), MESSAGES);
  for (const none of ['epoll_ctl', 'ioctl', 'sendmsg', 'readv', 'writev', 'fcntl'])
    assert.is(count(none), 0, none);
});

withStrace('many writes of a pass are one call; WRITE is waited for after EAGAIN', async () => {
  const traced = await runTraced(
    `
    const base = new EventBase({ backend: 'epoll', drive: 'base' });
    const [far, near] = sys.socketPair();
    const bev = BufferEvent.socket(base, near);
    base.loopSync(LoopFlag.NONBLOCK);
    process.stdout.write('begin gather\\n');
    base.once(-1, Ev.TIMEOUT, () => {
      for (let i = 0; i < 10; i++) bev.write(Buffer.alloc(5000));
    });
    base.loopSync(LoopFlag.ONCE);
    process.stdout.write('end gather\\n');
    process.stdout.write('begin full\\n');
    bev.write(Buffer.alloc(4_000_000));
    const into = Buffer.alloc(1 << 20);
    for (let got = 50_000; got > 0 || bev.outputLength > 0; ) {
      base.loopSync(LoopFlag.NONBLOCK | LoopFlag.ONCE);
      got = sys.read(far, into);
    }
    process.stdout.write('end full\\n');
    bev.close(); sys.close(far); base.close();
    `,
    calls,
  );
  assert.is(traced.code, 0, traced.stderr);
  assert.is(callsBetween(traced, 'gather', 'sendmsg').length, 1);
  assert.is(callsBetween(traced, 'gather', 'sendto').length, 0);
  assert.is(callsBetween(traced, 'gather', 'epoll_ctl').length, 0);
  const full = callsBetween(traced, 'full', 'sendto');
  const again = full.filter((line) => line.includes('EAGAIN'));
  assert.ok(again.length > 0, 'the socket was full');
  // One-shot: waited for once for each time that the kernel said it was full, at most.
  const changes = callsBetween(traced, 'full', 'epoll_ctl').length;
  assert.ok(changes <= again.length * 2, `${changes} changes, ${again.length} times full`);
});

test.run();
