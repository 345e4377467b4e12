// What serve() was asked for, checked and with every default in place.

import { availableParallelism } from 'node:os';
import type { ResourceLimits } from 'node:worker_threads';
import { BACKEND_NAMES, chooseBackend } from '../event/backends.js';
import type { BackendName, WakerName } from '../event/ev.js';
import { chooseWaker } from '../event/wakers.js';
import { resolveHost } from '../stream/address.js';
import { checkListenOptions, type ListenOptions } from '../stream/listening_socket.js';
import {
  checkBoolean,
  checkInteger,
  checkObject,
  checkOneOf,
  invalidType,
  outOfRange,
} from '../validate.js';
import { type AcceptMode, checkAccept } from './accept_mode.js';
import type { BalancerOptions } from './balancer.js';
import { workerUrl } from './load_worker.js';
import { checkPeek, type PeekOptions, type PeekReader, type PeekSettings } from './peek.js';
import { checkPin } from './pin.js';
import { checkPolicy, type Distribute, type PolicyName } from './policy.js';
import { checkTopicOptions, type GroupTopicSettings, type TopicOptions } from './topics.js';

export interface ServeOptions {
  /** Module with a worker as default export; a string is a file: URL or a path from cwd. */
  worker: string | URL;
  /** Structured clone, to every loop; SharedArrayBuffers stay shared. */
  workerData?: unknown;
  /** os.availableParallelism() by default. */
  loops?: number;
  /** { port: 0, host: '127.0.0.1' } by default. */
  listen?: ListenOptions | ListenOptions[];
  /** A list is dealt out to the loops in turn. */
  backend?: BackendName | BackendName[];
  waker?: WakerName | WakerName[];
  /**
   * How a loop is picked for a new connection: 'round-robin'; 'least-connections'; 'two-index',
   * fair on short and on long connections; 'least-lag', by how long a loop's turns take; 'sticky',
   * by the peer's address; or a function.
   */
  policy?: PolicyName | Distribute;
  /**
   * Has the coordinator look at the first bytes of each connection before the policy is asked, and
   * leave them for the loop: 'tls', 'proxy' or 'http', a reader function, a list of these, or with
   * limits `{ read, bytes, ms, connections }`. For a policy function; for 'sticky' with 'proxy'.
   */
  peek?: PeekReader | PeekReader[] | PeekOptions;
  /**
   * Who accepts: 'handoff', the coordinator, which hands connections out by `policy`; 'reuseport',
   * each loop from a socket of its own, among which the kernel divides by the peers' addresses
   * (ports only); 'shared', whichever loop is free, from one queue. 'handoff'.
   */
  accept?: AcceptMode;
  /** 65,536 over all loops; what is accepted beyond is closed at once. */
  maxConnections?: number;
  /** Messages that may wait for one loop: 1,024. */
  inboxSize?: number;
  /** Connections accepted in one turn: 64. */
  acceptBatch?: number;
  /** Bytes of a connection's checkpoint: 256. */
  checkpointMax?: number;
  /** How long a drain waits for boundaries, and a stop for what is being written: 10,000 ms. */
  drainMs?: number;
  /**
   * A loop whose turn takes longer than this, and than 100 ms, is ended and replaced: 0 ms, which
   * is never. One that is starting is not judged.
   */
  watchdogMs?: number;
  /**
   * A thread that has not ended so long after it was told to is lost, its connections severed and
   * another thread in its place: 5,000 ms.
   */
  killMs?: number;
  /** A loop that dies is replaced: 5 times in 60,000 ms, after 100 ms doubling to 5,000. */
  restart?: { max?: number; within?: number; backoff?: number };
  /**
   * Moves idle connections by itself (`auto`) when a loop has more than the mean by the share
   * `hysteresis` (0.25) and by two, at most `perSecond` (100) in a second. Off.
   */
  rebalance?: { auto?: boolean; perSecond?: number; hysteresis?: number };
  /**
   * Binds each loop's thread to a processor: those that the process may use, or these, in turn.
   * Linux only, ENOTSUP elsewhere. What such a thread starts (worker threads, child processes) is
   * bound like it. false.
   */
  pin?: boolean | number[];
  /** Limits of what is published: see TopicOptions. */
  topics?: TopicOptions;
  resourceLimits?: ResourceLimits;
  execArgv?: string[];
  env?: NodeJS.ProcessEnv;
  /**
   * SIGHUP reloads; SIGTERM drains the group, SIGINT closes it, and a second one ends the process
   * at once. false.
   */
  handleSignals?: boolean;
  /** Aborting drains and closes. */
  signal?: AbortSignal;
}

