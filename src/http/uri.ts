// URIs by the grammar of RFC 3986, which keeps every part as it was written: libevent's evhttp_uri.
// The web's `URL` resolves, lower-cases and escapes; what stands between a client and a server has
// to pass on what it was given.

import { isIP } from 'node:net';
import { checkInteger, checkObject, invalidType, invalidValue } from '../validate.js';

export interface UriOptions {
  /** Parts may have characters that should be escaped: all but blanks and controls. */
  nonconformant?: boolean;
  /** `host` of an IP literal is without its brackets; joining writes them again. */
  stripBrackets?: boolean;
  /** `http://unix:/path/of/socket:/path` names a unix socket. */
  unixSocket?: boolean;
}

const PORT_MAX = 65_535;
/** Characters at most: 64 Ki. */
export const URI_LENGTH_MAX = 65_536;

// RFC 3986 appendix A. The named ones are the insides of character classes.
const UNRESERVED = 'A-Za-z0-9\\-._~';
const SUB_DELIMS = "!$&'()*+,;=";
const ESCAPED = '%[0-9A-Fa-f]{2}';
const PCHAR = `[${UNRESERVED}${SUB_DELIMS}:@]|${ESCAPED}`;
const all = (inside: string) => new RegExp(`^(?:${inside})*$`);
const SCHEME = /^[A-Za-z][A-Za-z0-9+\-.]*$/;
const USERINFO = all(`[${UNRESERVED}${SUB_DELIMS}:]|${ESCAPED}`);
const REG_NAME = all(`[${UNRESERVED}${SUB_DELIMS}]|${ESCAPED}`);
const PATH = all(`${PCHAR}|/`);
const QUERY = all(`${PCHAR}|[/?]`);
const IP_FUTURE = new RegExp(`^v[0-9A-Fa-f]+\\.[${UNRESERVED}${SUB_DELIMS}:]+$`);
/** What must never be in a URI, however lenient its reader: it would end it somewhere. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is meant
const NEVER = /[\x00-\x20\x7f]/;
/** Section 3, the whole of it: scheme, authority, path, query, fragment. */
const WHOLE = /^(?:([^:/?#]+):)?(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s;
const UNIX = /^unix:([^:]+):(.*)$/;

type Part = 'scheme' | 'userinfo' | 'host' | 'path' | 'query' | 'fragment' | 'unixSocket';

/**
 * The parts are undefined where they are not there; `''` is a part that is there and empty. Setting
 * one checks it by itself (ERR_INVALID_ARG_VALUE), `toString()` whether they go together.
 */
export class Uri {
  readonly #options: UriOptions;
  #scheme: string | undefined = undefined;
  #userinfo: string | undefined = undefined;
  #host: string | undefined = undefined;
  #port: number | undefined = undefined;
  #path = '';
  #query: string | undefined = undefined;
  #fragment: string | undefined = undefined;
  #unixSocket: string | undefined = undefined;

  constructor(options: UriOptions = {}) {
    checkObject('options', options);
    this.#options = { ...options };
  }

  /** A URI or a relative reference; undefined for what is none. */
  static parse(text: string, options: UriOptions = {}): Uri | undefined {
    if (typeof text !== 'string') throw invalidType('text', 'of type string', text);
    const uri = new Uri(options);
    if (text.length > URI_LENGTH_MAX) return undefined;
    const [, scheme, authority, path, query, fragment] = WHOLE.exec(text) as RegExpExecArray;
    try {
      uri.scheme = scheme;
      uri.query = query;
      uri.fragment = fragment;
      uri.path = path;
      if (authority !== undefined) uri.#setAuthority(authority);
      uri.#check();
    } catch {
      return undefined;
    }
    return uri;
  }

  #setAuthority(authority: string): void {
    const at = authority.lastIndexOf('@');
    if (at >= 0) this.userinfo = authority.slice(0, at);
    const place = authority.slice(at + 1);
    if (this.#options.unixSocket && place === 'unix:') {
      // The path of the socket has slashes, so it ends where the next colon is.
      const [, socket, rest] = UNIX.exec(`unix:${this.#path}`) ?? [];
      if (socket !== undefined) {
        this.unixSocket = socket;
        this.path = rest;
        this.#host = '';
        return;
      }
    }
    const [, host, port] = /^(\[.*\]|[^:]*)(?::(\d*))?$/.exec(place) ?? [];
    if (host === undefined) throw invalidValue('authority', 'is no host with a port', authority);
    this.#setHost(host);
    if (port !== undefined && port !== '')
      this.#port = checkInteger('port', Number(port), 0, PORT_MAX);
  }

  get scheme(): string | undefined {
    return this.#scheme;
  }
  set scheme(scheme: string | undefined) {
    this.#scheme = this.#checked('scheme', scheme, SCHEME, true);
  }
  /** What is before the `@`. */
  get userinfo(): string | undefined {
    return this.#userinfo;
  }
  set userinfo(userinfo: string | undefined) {
    this.#userinfo = this.#checked('userinfo', userinfo, USERINFO, true);
  }
  /** A name or an address; an IPv6 address in brackets, unless `stripBrackets`. */
  get host(): string | undefined {
    const host = this.#host;
    if (!this.#options.stripBrackets || !host?.startsWith('[')) return host;
    return host.slice(1, -1);
  }
  set host(host: string | undefined) {
    if (host === undefined) this.#host = undefined;
    else this.#setHost(host);
  }
  #setHost(host: string): void {
    if (typeof host !== 'string') throw invalidType('host', 'of type string', host);
    const bare = this.#options.stripBrackets && host.includes(':') && !host.startsWith('[');
    const inside = bare ? host : /^\[(.*)\]$/s.exec(host)?.[1];
    if (inside === undefined) this.#host = this.#checked('host', host, REG_NAME, true);
    else if (isIpv6(inside) || IP_FUTURE.test(inside)) this.#host = `[${inside}]`;
    else throw invalidValue('host', 'is no address', host);
  }
  /** Undefined without one: also of `http://a:/`. */
  get port(): number | undefined {
    return this.#port;
  }
  set port(port: number | undefined) {
    this.#port = port === undefined ? undefined : checkInteger('port', port, 0, PORT_MAX);
  }
  /** Perhaps '', never undefined. */
  get path(): string {
    return this.#path;
  }
  set path(path: string) {
    this.#path = this.#checked('path', path ?? '', PATH) as string;
  }
  /** Without the `?`. */
  get query(): string | undefined {
    return this.#query;
  }
  set query(query: string | undefined) {
    this.#query = this.#checked('query', query, QUERY);
  }
  /** Without the `#`. */
  get fragment(): string | undefined {
    return this.#fragment;
  }
  set fragment(fragment: string | undefined) {
    this.#fragment = this.#checked('fragment', fragment, QUERY);
  }
  /** The path of a unix socket, with `unixSocket`. */
  get unixSocket(): string | undefined {
    return this.#unixSocket;
  }
  set unixSocket(path: string | undefined) {
    if (path?.includes(':')) throw invalidValue('unixSocket', 'has a colon', path);
    this.#unixSocket = this.#checked('unixSocket', path, PATH);
  }

  /** `nonconformant` loosens all but what tells the parts from each other. */
  #checked(
    part: Part,
    text: string | undefined,
    pattern: RegExp,
    always = false,
  ): string | undefined {
    if (text === undefined) return undefined;
    if (typeof text !== 'string') throw invalidType(part, 'of type string', text);
    const delimiters = part === 'path' ? /[?#]/ : part === 'query' ? /#/ : undefined;
    const lenient = this.#options.nonconformant === true && !always;
    const wrong = lenient ? NEVER.test(text) || delimiters?.test(text) : !pattern.test(text);
    if (wrong) throw invalidValue(part, `is no ${part} of a URI`, text);
    return text;
  }

  /** Section 3.3, and what would be read as something else. */
  #check(): void {
    const path = this.#path;
    const hasAuthority = this.#host !== undefined;
    if (!hasAuthority && (this.#userinfo !== undefined || this.#port !== undefined))
      throw invalidValue('host', 'must be there with a userinfo or a port', undefined);
    if (this.#unixSocket !== undefined && (this.#port !== undefined || this.#host !== ''))
      throw invalidValue('unixSocket', "goes with the host '' and without a port", this.#host);
    if (hasAuthority && path !== '' && !path.startsWith('/'))
      throw invalidValue('path', 'must begin with / after a host', path);
    if (!hasAuthority && path.startsWith('//'))
      throw invalidValue('path', 'must not begin with // without a host', path);
    if (this.#scheme === undefined && !hasAuthority && /^[^/]*:/.test(path))
      throw invalidValue('path', 'has a colon in its first segment, without a scheme', path);
  }

  /** The whole of it. ERR_INVALID_ARG_VALUE if the parts do not go together. */
  toString(): string {
    this.#check();
    let text = this.#scheme === undefined ? '' : `${this.#scheme}:`;
    if (this.#host !== undefined) {
      text += '//';
      if (this.#userinfo !== undefined) text += `${this.#userinfo}@`;
      text += this.#unixSocket === undefined ? this.#host : `unix:${this.#unixSocket}:`;
      if (this.#port !== undefined) text += `:${this.#port}`;
    }
    text += this.#path;
    if (this.#query !== undefined) text += `?${this.#query}`;
    if (this.#fragment !== undefined) text += `#${this.#fragment}`;
    return text;
  }
  toJSON(): string {
    return this.toString();
  }
}

/** Section 3.2.2: no zone. */
function isIpv6(text: string): boolean {
  return !text.includes('%') && isIP(text) === 6;
}
