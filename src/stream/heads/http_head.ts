// The head of an HTTP/1 request, as far as a connection is routed by it (RFC 9112). A server reads
// requests in another way: here nothing is framed, and what two servers may read in two ways is
// not of this protocol.

import { type Head, latin1, more } from './head.js';

export interface HttpHead {
  method: string;
  /** As sent: '/path?query', 'http://host/path', 'host:443', '*'. */
  target: string;
  /** Of the target: what is before the query. */
  path: string;
  version: '1.0' | '1.1';
  /** Whom the request is for, in small letters and without a port; undefined: it does not say. */
  host?: string;
  /** By name in small letters; those that came more than once are joined by `, `. */
  headers: Readonly<Record<string, string>>;
  /** By name (RFC 6265, 4.2); of two with one name the first. */
  cookies: Readonly<Record<string, string>>;
  /** Bytes of the head, with the empty line at its end. */
  length: number;
}

/** The longest that is registered, BASELINE-CONTROL, has 16. */
const METHOD_MAX = 32;
const HEADERS_MAX = 256;

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
const METHOD = new RegExp(`^${TOKEN}{1,${METHOD_MAX}}$`);
const NAME = new RegExp(`^${TOKEN}+$`);
const NOT_IN_TARGET = /[^\x21-\x7e\x80-\xff]/;
const NOT_IN_VALUE = /[^\t\x20-\x7e\x80-\xff]/;
const VERSION = 'HTTP/1.';

/**
 * Reads the request line and the headers that `bytes` begin with, up to the empty line. undefined:
 * they are not those of HTTP/1, or broken. Any thread.
 */
export function readHttpHead(bytes: Uint8Array): Head<HttpHead> {
  const text = latin1(bytes);
  // Empty lines in front are ignored (RFC 9112, 2.2).
  const begin = (/^(?:\r?\n)*/.exec(text) as RegExpExecArray)[0].length;
  let end = text.indexOf('\n', begin);
  const line = readRequestLine(text.slice(begin, end === -1 ? text.length : end), end === -1);
  if (line === undefined || typeof line === 'string')
    return line === 'more' ? more(bytes.length + 1) : undefined;
  const headers = makeRecord();
  for (let count = 0; ; count++) {
    const next = end + 1;
    end = text.indexOf('\n', next);
    if (end === -1) return more(bytes.length + 1);
    const field = text.slice(next, text[end - 1] === '\r' ? Math.max(next, end - 1) : end);
    if (field === '') break;
    if (count === HEADERS_MAX || !addField(headers, field)) return undefined;
  }
  const { host, path } = readTarget(line.target, headers.host);
  const head = { ...line, path, headers, cookies: readCookies(headers.cookie), length: end + 1 };
  return host === undefined ? { done: true, ...head } : { done: true, ...head, host };
}

type RequestLine = Pick<HttpHead, 'method' | 'target' | 'version'>;

/** A part of a line is looked at too: other protocols, which have no lines, are seen at once. */
function readRequestLine(line: string, isPart: boolean): RequestLine | 'more' | undefined {
  if (isPart && (line === '' || line === '\r')) return 'more';
  const [method, target, version, ...others] = line.split(' ');
  if (!METHOD.test(method) || others.length > 0) return undefined;
  if (target !== undefined && NOT_IN_TARGET.test(target)) return undefined;
  if (version !== undefined) {
    const begin = version.slice(0, VERSION.length);
    const rest = version.slice(VERSION.length);
    if (target === '' || !VERSION.startsWith(begin) || !/^(?:\d\r?)?$/.test(rest)) return undefined;
    if (!isPart && rest !== '') return { method, target, version: rest[0] === '0' ? '1.0' : '1.1' };
  }
  return isPart ? 'more' : undefined;
}

/** Names come from the peer: `constructor` and the like are not there unless they were sent. */
function makeRecord(): Record<string, string> {
  return Object.create(null);
}

function addField(headers: Record<string, string>, field: string): boolean {
  const colon = field.indexOf(':');
  const name = field.slice(0, Math.max(0, colon)).toLowerCase();
  if (!NAME.test(name) || NOT_IN_VALUE.test(field)) return false;
  const value = field.slice(colon + 1).trim();
  // Of two hosts one server takes the first and another the last (RFC 9112, 3.2).
  if (name === 'host' && headers.host !== undefined) return false;
  const before = headers[name];
  const separator = name === 'cookie' ? '; ' : ', ';
  headers[name] = before === undefined ? value : before + separator + value;
  return true;
}

/** RFC 9112, 3.2: a target that names a host is stronger than the header. */
function readTarget(target: string, header = ''): { host?: string; path: string } {
  const absolute = /^[a-z][a-z\d+.-]*:\/\/([^/?#]*)([^?#]*)/i.exec(target);
  const authority = absolute === null ? header : absolute[1].slice(absolute[1].indexOf('@') + 1);
  const path = absolute === null ? target.split('?', 1)[0] : absolute[2] || '/';
  const host = /^(\[[\da-f:.]+\]|[^\s,:[\]/@]+)(?::\d*)?$/i.exec(authority)?.[1].toLowerCase();
  return host === undefined ? { path } : { host, path };
}

function readCookies(header: string | undefined): Record<string, string> {
  const cookies = makeRecord();
  if (header === undefined) return cookies;
  for (const pair of header.split(';')) {
    const at = pair.indexOf('=');
    const name = pair.slice(0, at).trim();
    if (at > 0 && cookies[name] === undefined) cookies[name] = pair.slice(at + 1).trim();
  }
  return cookies;
}
