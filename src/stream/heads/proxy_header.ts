// The header that a proxy puts in front of a connection to say whose it is: the PROXY protocol of
// haproxy (proxy-protocol.txt), version 1 in a line of text and version 2 in bytes. Nothing in it
// proves who has sent it: believe it from a proxy of yours only.

import { SocketAddress } from 'node:net';
import type { Address } from '../address.js';
import { type Head, latin1, more } from './head.js';

export interface ProxyHeader {
  version: 1 | 2;
  /** The proxy's own, such as a health check: whoever has connected is the peer. */
  local: boolean;
  /** Whose connection it is, and where to it was made; without them the proxy does not know. */
  source?: Address;
  destination?: Address;
  /** Bytes of the header: what follows is the connection's own. */
  length: number;
}

/** Section 2.1: the longest line, its end included. */
const LINE_MAX = 107;
const LINE_MIN = 'PROXY UNKNOWN\r\n'.length;
const LINE_BEGIN = 'PROXY ';
/** Section 2.2. */
const SIGNATURE = '\r\n\r\n\0\r\nQUIT\n';
const FIXED = 16;
const LOCAL = 0;
const PROXY = 1;
const UNIX_PATH = 108;

/** Bytes of both addresses and their ports, by family. */
const ADDRESS_BYTES = [0, 12, 36, 2 * UNIX_PATH];
const UNSPEC = 0;
const INET = 1;
const UNIX = 3;

/** Reads the header that `bytes` begin with. undefined: it is none, or a broken one. Any thread. */
export function readProxyHeader(bytes: Uint8Array): Head<ProxyHeader> {
  const text = latin1(bytes, 0, LINE_MAX);
  if (begins(text, LINE_BEGIN)) return text === '' ? more(LINE_MIN) : readLine(text);
  return begins(text, SIGNATURE) ? readBinary(bytes) : undefined;
}

/** Whether `text` begins so, or is the beginning of that. */
function begins(text: string, begin: string): boolean {
  return text.startsWith(begin.slice(0, text.length));
}

// ── version 1 ──

function readLine(text: string): Head<ProxyHeader> {
  const end = text.indexOf('\r\n');
  if (end === -1)
    return text.length >= LINE_MAX ? undefined : more(Math.max(text.length + 1, LINE_MIN));
  const facts = { done: true, version: 1, local: false, length: end + 2 } as const;
  const [, protocol, ...words] = text.slice(0, end).split(' ');
  // Whatever follows it is to be ignored.
  if (protocol === 'UNKNOWN') return facts;
  if ((protocol !== 'TCP4' && protocol !== 'TCP6') || words.length !== 4) return undefined;
  const family = protocol === 'TCP4' ? 4 : 6;
  const source = toAddress(words[0], words[2], family);
  const destination = toAddress(words[1], words[3], family);
  if (source === undefined || destination === undefined) return undefined;
  return { ...facts, source, destination };
}

function toAddress(host: string, port: string, family: 4 | 6): Address | undefined {
  if (!/^(0|[1-9]\d{0,4})$/.test(port) || Number(port) > 65_535) return undefined;
  const form = family === 4 ? /^[\d.]{7,15}$/ : /^[\da-f:.]{2,39}$/i;
  return form.test(host) ? inet(host, Number(port), family) : undefined;
}

/** In the one form that addresses have everywhere else; undefined if it is none. */
function inet(host: string, port: number, family: 4 | 6): Address | undefined {
  try {
    const { address } = new SocketAddress({ address: host, family: `ipv${family}` });
    return { host: address, port, family };
  } catch {
    return undefined;
  }
}

// ── version 2 ──

function readBinary(bytes: Uint8Array): Head<ProxyHeader> {
  if (bytes.length > 12 && bytes[12] >> 4 !== 2) return undefined;
  if (bytes.length < FIXED) return more(FIXED);
  const command = bytes[12] & 0xf;
  const [family, transport] = [bytes[13] >> 4, bytes[13] & 0xf];
  const length = FIXED + ((bytes[14] << 8) | bytes[15]);
  const isSound = family < ADDRESS_BYTES.length && transport <= 2;
  if (command > PROXY || (command === PROXY && !isSound)) return undefined;
  if (command === PROXY && length < FIXED + ADDRESS_BYTES[family]) return undefined;
  if (bytes.length < length) return more(length);
  const facts = { done: true, version: 2, local: command === LOCAL, length } as const;
  // What else is in a header of the proxy's own, and what follows the addresses, is skipped.
  if (command === LOCAL || family === UNSPEC) return facts;
  const [source, destination] = family === UNIX ? unixPair(bytes) : inetPair(bytes, family);
  return {
    ...facts,
    ...(source === undefined ? {} : { source }),
    ...(destination === undefined ? {} : { destination }),
  };
}

function inetPair(bytes: Uint8Array, family: number): (Address | undefined)[] {
  const size = family === INET ? 4 : 16;
  const ports = FIXED + 2 * size;
  return [0, 1].map((which) => {
    const at = FIXED + which * size;
    const port = (bytes[ports + 2 * which] << 8) | bytes[ports + 2 * which + 1];
    const host = bytes.subarray(at, at + size);
    return family === INET ? inet(host.join('.'), port, 4) : inet(groups(host), port, 6);
  });
}

function groups(host: Uint8Array): string {
  const numbers = Array.from({ length: 8 }, (_, i) => (host[2 * i] << 8) | host[2 * i + 1]);
  return numbers.map((number) => number.toString(16)).join(':');
}

function unixPair(bytes: Uint8Array): (Address | undefined)[] {
  return [0, 1].map((which) => {
    const at = FIXED + which * UNIX_PATH;
    const whole = Buffer.from(bytes.subarray(at, at + UNIX_PATH));
    // A NUL in front makes an abstract name, written with an @ (unix(7)).
    const abstract = whole[0] === 0 ? '@' : '';
    const name = abstract === '' ? whole : whole.subarray(1);
    const end = name.indexOf(0);
    const path = name.toString('utf8', 0, end === -1 ? name.length : end);
    return path === '' ? undefined : { path: abstract + path };
  });
}
