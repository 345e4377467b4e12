// A line at a time: who subscribes, publishes, moves and dies is told so. What is published comes
// back as it is.

import { type Connection, defineWorker, type LoopContext } from '../../../src/index.js';

interface State {
  rest: string;
  /** The loop that it comes to dies of it, in the middle of its arrival. */
  fatal?: boolean;
}

function command(conn: Connection<State>, line: string, loop: LoopContext): void {
  const [word, topic, ...rest] = line.split(' ');
  const answer = (text: string) => conn.write(`${text}\n`);
  const tried = (body: () => unknown) => {
    try {
      body();
      answer(`${word} ${topic} done`);
    } catch (error) {
      answer(`${word} failed ${(error as { code?: string }).code}`);
    }
  };
  switch (word) {
    case 'sub':
      tried(() => loop.subscribe(conn as Connection, topic));
      break;
    case 'unsub':
      tried(() => loop.subscribe(conn as Connection, topic)[Symbol.dispose]());
      break;
    case 'pub':
      tried(() => loop.publish(topic, `${rest.join(' ')}\n`));
      break;
    case 'many': {
      // many TOPIC NAME FROM TO: numbered messages, one by one over several turns. Its loop is not
      // to retire meanwhile.
      const hold = conn.hold();
      many(loop, topic, rest[0], Number(rest[1]), Number(rest[2]))
        .then(
          () => answer('many done'),
          (error) => answer(`many failed ${error.code}`),
        )
        .finally(() => hold[Symbol.dispose]());
      break;
    }
    case 'flood':
      tried(() => {
        for (let i = 0; i < Number(rest[0]); i++) loop.publish(topic, `${i}\n`);
      });
      break;
    case 'move':
      conn.move(Number(topic)).catch((error) => answer(`move failed ${error.code}`));
      break;
    case 'fatal':
      // fatal move LOOP, or fatal die: in unpack there, or in the rescue.
      if (topic === 'die') {
        conn.checkpoint(Buffer.from('fatal'));
        command(conn, 'die', loop);
        break;
      }
      conn.state.fatal = true;
      command(conn, `move ${rest[0]}`, loop);
      break;
    case 'where':
      answer(`loop ${loop.id} ${loop.generation}`);
      break;
    case 'block': {
      const end = performance.now() + Number(topic);
      answer('blocking');
      setImmediate(() => {
        while (performance.now() < end);
      });
      break;
    }
    case 'die':
      setImmediate(() => {
        throw new Error('told to die');
      });
      break;
    default:
      answer(`? ${line}`);
  }
}

async function many(loop: LoopContext, topic: string, name: string, from: number, to: number) {
  for (let i = from; i < to; ) {
    try {
      loop.publish(topic, `${name} ${i}\n`);
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_INBOX_FULL') throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    i++;
    if (i % 10 === 0) await new Promise(setImmediate);
  }
}

/** At a boundary, since what it held is done, so it will be rescued. */
function dieArriving(conn: Connection<State>): never {
  conn.hold()[Symbol.dispose]();
  process.exit(5);
}

export default defineWorker<State>({
  open(conn) {
    conn.state = { rest: '' };
  },
  data(conn, chunk) {
    const lines = (conn.state.rest + Buffer.from(chunk).toString('latin1')).split('\n');
    conn.state.rest = lines.pop() as string;
    for (const line of lines) command(conn, line, conn.loop);
  },
  unpack(conn, state) {
    conn.state = state;
    if (state.fatal === true) dieArriving(conn);
  },
  rescue(conn, checkpoint) {
    conn.state = { rest: '' };
    if (checkpoint === undefined || checkpoint.length === 0) return;
    conn.checkpoint(Buffer.alloc(0));
    dieArriving(conn);
  },
});
