// Prepare and check watchers: called in every turn, before the wait and after it, in the order in
// which they were made (libevent's evwatch). A watcher may free itself or any other from inside its
// callback, which libevent's list does not survive; one that is made there waits for the next turn.

import { AsyncResource } from 'node:async_hooks';
import { native } from '../native.js';
import { checkFunction } from '../validate.js';
import type { EventBase } from './event_base.js';
import { Watching, Word } from './page.js';
import { drainTicks } from './ticks.js';

/** A callback in every turn of a base. It keeps neither the loop nor the process alive. */
export interface Watcher extends Disposable {
  readonly base: EventBase;
  /** No further call. Idempotent; in any callback, its own too. */
  free(): void;
}

type Failure = { error: unknown } | undefined;

class OneWatcher implements Watcher {
  readonly base: EventBase;
  readonly #resource = new AsyncResource('multiloop.watcher');
  readonly #callback: (timeout: number | undefined) => void;
  readonly #freed: (watcher: OneWatcher) => void;
  isFreed = false;

  constructor(
    base: EventBase,
    callback: (timeout: number | undefined) => void,
    freed: (watcher: OneWatcher) => void,
  ) {
    this.base = base;
    this.#callback = callback;
    this.#freed = freed;
  }

  call(timeout: number | undefined): void {
    this.#resource.runInAsyncScope(this.#callback, undefined, timeout);
  }

  free(): void {
    if (this.isFreed) return;
    this.isFreed = true;
    this.#freed(this);
  }
  [Symbol.dispose](): void {
    this.free();
  }
}

export class Watchers {
  readonly #words: Int32Array;
  #prepare: readonly OneWatcher[] = [];
  #check: readonly OneWatcher[] = [];

  constructor(words: Int32Array) {
    this.#words = words;
  }

  addPrepare(base: EventBase, callback: (timeout: number | undefined) => void): Watcher {
    checkFunction('callback', callback);
    const watcher = new OneWatcher(base, callback, (one) => {
      this.#prepare = this.#prepare.filter((other) => other !== one);
      this.#told();
    });
    this.#prepare = [...this.#prepare, watcher];
    this.#told();
    return watcher;
  }

  addCheck(base: EventBase, callback: () => void): Watcher {
    checkFunction('callback', callback);
    const watcher = new OneWatcher(base, callback, (one) => {
      this.#check = this.#check.filter((other) => other !== one);
      this.#told();
    });
    this.#check = [...this.#check, watcher];
    this.#told();
    return watcher;
  }

  /** `timeout` in milliseconds. Answers the first exception; the others are reported at once. */
  runPrepare(timeout: number | undefined, sync: boolean): Failure {
    return run(this.#prepare, timeout, sync);
  }
  runCheck(sync: boolean): Failure {
    return run(this.#check, undefined, sync);
  }

  close(): void {
    for (const watcher of [...this.#prepare, ...this.#check]) watcher.free();
  }

  #told(): void {
    this.#words[Word.WATCHING] =
      (this.#prepare.length > 0 ? Watching.PREPARE : 0) |
      (this.#check.length > 0 ? Watching.CHECK : 0);
  }
}

/** The list is never changed in place, so it stays what it was when the turn came to it. */
function run(list: readonly OneWatcher[], timeout: number | undefined, sync: boolean): Failure {
  let failure: Failure;
  for (const watcher of list) {
    if (watcher.isFreed) continue;
    try {
      watcher.call(timeout);
    } catch (error) {
      if (failure === undefined) failure = { error };
      else native.reportException(error);
    }
    if (!sync) drainTicks();
  }
  return failure;
}
