// What the runtime tells over Node's diagnostics_channel, for tracing: nothing is made for a
// channel that nobody listens to. A subscriber hears what is published on its own thread: the
// coordinator's (the one that called serve()) or, where it says so, a loop's, whose worker's file
// subscribes.
//
// multiloop:accept   { group, connection, listener }     a connection was accepted, not refused;
//                                                        by a loop: there, and without the group
// multiloop:handoff  { group, connection, loop }         it was given to a loop
// multiloop:move     { connection, from, to, bytes, contextBytes }
//                                                        on the loop that it leaves for another;
//                                                        what went along: see Moved
// multiloop:rescue   { group, connection, loop }         its loop died, and this one adopts it
// multiloop:reload   { group, ...report }, or { group, error }
// multiloop:shed     { group, reason, count }            connections were refused
// multiloop:stall    { group, loop, ms }                 a loop is blocked, as its watchdog found
// multiloop:error    { group, error, connection? }       of the group, or of a hook

import { type Channel, channel } from 'node:diagnostics_channel';

export const channels = {
  accept: channel('multiloop:accept'),
  handoff: channel('multiloop:handoff'),
  move: channel('multiloop:move'),
  rescue: channel('multiloop:rescue'),
  reload: channel('multiloop:reload'),
  shed: channel('multiloop:shed'),
  stall: channel('multiloop:stall'),
  error: channel('multiloop:error'),
} satisfies Record<string, Channel>;

/** What it throws, diagnostics_channel reports as uncaught in the next tick. */
export function publish(name: keyof typeof channels, message: () => object): void {
  const to = channels[name];
  if (to.hasSubscribers) to.publish(message());
}
