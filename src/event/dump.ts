// A base in words, for people: what it waits for, what is active, and how it has been doing.

import { Ev, type EvMask } from './ev.js';
import type { EventBase } from './event_base.js';
import type { EventHandle } from './event_handle.js';
import { signalName } from './signals.js';

const NAMES = Object.entries(Ev);

/** `READ|PERSIST`; `none` for an empty mask. */
export function maskText(mask: EvMask): string {
  const names = NAMES.filter(([, bit]) => mask & bit).map(([name]) => name);
  return names.join('|') || 'none';
}

/** `fd 5`, `SIGHUP`, or `no descriptor`. */
export function keyText(fd: number, mask: EvMask): string {
  if (fd < 0) return 'no descriptor';
  return mask & Ev.SIGNAL ? signalName(fd) : `fd ${fd}`;
}

function line(event: EventHandle): string {
  const parts = [keyText(event.fd, event.mask), maskText(event.mask)];
  if (event._waitsFor() & ~Ev.TIMEOUT) parts.push('added');
  const { remaining } = event;
  if (remaining !== undefined) parts.push(`due in ${remaining.toFixed(3)} ms`);
  if (event._active !== 0) parts.push(`active for ${maskText(event._active)}`);
  if (event.base.priorities > 1) parts.push(`priority ${event.priority}`);
  return `  ${parts.join(', ')}`;
}

export function dump(base: EventBase): string {
  const { added, active, virtual } = base.counts();
  const most = base.maxCounts();
  const features = [...base.features].join(', ') || 'none';
  const { utilization } = base.utilization();
  const events = [...base.events()].map(line);
  return [
    `base on ${base.backend} (features: ${features}), priorities ${base.priorities}`,
    `counts: ${added} added (most ${most.added}), ${active} active (most ${most.active}), ` +
      `${virtual} virtual (most ${most.virtual})`,
    `turns: ${base._turns}, busy ${(utilization * 100).toFixed(1)} % of the time`,
    events.length === 0 ? 'events: none' : 'events:',
    ...events,
    '',
  ].join('\n');
}
