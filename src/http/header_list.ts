// Headers that are put together by hand: libevent's evkeyvalq.

import { invalidType, outOfRange } from '../validate.js';
import { checkHeader } from './header_checks.js';
import { HttpHeaders } from './headers.js';

/** What headers may be given as: an object, pairs, or a message's own. */
export type HeadersInit =
  | Readonly<Record<string, string | number | readonly string[]>>
  | Iterable<readonly [name: string, value: string | number]>;

/** Lines at most: more are a mistake in a loop. */
export const HEADER_LINES_MAX = 1_000;

/**
 * HttpHeaders that can be changed. Names are looked up in any case and listed in lower case; lines
 * keep their order. What no header may have (a line end above all) is ERR_INVALID_ARG_VALUE.
 */
export class HeaderList extends HttpHeaders {
  constructor(init: HeadersInit = {}) {
    super('');
    for (const [name, value] of pairsOf(init)) this.append(name, value);
  }

  /** Adds a line beside others of that name. */
  append(name: string, value: string | number): this {
    const text = checkHeader(name, value);
    const list = this._list as string[];
    if (list.length >= 2 * HEADER_LINES_MAX)
      throw outOfRange('number of headers', `<= ${HEADER_LINES_MAX}`, HEADER_LINES_MAX + 1);
    list.push(name.toLowerCase(), text);
    return this;
  }
  /** Instead of every line of that name. */
  set(name: string, value: string | number): this {
    checkHeader(name, value);
    this.remove(name);
    return this.append(name, value);
  }
  /** Every line of that name. Whether there was one. */
  remove(name: string): boolean {
    if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
    const list = this._list as string[];
    const wanted = name.toLowerCase();
    const { length } = list;
    for (let i = length - 2; i >= 0; i -= 2) if (list[i] === wanted) list.splice(i, 2);
    return list.length < length;
  }
  clear(): void {
    (this._list as string[]).length = 0;
  }
}

export function* pairsOf(init: HeadersInit): Generator<readonly [string, string | number]> {
  if (typeof init !== 'object' || init === null)
    throw invalidType('headers', 'an object or an iterable of pairs', init);
  if (Symbol.iterator in init) {
    yield* init as Iterable<readonly [string, string | number]>;
    return;
  }
  for (const [name, value] of Object.entries(init)) {
    if (Array.isArray(value)) for (const one of value) yield [name, one];
    else yield [name, value as string | number];
  }
}
