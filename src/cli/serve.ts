// `multiloop serve`: one loop group from the command line, to its end.

import { closeSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { LOG_MODE } from '../http/access_log.js';
import {
  type AcceptMode,
  type BackendName,
  type BackendReport,
  EventBase,
  type LoopGroup,
  type ServeOptions,
  serve,
} from '../index.js';
import { lostThreads } from '../runtime/thread_pool.js';
import { type Given, nearest, type Parsed, UsageError } from './args.js';
import { banner } from './banner.js';
import type { ServeFlags } from './commands.js';
import { tellEvents } from './events.js';
import { describe } from './failure.js';
import { findWorker } from './ready_made.js';
import { explainStart, type Where } from './start_failure.js';
import { printStats } from './stats_lines.js';
import { complain, count, note, print } from './terminal.js';
import { readTls, type TlsFiles, tlsFiles } from './tls_files.js';

const PORT = 8_080;
const HOST = '127.0.0.1';
const DRAIN_MS = 10_000;

/** Resolves when the server was stopped; throws when it cannot start or has to give up. */
export async function serveCommand(parsed: Parsed<ServeFlags>, version: string): Promise<void> {
  const [name = 'http', ...rest] = parsed.arguments;
  const { worker, isReadyMade } = findWorker(name, rest);
  const { flags } = parsed;
  const where = listenWhere(flags);
  const drainMs = flags['drain-ms']?.value ?? DRAIN_MS;
  const files = tlsFiles(flags);
  const isHttp = isReadyMade && name === 'http';
  const accessLog = accessLogOf(flags['access-log'], isHttp ? undefined : name);
  const options: ServeOptions = {
    worker,
    workerData: { arguments: rest, accessLog },
    listen: files === undefined ? where : { ...where, tls: await readTls(files) },
    loops: flags.loops?.value,
    backend: backends(flags.backend),
    waker: flags.waker?.value,
    policy: flags.policy?.value,
    accept: acceptMode(flags),
    drainMs,
    killMs: flags['kill-ms']?.value,
    watchdogMs: flags['watchdog-ms']?.value,
    maxConnections: flags['max-connections']?.value,
    rebalance: { auto: flags.rebalance?.value },
    pin: flags.pin?.value,
    handleSignals: true,
  };
  let group: LoopGroup;
  try {
    group = await serve(options);
  } catch (error) {
    throw await explainStart(error, where, worker);
  }
  const flushEvents = tellEvents(group);
  const stopSaying = sayStopping(group, drainMs);
  const stopRenewing = files === undefined ? () => undefined : renewTls(group, files);
  print(
    banner(group, {
      version,
      worker: [name, ...rest].join(' '),
      isHttp,
      isTls: files !== undefined,
    }),
  );
  const stopStats = flags.stats?.value === true ? printStats(group) : () => undefined;
  try {
    await group.closed;
    note('stopped');
  } finally {
    stopStats();
    stopSaying();
    stopRenewing();
    flushEvents();
    // When all has been said.
    setImmediate(leaveLostThreads);
  }
}

/**
 * true is standard output. The loops append to the file, each by itself; what is wrong with it is
 * said before they start.
 */
function accessLogOf(given: Given<string> | undefined, other?: string): string | true | undefined {
  if (given === undefined) return undefined;
  const { source, value } = given;
  if (other !== undefined)
    throw new UsageError(`${source} goes with the worker http; ${other} has no such log`);
  if (value === '-') return true;
  try {
    closeSync(openSync(value, 'a', LOG_MODE));
  } catch (error) {
    throw new UsageError(`${source}: ${(error as Error).message}`);
  }
  return resolve(value);
}

/** Node waits for every thread when a process exits, and these may never end. */
function leaveLostThreads(): void {
  const lost = lostThreads();
  if (lost === 0) return;
  complain(`${count(lost, 'thread')} would not end, so the process is killed`);
  process.kill(process.pid, 'SIGKILL');
}

/** serve() handles the signals; this says so, before the first connection is closed. */
function sayStopping(group: LoopGroup, drainMs: number): () => void {
  const say = () => {
    const open = count(group.stats().open, 'connection');
    note(`stopping: ${open} open, up to ${drainMs / 1_000} s`);
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.prependOnceListener(signal, say);
  return () => {
    for (const signal of signals) process.off(signal, say);
  };
}

/**
 * By SIGHUP, with the reload that serve() does, and when they change if they are watched: what
 * connects from then on has the new files.
 */
function renewTls(group: LoopGroup, files: TlsFiles): () => void {
  const say = () => complain(`${files.cert} was read anew, for connections from now on`);
  group.on('tls', say);
  const renew = async () => {
    try {
      await group.setTls(0, await readTls(files));
      say();
    } catch (error) {
      complain(`the certificate stays as it was: ${describe(error)}`);
    }
  };
  process.on('SIGHUP', renew);
  return () => process.off('SIGHUP', renew);
}

// ── flags that depend on each other, or on this machine ──

function listenWhere({ path, port, host }: Parsed<ServeFlags>['flags']): Where {
  const other = port ?? host;
  const isPath =
    path !== undefined && (other === undefined || (other.fromEnvironment && !path.fromEnvironment));
  if (isPath) return { path: path.value };
  if (path !== undefined && other !== undefined && path.fromEnvironment === other.fromEnvironment)
    throw new UsageError(`${path.source} and ${other.source} exclude each other`);
  return { host: bareHost(host?.value ?? HOST), port: port?.value ?? PORT };
}

/** Where the kernel picks the loop nobody else can, and a path is one queue. */
function acceptMode({ accept, policy, path }: Parsed<ServeFlags>['flags']): AcceptMode | undefined {
  if (accept === undefined || accept.value === 'handoff') return accept?.value;
  const given = `${accept.source} ${accept.value}`;
  if (policy !== undefined)
    throw new UsageError(
      `${policy.source} goes with --accept handoff; with ${given} the kernel picks the loop`,
    );
  if (path !== undefined && accept.value === 'reuseport')
    throw new UsageError(
      `${given} needs a port, and ${path.source} is a unix socket; try --accept shared`,
    );
  return accept.value;
}

/** An IPv6 address in the brackets of a URL is that address. */
function bareHost(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

function backends(given: Given<string[]> | undefined): BackendName[] | undefined {
  if (given === undefined) return undefined;
  const all = EventBase.backends();
  for (const name of given.value) {
    const report = all.find((one) => one.name === name);
    if (report === undefined) throw new UsageError(unknownBackend(given.source, name, all));
    if (!report.available)
      throw new UsageError(
        `${given.source}: ${name} is not available: ${report.reason}; ${offer(all, name)}`,
      );
  }
  return given.value as BackendName[];
}

function unknownBackend(source: string, name: string, all: BackendReport[]): string {
  const names = all.filter((one) => one.available).map((one) => one.name);
  const near = nearest(name, names);
  const advice = near === undefined ? '' : ` (did you mean ${near}?)`;
  return `${source}: there is no backend '${name}'${advice}; ${offer(all)}`;
}

/** `available here: epoll, poll; not here: kqueue (…)`. */
function offer(all: BackendReport[], told?: string): string {
  const here = all.filter(({ available }) => available).map(({ name }) => name);
  const missing = all.filter(({ available, name }) => !available && name !== told);
  const reasons = missing.map(({ name, reason }) => `${name} (${reason})`);
  return `available here: ${here.join(', ')}; not here: ${reasons.join(', ')}`;
}
