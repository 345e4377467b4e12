// System calls for datagrams, counted by strace: a batch in, a batch out, and nothing else.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { callsBetween, runTraced, type Traced, withStrace } from '../event/strace.js';
import { isPortable } from '../machine.js';

const datagram = new URL('../../src/stream/datagram.js', import.meta.url).href;

/** Runs lines that have two sockets, `a` with onA() and `b` with onB(), and `mark(text)`. */
function traced(backend: string, lines: string): Promise<Traced> {
  return runTraced(
    `
    import { Datagram } from '${datagram}';
    import { writeSync } from 'node:fs';
    const base = new EventBase({ backend: '${backend}', drive: 'base' });
    const mark = (text) => writeSync(2, text + '\\n');
    let onA = () => undefined;
    let onB = () => undefined;
    const bind = { host: '127.0.0.1', port: 0 };
    const a = new Datagram(base, bind, (batch) => onA(batch));
    const b = new Datagram(base, bind, (batch) => onB(batch));
    const close = () => { a.close(); b.close(); };
    ${lines}
    await base.dispatch();`,
    '-e trace=network,epoll_wait,epoll_pwait2,epoll_ctl,poll,ppoll,select,pselect6,write',
  );
}

const calls = (log: Traced, name: string, ...kinds: string[]) =>
  kinds.map((kind) => callsBetween(log, name, kind).length);
const any = 'recv\\w*|send\\w*|epoll_ctl';

// recvmmsg and sendmmsg are Linux's.
const lacking = isPortable ? 'this build is portable' : undefined;
for (const backend of isPortable ? (['poll'] as const) : (['epoll', 'poll'] as const)) {
  withStrace(
    `${backend}: twenty messages of a pass leave in one call and come in a few`,
    async () => {
      const log = await traced(
        backend,
        `
      let got = 0;
      onA = (batch) => {
        got += batch.length;
        if (got < 20) return;
        mark('end pass');
        close();
      };
      base.timer(() => {
        mark('begin pass');
        for (let i = 0; i < 20; i++) b.send('message ' + i, a.address);
      }).add(0);`,
      );
      const [sendmmsg, sendmsg] = calls(log, 'pass', 'sendmmsg', 'send(?!mmsg)\\w*');
      assert.equal([sendmmsg, sendmsg], [1, 0]);
      // The size of a batch doubles from two while all of it is used: 2, 4, 8, and the rest.
      const [recvmmsg, others] = calls(log, 'pass', 'recvmmsg', 'recv(?!mmsg)\\w*|epoll_ctl');
      assert.equal([recvmmsg, others], [4, 0]);
    },
    lacking,
  );

  withStrace(
    `${backend}: an echo of one message is two calls and a wait a side`,
    async () => {
      const log = await traced(
        backend,
        `
      let rounds = 0;
      onA = ([{ data, from }]) => { a.send(data, from); };
      onB = ([{ data, from }]) => {
        if (++rounds === 3) mark('begin rounds');
        if (rounds === 13) { mark('end rounds'); close(); return; }
        b.send(data, from);
      };
      b.send('ping', a.address);`,
      );
      const [send, receive, all] = calls(log, 'rounds', 'sendmsg', 'recvmmsg', any);
      assert.equal([send, receive], [20, 20]);
      assert.is(all, 40, 'no other call on the sockets');
      const [waits] = calls(log, 'rounds', '(epoll_(p?wait2?)|p?poll)');
      assert.ok(waits <= 30, `${waits} waits for 20 messages`);
    },
    lacking,
  );
}

test.run();
