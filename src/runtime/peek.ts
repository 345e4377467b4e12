// What is looked for in the first bytes of a connection, before a policy is asked for its loop.

import { MultiloopError } from '../errors.js';
import type { Address } from '../stream/address.js';
import { type ClientHello, readClientHello } from '../stream/heads/client_hello.js';
import type { Head } from '../stream/heads/head.js';
import { type HttpHead, readHttpHead } from '../stream/heads/http_head.js';
import { type ProxyHeader, readProxyHeader } from '../stream/heads/proxy_header.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { checkInteger, checkOneOf, invalidType, invalidValue } from '../validate.js';

export type PeekName = 'tls' | 'proxy' | 'http';
const NAMES: readonly PeekName[] = ['tls', 'proxy', 'http'];

/** What a reader of the user's own may look at besides the bytes. */
export interface PeekContext {
  remote?: Address;
  listener: ListenOptions;
}

/**
 * Reads the first bytes of a connection: `{ done: true, … }` with what it has found, which the
 * policy gets as `incoming.facts`; `{ done: false, need: n }` to be called again when there are n
 * bytes; undefined when they are not of its protocol. The bytes are valid during the call only, and
 * the coordinator runs it, so it must be quick. When it throws or answers anything else (ERR_PEEK),
 * that is an 'error' of the group, and the policy gets the bytes without facts.
 */
export type PeekFunction = (bytes: Uint8Array, context: PeekContext) => Head<object>;
export type PeekReader = PeekName | PeekFunction;

export interface PeekOptions {
  /**
   * A reader, or several in the order in which they are tried: the first whose protocol it is
   * reads, and 'proxy' leaves what follows its header to those after it. Without a reader, `bytes`
   * many bytes are waited for.
   */
  read?: PeekReader | PeekReader[];
  /** The most that is looked at: 16,384. */
  bytes?: number;
  /** How long the bytes are waited for at most, from accepting on: 1,000 ms. */
  ms?: number;
  /** Connections that are waited for at a time: 4,096. One more, and the oldest is handed on. */
  connections?: number;
}

/**
 * Why the waiting for a connection's first bytes was over. done: a reader, or the number of bytes,
 * was content; other: no reader knows the protocol; end: the peer sends no more; bytes, ms,
 * connections: that limit was reached; error: the reader failed, or the descriptor could not be
 * watched.
 */
export type PeekEnd = 'done' | 'other' | 'end' | 'bytes' | 'ms' | 'connections' | 'error';

/** What readers have found. */
export interface PeekFacts {
  /** Without it the bytes were no ClientHello, as far as they were there. */
  tls?: ClientHello;
  proxy?: ProxyHeader;
  http?: HttpHead;
  /** What a reader function of yours has answered. */
  facts?: object;
}

/** A connection as it was when the waiting was over. */
export interface Peeked extends PeekFacts {
  head: Uint8Array;
  peek: PeekEnd;
}

export interface PeekSettings {
  readers: readonly PeekReader[];
  bytes: number;
  ms: number;
  connections: number;
}

/** The kernel's buffer holds more, and no head that is worth routing by is larger. */
const PEEK_BYTES_MAX = 65_536;
const PEEK_BYTES = 16_384;
const PEEK_MS_MAX = 600_000;
const PEEK_MS = 1_000;
const PEEK_CONNECTIONS_MAX = 65_536;
const PEEK_CONNECTIONS = 4_096;
const READERS_MAX = 8;

/** `policy` is the one that is to see it: what nobody looks at is not waited for. */
export function checkPeek(peek: unknown, policy: unknown): PeekSettings | undefined {
  if (peek === undefined) return undefined;
  const isList = typeof peek !== 'object' || peek === null || Array.isArray(peek);
  const options = (isList ? { read: peek } : peek) as PeekOptions;
  const name = isList ? 'options.peek' : 'options.peek.read';
  const readers = readerList(name, options.read);
  if (readers.length === 0 && options.bytes === undefined)
    throw invalidValue(name, 'must name a reader, or options.peek.bytes a number', options.read);
  const integer = (key: 'bytes' | 'ms' | 'connections', otherwise: number, max: number) =>
    checkInteger(`options.peek.${key}`, options[key] ?? otherwise, 1, max);
  if (typeof policy !== 'function' && !(policy === 'sticky' && readers.includes('proxy')))
    throw invalidValue(
      'options.peek',
      "is for a policy function, or with 'proxy' for the 'sticky' policy: no other looks at it",
      peek,
    );
  return {
    readers,
    bytes: integer('bytes', PEEK_BYTES, PEEK_BYTES_MAX),
    ms: integer('ms', PEEK_MS, PEEK_MS_MAX),
    connections: integer('connections', PEEK_CONNECTIONS, PEEK_CONNECTIONS_MAX),
  };
}

function readerList(name: string, read: unknown): PeekReader[] {
  if (read === undefined) return [];
  const list: unknown[] = Array.isArray(read) ? read : [read];
  if (list.length === 0 || list.length > READERS_MAX)
    throw invalidValue(name, `must have 1 to ${READERS_MAX} readers`, read);
  for (const one of list) {
    if (typeof one === 'function') continue;
    if (typeof one !== 'string')
      throw invalidType(name, 'of type string or function, or an array of these', one);
    checkOneOf(name, one, NAMES);
  }
  return list as PeekReader[];
}

/** What there is to say about `bytes`; a number says how many it takes to say more. */
export interface Reading {
  found: PeekFacts;
  verdict: 'done' | 'other' | number;
}

/** Throws what a reader of the user's own throws, and ERR_PEEK for an answer that is none. */
export function readHead(
  readers: readonly PeekReader[],
  bytes: Uint8Array,
  context: () => PeekContext,
): Reading {
  const found: PeekFacts = {};
  let begin = 0;
  let isDone = false;
  for (const reader of readers) {
    const rest = bytes.subarray(begin);
    const head = typeof reader === 'function' ? ask(reader, rest, context()) : READ[reader](rest);
    if (head === undefined) continue;
    if (!head.done) return { found, verdict: begin + head.need };
    const { done: _, ...facts } = head;
    Object.assign(found, { [typeof reader === 'function' ? 'facts' : reader]: facts });
    isDone = true;
    if (reader !== 'proxy') break;
    begin += (facts as ProxyHeader).length;
    // Whoever asks for what follows is content with that only.
    isDone = readers.at(-1) === reader;
  }
  return { found, verdict: isDone ? 'done' : 'other' };
}

const READ: Record<PeekName, (bytes: Uint8Array) => Head<object>> = {
  tls: readClientHello,
  proxy: readProxyHeader,
  http: readHttpHead,
};

function ask(reader: PeekFunction, bytes: Uint8Array, context: PeekContext): Head<object> {
  const head: unknown = reader(bytes, context);
  if (head === undefined) return undefined;
  const { done, need } = (head ?? {}) as { done?: unknown; need?: unknown };
  if (done === true) return head as Head<object>;
  if (done === false && Number.isSafeInteger(need) && (need as number) > bytes.length)
    return head as Head<object>;
  throw new MultiloopError(
    'ERR_PEEK',
    `A peek reader was given ${bytes.length} bytes and answered neither { done: true }, nor ` +
      '{ done: false, need } with a larger number of bytes, nor undefined',
  );
}
