// Where a socket listens or connects.

import { lookup } from 'node:dns/promises';
import { native, type RawAddress } from '../native.js';

export type Address = { host: string; port: number; family?: 0 | 4 | 6 } | { path: string };

export function toAddress(raw: RawAddress | undefined): Address | undefined {
  if (raw === undefined) return undefined;
  if (raw.path !== undefined) return { path: raw.path };
  return { host: raw.host as string, port: raw.port as number, family: raw.family };
}

/** `127.0.0.1:80`, `[::1]:80`, or the path. */
export function formatAddress(address: Address): string {
  if ('path' in address) return address.path;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

/** A numeric address for `host`; names go through the system's resolver, in its order. */
export async function resolveHost(host: string): Promise<string> {
  if (native.isIp(host) !== 0) return host;
  return (await lookup(host, { verbatim: true })).address;
}
