// What `multiloop serve` says when it serves: what, where, on which loops, and how to stop it.

import type { Address, LoopGroup, LoopHandle } from '../index.js';
import { formatAddress } from '../stream/address.js';
import { count, styled } from './terminal.js';

/** More loops than this are told by kind, not one by one. */
const LOOPS_LISTED_MAX = 8;

export interface Served {
  version: string;
  /** What the worker is called, and its arguments. */
  worker: string;
  /** Whether its address is one for a browser. */
  isHttp: boolean;
  isTls: boolean;
}

export function banner(group: LoopGroup, served: Served): string {
  const [address] = group.addresses;
  const product = `multiloop ${served.version}`;
  const loops = count(group.loops.length, 'loop');
  const width = Math.max(product.length, loops.length) + 3;
  const where = styled('cyan', placeName(address, served));
  const lines = [
    `${styled('bold', product.padEnd(width))}${served.worker} on ${where}`,
    loops.padEnd(width) + loopList(group.loops),
  ];
  if (isLoopback(address))
    lines.push(styled('dim', 'only this machine can connect; --host 0.0.0.0 lets others in'));
  lines.push(styled('dim', 'Ctrl-C stops'));
  return lines.join('\n');
}

function placeName(address: Address, { isHttp, isTls }: Served): string {
  const name = formatAddress(address);
  if (!isHttp || 'path' in address) return isTls ? `tls://${name}` : name;
  return `http${isTls ? 's' : ''}://${name}`;
}

function isLoopback(address: Address): boolean {
  return 'host' in address && (address.host === '::1' || address.host.startsWith('127.'));
}

/** `4 × epoll, eventfd` when all are alike, else which loop has what. */
function loopList(loops: readonly LoopHandle[]): string {
  const kinds = new Map<string, number>();
  for (const { backend, waker } of loops) {
    const kind = `${backend}, ${waker}`;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  if (kinds.size === 1 || loops.length > LOOPS_LISTED_MAX)
    return [...kinds].map(([kind, number]) => `${number} × ${kind}`).join('; ');
  return loops.map(({ id, backend, waker }) => `${id} ${backend}+${waker}`).join(', ');
}
