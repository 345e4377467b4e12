// `multiloop serve --stats`: a line a second about the whole group, in columns, with a heading now
// and then. Plain text, so that it reads the same on a terminal and in a log.

import type { GroupStats, LoopGroup } from '../index.js';
import { print } from './terminal.js';

const EVERY_MS = 1_000;
/** Lines below one heading: it is still to be seen on a small terminal. */
const LINES_A_HEADING = 20;

/** What a line is made of. */
export interface Sample {
  /** performance.now() */
  at: number;
  stats: GroupStats;
  /** Loops that serve and are not blocked. */
  serving: number;
}

/** A heading as wide as its numbers get, and the number. `before` is the last line's sample. */
type Column = [heading: string, value: (now: Sample, before: Sample) => string];

const whole = (number: number) => Math.round(number).toString();
const sum = ({ stats }: Sample, key: 'bytesRead' | 'bytesWritten' | 'inbox') =>
  stats.loops.reduce((total, loop) => total + loop[key], 0);
const perSecond = (now: Sample, before: Sample, of: (sample: Sample) => number) =>
  Math.max(0, of(now) - of(before)) / ((now.at - before.at) / 1_000);

const columns: Column[] = [
  ['  loops', ({ serving, stats }) => `${serving}/${stats.loops.length}`],
  ['    open', ({ stats }) => whole(stats.open)],
  ['accept/s', (now, before) => whole(perSecond(now, before, ({ stats }) => stats.accepted))],
  ['  moves', ({ stats }) => whole(stats.moves)],
  ['rescues', ({ stats }) => whole(stats.rescues)],
  ['    in/s', (now, before) => bytes(perSecond(now, before, (one) => sum(one, 'bytesRead')))],
  ['   out/s', (now, before) => bytes(perSecond(now, before, (one) => sum(one, 'bytesWritten')))],
  ['lag ms', ({ stats }) => lag(Math.max(...stats.loops.map((loop) => loop.lagMs)))],
  ['inbox', (now) => whole(sum(now, 'inbox'))],
];

export const statsHeading = columns.map(([heading]) => heading).join('  ');

export function statsLine(now: Sample, before: Sample): string {
  return columns.map(([heading, value]) => value(now, before).padStart(heading.length)).join('  ');
}

/** With three digits: `0 B`, `999 B`, `1.5 kB`, `120 MB`. */
function bytes(number: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let rest = Math.round(number);
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1_000;
    unit++;
  }
  return `${unit > 0 && rest < 99.95 ? rest.toFixed(1) : rest.toFixed(0)} ${units[unit]}`;
}

const lag = (ms: number) => (ms < 99.95 ? ms.toFixed(1) : ms.toFixed(0));

/** Of all handshakes that have failed: `handshakes failed: 3 (not TLS 2, timeout 1)`. */
function failuresLine({ handshakesFailed, handshakeFailures }: GroupStats): string {
  const some = Object.entries(handshakeFailures).filter(([, count]) => count > 0);
  const reasons = some.map(([reason, count]) => `${reason} ${count}`).join(', ');
  return `handshakes failed: ${handshakesFailed} (${reasons})`;
}

/**
 * Prints a line a second, and one more when handshakes of TLS have failed in that time, until the
 * group is closed; the answer ends that at once.
 */
export function printStats(group: LoopGroup, everyMs = EVERY_MS, out = print): () => void {
  const sample = (): Sample => ({
    at: performance.now(),
    stats: group.stats(),
    serving: group.loops.filter(({ state }) => state === 'serving').length,
  });
  let before = sample();
  let lines = 0;
  const timer = setInterval(() => {
    const now = sample();
    if (lines++ % LINES_A_HEADING === 0) out(statsHeading);
    out(statsLine(now, before));
    if (now.stats.handshakesFailed > before.stats.handshakesFailed) out(failuresLine(now.stats));
    before = now;
  }, everyMs);
  return () => clearInterval(timer);
}