export interface Settings {
  worker: string;
  workerData: unknown;
  loops: { backend: BackendName; waker: WakerName; processor: number | undefined }[];
  listen: ListenOptions[];
  policy: PolicyName | Distribute;
  peek: PeekSettings | undefined;
  accept: AcceptMode;
  maxConnections: number;
  inboxSize: number;
  acceptBatch: number;
  checkpointMax: number;
  drainMs: number;
  watchdogMs: number;
  killMs: number;
  restart: { max: number; within: number; backoff: number };
  /** Undefined: not by itself. */
  rebalance: BalancerOptions | undefined;
  topics: GroupTopicSettings;
  resourceLimits: ResourceLimits | undefined;
  execArgv: string[] | undefined;
  env: NodeJS.ProcessEnv | undefined;
}

/** More loops than this on one machine is a mistake. */
const LOOPS_MAX = 512;
const INBOX_MAX = 2 ** 20;

/** Throws what is wrong, before anything is started. */
export async function settle(options: ServeOptions): Promise<Settings> {
  if (typeof options !== 'object' || options === null)
    throw invalidType('options', 'of type object', options);
  const count = checkInteger(
    'options.loops',
    options.loops ?? availableParallelism(),
    1,
    LOOPS_MAX,
  );
  const policy = checkPolicy(options.policy ?? 'round-robin');
  const accept = checkAccept(options);
  const backends = backendList(options.backend);
  const wakers = listOf<WakerName | undefined>(options.waker, [undefined]);
  const integer = (key: keyof ServeOptions, fallback: number, min: number, max: number) =>
    checkInteger(`options.${key}`, (options[key] as number | undefined) ?? fallback, min, max);
  const restart = options.restart ?? {};
  const worker = workerUrl(options.worker);
  const processors = await checkPin(options.pin, worker);
  return {
    worker,
    workerData: options.workerData,
    loops: Array.from({ length: count }, (_, loop) => {
      const backend = backends[loop % backends.length];
      const waker = chooseWaker(wakers[loop % wakers.length], backend);
      return { backend, waker, processor: processors?.[loop % processors.length] };
    }),
    listen: await listenList(options.listen),
    policy,
    peek: checkPeek(options.peek, policy),
    accept,
    maxConnections: integer('maxConnections', 65_536, 1, 2 ** 20),
    inboxSize: integer('inboxSize', 1_024, 1, INBOX_MAX),
    acceptBatch: integer('acceptBatch', 64, 1, 4_096),
    checkpointMax: integer('checkpointMax', 256, 0, 65_536),
    drainMs: integer('drainMs', 10_000, 0, 2 ** 31 - 1),
    watchdogMs: integer('watchdogMs', 0, 0, 2 ** 31 - 1),
    killMs: integer('killMs', 5_000, 1, 2 ** 31 - 1),
    restart: {
      max: checkInteger('options.restart.max', restart.max ?? 5, 0),
      within: checkInteger('options.restart.within', restart.within ?? 60_000, 1),
      backoff: checkInteger('options.restart.backoff', restart.backoff ?? 100, 0, 60_000),
    },
    rebalance: checkRebalance(options.rebalance),
    topics: checkTopicOptions(options.topics),
    resourceLimits: options.resourceLimits,
    execArgv: options.execArgv,
    env: options.env,
  };
}

function checkRebalance(value: ServeOptions['rebalance']): BalancerOptions | undefined {
  const rebalance = value ?? {};
  checkObject('options.rebalance', rebalance);
  const { auto = false, perSecond = 100, hysteresis = 0.25 } = rebalance;
  checkInteger('options.rebalance.perSecond', perSecond, 1, 1_000_000);
  if (typeof hysteresis !== 'number')
    throw invalidType('options.rebalance.hysteresis', 'of type number', hysteresis);
  if (!(hysteresis >= 0 && hysteresis <= 100))
    throw outOfRange('options.rebalance.hysteresis', '>= 0 && <= 100', hysteresis);
  return checkBoolean('options.rebalance.auto', auto) ? { perSecond, hysteresis } : undefined;
}

function listOf<T>(value: T | T[] | undefined, fallback: T[]): T[] {
  if (value === undefined) return fallback;
  const list = Array.isArray(value) ? value : [value];
  return list.length === 0 ? fallback : list;
}

function backendList(value: ServeOptions['backend']): BackendName[] {
  if (value === undefined) return [chooseBackend({}).name];
  const names = listOf<BackendName>(value, []);
  for (const name of names) checkOneOf('options.backend', name, BACKEND_NAMES);
  return names.map((name) => chooseBackend({ backend: name }).name);
}

async function listenList(value: ServeOptions['listen']): Promise<ListenOptions[]> {
  const list = listOf(value, [{ port: 0, host: '127.0.0.1' }]);
  for (const options of list) checkListenOptions(options);
  return Promise.all(
    list.map(async (options) =>
      options.host === undefined ? options : { ...options, host: await resolveHost(options.host) },
    ),
  );
}
