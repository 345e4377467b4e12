// What a base has counted, from the page: the native side and the dispatcher both write there.

import type { EventCounts } from './options.js';
import { Word } from './page.js';

export function readCounts(words: Int32Array): EventCounts {
  const active = words[Word.ACTIVE];
  return { added: words[Word.ADDED] + active, active, virtual: words[Word.VIRTUAL] };
}

/** High-water marks; with `clear` they start again from what there is now. */
export function readMaxCounts(words: Int32Array, clear: boolean): EventCounts {
  const most: EventCounts = {
    added: words[Word.ADDED_MAX],
    active: words[Word.ACTIVE_MAX],
    virtual: words[Word.VIRTUAL_MAX],
  };
  if (!clear) return most;
  const now = readCounts(words);
  words[Word.ADDED_MAX] = now.added;
  words[Word.ACTIVE_MAX] = now.active;
  words[Word.VIRTUAL_MAX] = now.virtual;
  return most;
}
