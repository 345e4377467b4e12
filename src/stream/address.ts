// Where a socket listens or connects.

import { lookup } from 'node:dns/promises';
import { resolve } from 'node:path';
import { native, type RawAddress } from '../native.js';
import { invalidType, invalidValue } from '../validate.js';

export type Address = { host: string; port: number; family?: 0 | 4 | 6 } | { path: string };

export function toAddress(raw: RawAddress | undefined): Address | undefined {
  if (raw === undefined) return undefined;
  if (raw.path !== undefined) return { path: raw.path };
  return { host: raw.host as string, port: raw.port as number, family: raw.family };
}

/** `127.0.0.1:80`, `[::1]:80`, or the path: what parseAddress() reads. Any thread. */
export function formatAddress(address: Address): string {
  if ('path' in address) return address.path;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

/** What the kernel would cut at a NUL is not the path that was meant. */
export function checkUnixPath(name: string, path: string): void {
  if (/^[@\0]$/.test(path)) throw invalidValue(name, 'is an abstract name without a name', path);
  if (!/^[@\0]/.test(path) && path.includes('\0'))
    throw invalidValue(name, 'must not contain a NUL', path);
}

/** The file that binding a socket to `path` makes: none in Linux's abstract namespace. */
export function unixFile(path: string): string | undefined {
  return /^[@\0]/.test(path) ? undefined : resolve(path);
}

/** A numeric address for `host`; names go through the system's resolver, in its order. */
export async function resolveHost(host: string): Promise<string> {
  if (native.isIp(host) !== 0) return host;
  return (await lookup(host, { verbatim: true })).address;
}

/**
 * Reads `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80` (a zone may follow a `%`), or a path
 * that begins with `/` or `@`; the port is 0 when there is none. undefined for anything else, names
 * included: libevent's evutil_parse_sockaddr_port. Any thread.
 */
export function parseAddress(text: string): Address | undefined {
  if (typeof text !== 'string') throw invalidType('text', 'of type string', text);
  if (/^(\/[^\0]+|@.+)$/s.test(text)) return { path: text };
  const bracketed = text.match(/^\[([^\]]*)\](?::(\d{1,5}))?$/);
  const dotted = text.match(/^([\d.]+)(?::(\d{1,5}))?$/);
  const [host, port = '0'] = (bracketed ?? dotted)?.slice(1) ?? [text];
  const family = native.isIp(host);
  const isSound =
    family !== 0 && !(bracketed && family !== 6) && !(dotted && family !== 4) && +port <= 65_535;
  return isSound ? { host, port: Number(port), family } : undefined;
}
