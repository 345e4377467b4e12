// What the runtime's tests share: real clients on real sockets, and the process's own numbers.

import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import net from 'node:net';
import type { LoopGroup } from '../../src/index.js';

/** How long a test waits for anything before it fails: far above what a busy machine needs. */
const PATIENCE_MS = 20_000;

export const workerFile = (name: string): URL => new URL(`./workers/${name}.js`, import.meta.url);

export function portOf(group: LoopGroup, listener = 0): number {
  const address = group.addresses[listener];
  if (!('port' in address)) throw new Error('not a TCP listener');
  return address.port;
}

export async function connect(group: LoopGroup): Promise<net.Socket> {
  const socket = net.connect({ port: portOf(group), host: '127.0.0.1', allowHalfOpen: true });
  // A test that expects a reset looks at 'close'; 'error' must only not be unhandled.
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Sends and answers with the next bytes, or 'closed'. */
export async function ask(socket: net.Socket, text: string): Promise<string> {
  socket.write(text);
  return answer(socket);
}

export function answer(socket: net.Socket): Promise<string> {
  return new Promise((resolve) => {
    const done = (text: string) => {
      socket.off('data', onData);
      socket.off('end', onEnd);
      socket.off('close', onEnd);
      resolve(text);
    };
    const onData = (data: Buffer) => done(data.toString());
    const onEnd = () => done('closed');
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('close', onEnd);
  });
}

/**
 * Resolves when the peer is gone. A reset that arrives together with data reaches a Node client as
 * an end: libuv makes one of POLLHUP after a short read.
 */
export function gone(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.destroy();
      resolve();
    };
    if (socket.closed || socket.readableEnded) {
      done();
      return;
    }
    // Not events.once(), which rejects with the 'error' that comes before a reset's 'close'.
    socket.once('close', done);
    socket.once('end', done);
    socket.resume();
  });
}

/** Waits for numbers that no event announces. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

export function descriptors(): number[] {
  // The listing's own descriptor is in the list and gone by now.
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => linkOf(fd) !== undefined);
}

export function linkOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/** For every epoll descriptor of the process, the descriptors in its set. */
export function epollSets(): number[][] {
  const sets: number[][] = [];
  for (const fd of descriptors()) {
    if (linkOf(fd) !== 'anon_inode:[eventpoll]') continue;
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
    sets.push([...info.matchAll(/^tfd:\s*(\d+)/gm)].map((match) => Number(match[1])));
  }
  return sets;
}

/** The descriptor's number in a connection's id: the ledger's low 20 bits. */
export const fdOf = (connection: number): number => connection % 2 ** 20;
