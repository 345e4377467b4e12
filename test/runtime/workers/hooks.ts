// Writes down every hook in the order of their calls, into shared memory of the test.

import { setImmediate as turn } from 'node:timers/promises';
import { type Connection, defineWorker } from '../../../src/index.js';

interface Log {
  lines: string[];
  open: number;
  overlapping: boolean;
}

const logs = new Map<number, Log>();
let closes = 0;
let refusal = 'none';

function logOf(conn: Connection): Log {
  return logs.get(conn.id) as Log;
}

export default defineWorker({
  async open(conn) {
    const log: Log = { lines: ['open'], open: 0, overlapping: false };
    logs.set(conn.id, log);
    // Data that is there already has to wait for this.
    log.open++;
    await turn();
    await turn();
    log.open--;
    log.lines.push('opened');
  },
  async data(conn, chunk) {
    const text = Buffer.from(chunk).toString();
    const log = logOf(conn);
    if (log.open > 0) log.overlapping = true;
    log.lines.push(`data ${text.length}`);
    if (text.startsWith('throw')) throw new Error('data hook');
    log.open++;
    await turn();
    log.open--;
    if (text.startsWith('reject')) throw new Error('async data hook');
    if (text.startsWith('count')) conn.write(`${closes}`);
    if (text.startsWith('refusal')) conn.write(refusal);
    if (text.startsWith('log')) conn.write(JSON.stringify(log));
    if (text.startsWith('after end')) afterEnd(conn);
    if (text.startsWith('close')) conn.close();
  },
  end(conn) {
    logOf(conn).lines.push('end');
    conn.end(JSON.stringify(logOf(conn)));
  },
  close(conn) {
    closes++;
    logs.delete(conn.id);
  },
});

function afterEnd(conn: Connection): void {
  conn.end('bye');
  try {
    conn.write('more');
  } catch (error) {
    refusal = (error as { code: string }).code;
  }
}
