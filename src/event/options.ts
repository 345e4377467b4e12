// What a base can be asked for, and what it tells about itself.

import type { BackendName, Feature, WakerName } from './ev.js';

/** libevent's EVENT_MAX_PRIORITIES, of which it gives out only 255. */
export const PRIORITIES_MAX = 256;

export interface EventBaseOptions {
  /** Exactly this one, else ERR_BACKEND_UNAVAILABLE with the reason. */
  backend?: BackendName;
  avoid?: BackendName[];
  require?: Feature[];
  /** EVENT_NO<NAME> in the environment disables a backend, as in libevent. */
  ignoreEnv?: boolean;
  /** How many priorities there are: 1 to 256, 1 by default. */
  priorities?: number;
  /**
   * Polls again although events are active, once so many callbacks have run or so much time has
   * passed in one pass; only for priorities of at least `minPriority` (1). libevent's
   * event_config_set_max_dispatch_interval.
   */
  maxDispatch?: { intervalMs?: number; callbacks?: number; minPriority?: number };
  /**
   * How signals wake this base: by an eventfd where the kernel has it, else by kqueue's own
   * 'evfilt_user', which is for a base on kqueue only, else by a pipe.
   */
  waker?: WakerName;
  /**
   * Who blocks while dispatching. 'base': the backend waits, and libuv's descriptor is one more in
   * it. 'libuv': libuv waits. The default is 'libuv' on the main thread and 'base' in others.
   */
  drive?: 'base' | 'libuv';
  /**
   * The base checks its own structures after each pass, and an event that is used after free()
   * says where it was freed. MULTILOOP_DEBUG=1 is the same.
   */
  debug?: boolean;
}

/**
 * As libevent counts: descriptor or signal, timeout, and activation of an event are one each in
 * `added`; `virtual` is what keeps a loop going without an event (the inbox of a loop group).
 */
export interface EventCounts {
  added: number;
  active: number;
  virtual: number;
}

/** What has work to finish at the end of the pass in which it arose. */
export interface PassEnd {
  passEnd(): void;
}
