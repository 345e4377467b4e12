// serve(): from options to a running loop group.

import { constants } from 'node:os';
import { LoopGroup } from './loop_group.js';
import { loopThread } from './loop_thread.js';
import { type ServeOptions, settle } from './settings.js';

/**
 * Starts a loop group and resolves when every loop serves. Rejects with what is wrong with the
 * options (ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE,
 * ERR_BACKEND_UNAVAILABLE, ERR_WAKER_UNAVAILABLE),
 * with the worker (ERR_WORKER_LOAD, ERR_WORKER_TYPESCRIPT) or with the address (EADDRINUSE, EACCES,
 * ENOTFOUND); nothing is left running then. ERR_DRIVE_TAKEN where only poll and select exist and
 * another base drives this thread.
 *
 * A worker's own file may call it. In a loop's thread the call starts nothing and its promise
 * never settles, so what follows `await serve()` runs on the main thread only.
 */
export async function serve(options: ServeOptions): Promise<LoopGroup> {
  const loop = loopThread();
  if (loop !== undefined) {
    loop.served();
    return new Promise(() => undefined);
  }
  options?.signal?.throwIfAborted();
  const group = new LoopGroup(await settle(options));
  await group._start();
  if (options.handleSignals === true) handleSignals(group);
  const { signal } = options;
  const aborted = () => group.drain();
  signal?.addEventListener('abort', aborted, { once: true });
  const ended = () => signal?.removeEventListener('abort', aborted);
  group.closed.then(ended, ended);
  if (signal?.aborted) await group.drain();
  return group;
}

/**
 * SIGHUP reloads; SIGTERM drains the group and SIGINT closes it, the second of these ends the
 * process.
 */
function handleSignals(group: LoopGroup): void {
  let closing = false;
  const names = ['SIGINT', 'SIGTERM'] as const;
  const onSignal = (name: (typeof names)[number]) => {
    if (closing) process.exit(128 + constants.signals[name]);
    closing = true;
    if (name === 'SIGTERM') group.drain();
    else group.close();
  };
  const reload = () => {
    group.reload().catch((error) => group.emit('reloadFailed', error));
  };
  for (const name of names) process.on(name, onSignal);
  process.on('SIGHUP', reload);
  const ended = () => {
    for (const name of names) process.off(name, onSignal);
    process.off('SIGHUP', reload);
  };
  group.closed.then(ended, ended);
}
