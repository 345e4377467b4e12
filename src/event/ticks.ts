// What Node does between the callbacks of its own loop, for those of ours.

type Drain = () => void;

/**
 * Runs what process.nextTick() and promises have queued, as Node does after each of its callbacks.
 * The function is Node's own but undocumented; without it they drain once a pass, when control
 * leaves JavaScript.
 */
export const drainTicks: Drain =
  (process as unknown as { _tickCallback?: Drain })._tickCallback?.bind(process) ??
  (() => undefined);
