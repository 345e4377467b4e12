// The headers of a request, made out of its head when somebody asks; and the trailers.

/** Names are looked up in any case, and in lower case when they are listed. Read-only. */
export class HttpHeaders {
  /** @internal Names in lower case and values, in the order in which they came. */
  readonly _list: readonly string[];

  /** @internal `text` has been checked: lines, each of them ended by CR LF. */
  constructor(text: string) {
    const list: string[] = [];
    let at = 0;
    while (at < text.length) {
      const colon = text.indexOf(':', at);
      const end = text.indexOf('\r\n', colon);
      list.push(text.slice(at, colon).toLowerCase(), trim(text, colon + 1, end));
      at = end + 2;
    }
    this._list = list;
  }

  /** How many lines. */
  get size(): number {
    return this._list.length / 2;
  }

  /**
   * The value; of one that came several times, all of them joined by `, ` (RFC 9110 section 5.3),
   * those of Cookie by `; ` (RFC 9113 section 8.2.3).
   */
  get(name: string): string | undefined {
    const list = this._list;
    const wanted = name.toLowerCase();
    let found: string | undefined;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== wanted) continue;
      if (found === undefined) found = list[i + 1];
      else found += `${wanted === 'cookie' ? '; ' : ', '}${list[i + 1]}`;
    }
    return found;
  }
  /** Every value, as they came. */
  getAll(name: string): string[] {
    const list = this._list;
    const wanted = name.toLowerCase();
    const found: string[] = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === wanted) found.push(list[i + 1]);
    return found;
  }
  has(name: string): boolean {
    const list = this._list;
    const wanted = name.toLowerCase();
    for (let i = 0; i < list.length; i += 2) if (list[i] === wanted) return true;
    return false;
  }

  *[Symbol.iterator](): IterableIterator<[name: string, value: string]> {
    const list = this._list;
    for (let i = 0; i < list.length; i += 2) yield [list[i], list[i + 1]];
  }
  /** For the web's Headers and for JSON. */
  toJSON(): Record<string, string> {
    const all: Record<string, string> = Object.create(null);
    for (const [name] of this) all[name] ??= this.get(name) as string;
    return all;
  }
}

export const NO_HEADERS = new HttpHeaders('');

function trim(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}
const isBlank = (unit: number): boolean => unit === 32 || unit === 9;
