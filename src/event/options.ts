// What a base can be asked for, and what it tells about itself.

import type { BackendName, Feature, WakerName } from './ev.js';

export interface EventBaseOptions {
  /** Exactly this one, else ERR_BACKEND_UNAVAILABLE with the reason. */
  backend?: BackendName;
  avoid?: BackendName[];
  require?: Feature[];
  /** EVENT_NO<NAME> in the environment disables a backend, as in libevent. */
  ignoreEnv?: boolean;
  /** How many priorities there are: 1 to 256, 1 by default. */
  priorities?: number;
  /** eventfd by default, where the kernel has it. */
  waker?: WakerName;
  /**
   * Who blocks while dispatching. 'base': the backend waits, and libuv's descriptor is one more in
   * it. 'libuv': libuv waits. The default is 'libuv' on the main thread and 'base' in others.
   */
  drive?: 'base' | 'libuv';
  /** The base checks its own structures after each pass. MULTILOOP_DEBUG=1 is the same. */
  debug?: boolean;
}

export interface EventCounts {
  added: number;
  active: number;
  virtual: number;
}

/** What has work to finish at the end of the pass in which it arose. */
export interface PassEnd {
  passEnd(): void;
}
