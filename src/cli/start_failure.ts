// Why a server did not start, and what to do about it.

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { codeOf, Failure, placeOf, syntaxPlace } from './failure.js';

export type Where = { host: string; port: number } | { path: string };

/** Ports that are tried, at most, to find one that is free. */
const PROBES_MAX = 64;
const PORT_MAX = 65_535;
/** How long a parse of the worker's file may take. */
const CHECK_MS = 5_000;

/** The same error, as a Failure that names a remedy where there is one. */
export async function explainStart(
  error: unknown,
  where: Where,
  worker: string | URL,
): Promise<unknown> {
  const code = codeOf(error);
  if (code === 'ERR_WORKER_LOAD') return explainLoad(error as Error, worker);
  const syscall = (error as { syscall?: unknown } | null)?.syscall;
  if (syscall === 'getaddrinfo' && 'host' in where)
    return new Failure(`the host ${where.host} cannot be found (${code}); --host takes an address`);
  if (syscall !== 'bind' && syscall !== 'listen' && syscall !== 'socket') return error;
  const explained =
    'path' in where ? await aboutPath(code, where.path) : await aboutPort(code, where);
  return new Failure(explained ?? `cannot listen: ${(error as Error).message}`);
}

// ── ports ──

async function aboutPort(
  code: string | undefined,
  { host, port }: { host: string; port: number },
): Promise<string | undefined> {
  const place = `port ${port} on ${host}`;
  if (code === 'EADDRINUSE')
    return `${place} is in use; try --port ${await freePort(host, port + 1)}`;
  // 80 becomes 8080, and 443 becomes 8443.
  if (code === 'EACCES')
    return (
      `${place} is not permitted: ports below 1024 need privileges; ` +
      `try --port ${await freePort(host, port + 8_000)}`
    );
  if (code === 'EADDRNOTAVAIL')
    return (
      `${host} is not an address of this machine; --host takes 0.0.0.0 for all of them, ` +
      `or one of ${ownAddresses().join(', ')}`
    );
  return undefined;
}

/** The first free port from `first` on; it was bound and let go again a moment ago. */
async function freePort(host: string, first: number): Promise<number> {
  for (let port = first; port <= Math.min(first + PROBES_MAX, PORT_MAX); port++)
    if ((await probe(host, port)) !== undefined) return port;
  return (await probe(host, 0)) ?? 0;
}

function probe(host: string, port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      const bound = typeof address === 'object' && address !== null ? address.port : undefined;
      server.close(() => resolve(bound));
    });
  });
}

function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  // Link-local addresses need a zone, which would only confuse here.
  return all.map(({ address }) => address).filter((address) => !address.startsWith('fe80:'));
}

// ── unix sockets ──

async function aboutPath(code: string | undefined, path: string): Promise<string | undefined> {
  if (code === 'EADDRINUSE')
    return (await answers(path))
      ? `${path} is in use; another server listens there`
      : `${path} exists already, and no server listens there; if nobody needs it: rm ${path}`;
  if (code === 'EACCES') return `${path} is not permitted: its folder is not writable for you`;
  if (code === 'ENOENT') return `${path} cannot be made: its folder does not exist`;
  if (code === 'ENAMETOOLONG') return `${path} is too long for a unix socket: at most 107 bytes`;
  return undefined;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

// ── workers ──

/** Node keeps the place of a syntax error in a module to itself, so its checker is asked. */
async function explainLoad(error: Error, worker: string | URL): Promise<unknown> {
  if (!error.message.includes('does not parse') || placeOf(error.stack ?? '') !== undefined)
    return error;
  const isUrl = worker instanceof URL || worker.startsWith('file:');
  const file = resolve(isUrl ? fileURLToPath(worker) : worker);
  const place = syntaxPlace((await checkModule(file)).replace(/^\[stdin\]/, () => file));
  error.message += ` (${place ?? 'the place is in a module that it imports'})`;
  return error;
}

/**
 * What Node's checker says about a module: nothing if it parses. It runs none of it. The module
 * goes in by stdin, because a .js file would be taken for CommonJS.
 */
async function checkModule(file: string): Promise<string> {
  const source = await readFile(file, 'utf8').catch(() => '');
  return new Promise((done) => {
    const child = execFile(
      process.execPath,
      ['--check', '--input-type=module', '-'],
      { timeout: CHECK_MS, encoding: 'utf8' },
      (_error, _stdout, stderr) => done(stderr),
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(source);
  });
}
