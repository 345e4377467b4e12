// The first message of a TLS client, as far as it says where the client wants to go (RFC 8446,
// 4.1.2 and 5.1). It is not encrypted, but for what Encrypted Client Hello hides: there the name
// is that of the service which holds the key.

import { type Head, latin1, type More, more } from './head.js';

export interface ClientHello {
  /** The name of the server (RFC 6066, 3), in small letters; without one the client sent none. */
  sni?: string;
  /** The protocols that the client offers above TLS (RFC 7301), preferred first. */
  alpn: string[];
  /** The versions that the client offers, preferred first: 'TLSv1.3', 'TLSv1.2' … */
  versions: string[];
  /** Bytes from the beginning to the end of the message, headers of records included. */
  length: number;
}

/** Longer messages are not read; OpenSSL too refuses those beyond about 128 KiB. */
const CLIENT_HELLO_MAX = 2 ** 17;

const RECORD_HEADER = 5;
const MESSAGE_HEADER = 4;
/** RFC 8446, 5.1: a record has at most so many bytes, and one of a handshake is never empty. */
const RECORD_MAX = 2 ** 14;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const Extension = { SERVER_NAME: 0, ALPN: 16, SUPPORTED_VERSIONS: 43 } as const;
const HOST_NAME = 0;

const VERSIONS: Record<number, string> = {
  769: 'TLSv1',
  770: 'TLSv1.1',
  771: 'TLSv1.2',
  772: 'TLSv1.3',
};

/**
 * Reads the ClientHello that `bytes` begin with, in as many records as it comes. undefined: it is
 * none, or a broken one. Any thread.
 */
export function readClientHello(bytes: Uint8Array): Head<ClientHello> {
  const header = gather(bytes, MESSAGE_HEADER);
  if (header === undefined || 'need' in header) return header;
  const [, high, middle, low] = header.payload;
  const size = MESSAGE_HEADER + ((high << 16) | (middle << 8) | low);
  if (size > CLIENT_HELLO_MAX) return undefined;
  const message = gather(bytes, size);
  if (message === undefined || 'need' in message) return message;
  try {
    const hello = readBody(new Cursor(message.payload, MESSAGE_HEADER));
    return { done: true, ...hello, length: message.length };
  } catch (error) {
    if (error instanceof Broken) return undefined;
    throw error;
  }
}

interface Gathered {
  payload: Uint8Array;
  length: number;
}

/** The first `count` bytes of the handshake without the records around them; undefined: not one. */
function gather(bytes: Uint8Array, count: number): Gathered | More | undefined {
  const pieces: Uint8Array[] = [];
  let missing = count;
  for (let at = 0; ; ) {
    const record = at + RECORD_HEADER;
    if (bytes.length > at && bytes[at] !== HANDSHAKE) return undefined;
    if (bytes.length > at + 1 && bytes[at + 1] !== 3) return undefined;
    if (bytes.length < record) return more(record);
    const length = (bytes[at + 3] << 8) | bytes[at + 4];
    if (length === 0 || length > RECORD_MAX) return undefined;
    const isFirst = at === 0 && bytes.length > record;
    if (isFirst && bytes[record] !== CLIENT_HELLO) return undefined;
    const end = record + Math.min(length, missing);
    if (bytes.length < end) return more(end);
    pieces.push(bytes.subarray(record, end));
    missing -= end - record;
    if (missing === 0) return { payload: Buffer.concat(pieces), length: end };
    at = record + length;
  }
}

class Broken extends Error {}

/** Walks vectors whose lengths are in front of them (RFC 8446, 3.4). */
class Cursor {
  readonly #bytes: Uint8Array;
  #at: number;
  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }
  get left(): number {
    return this.#bytes.length - this.#at;
  }
  take(count: number): Uint8Array {
    if (count > this.left) throw new Broken();
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }
  number(size: 1 | 2): number {
    const [high, low] = this.take(size);
    return size === 1 ? high : (high << 8) | low;
  }
  vector(size: 1 | 2): Cursor {
    return new Cursor(this.take(this.number(size)));
  }
  rest(): Uint8Array {
    return this.take(this.left);
  }
}

function readBody(hello: Cursor): Omit<ClientHello, 'length'> {
  const version = hello.number(2);
  hello.take(32); // random
  hello.vector(1); // session id
  hello.vector(2); // cipher suites
  hello.vector(1); // compression methods
  const facts: Omit<ClientHello, 'length'> = { alpn: [], versions: named([version]) };
  // A client of TLS 1.2 or before may leave them out.
  if (hello.left === 0) return facts;
  const extensions = hello.vector(2);
  if (hello.left > 0) throw new Broken();
  const seen = new Set<number>();
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const data = extensions.vector(2);
    // Two of a kind are forbidden (RFC 8446, 4.2), and two servers may believe different ones.
    if (seen.has(type)) throw new Broken();
    seen.add(type);
    if (type === Extension.SERVER_NAME) facts.sni = readServerName(data.vector(2));
    else if (type === Extension.ALPN) facts.alpn = readProtocols(data.vector(2));
    else if (type === Extension.SUPPORTED_VERSIONS) facts.versions = readVersions(data.vector(1));
    else continue;
    if (data.left > 0) throw new Broken();
  }
  if (facts.sni === undefined) delete facts.sni;
  return facts;
}

function readServerName(list: Cursor): string | undefined {
  let name: string | undefined;
  while (list.left > 0) {
    const type = list.number(1);
    const text = latin1(list.vector(2).rest());
    if (type !== HOST_NAME) continue;
    if (name !== undefined || !/^[\x21-\x7e]+$/.test(text)) throw new Broken();
    name = text.toLowerCase();
  }
  return name;
}

function readProtocols(list: Cursor): string[] {
  const names: string[] = [];
  while (list.left > 0) names.push(latin1(list.vector(1).rest()));
  if (names.length === 0 || names.includes('')) throw new Broken();
  return names;
}

function readVersions(list: Cursor): string[] {
  const numbers: number[] = [];
  while (list.left > 0) numbers.push(list.number(2));
  return named(numbers);
}

/** Without what nobody knows: clients send such numbers on purpose (RFC 8701). */
function named(numbers: number[]): string[] {
  return numbers.flatMap((number) => VERSIONS[number] ?? []);
}
