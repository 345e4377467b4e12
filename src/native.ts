// The one file that loads the addon, and what the addon offers. Everything here is internal:
// arguments have been validated, results are counts, ids or -errno, times are microseconds.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MultiloopError } from './errors.js';

/** What became of a message or a descriptor that was given to another loop. */
export const Delivery = { OK: 0, FULL: 1, GONE: 2, NOT_OWNER: 3 } as const;

export interface RawAddress {
  host?: string;
  port?: number;
  family?: 4 | 6;
  path?: string;
}

/** -errno, and the system call that answered it. */
export type Failure = [errno: number, syscall: string];

/** What a TLS context is made from (native/core/tls_context.h); every text is PEM or OpenSSL's. */
export interface TlsContextSettings {
  server: boolean;
  certificates: Uint8Array[];
  keys: Uint8Array[];
  authorities: Uint8Array[];
  versionMin: number;
  versionMax: number;
  ciphers: string;
  cipherSuites: string;
  groups: string;
  alpn: Uint8Array;
  requestCertificate: boolean;
  rejectUnauthorized: boolean;
  allowDirtyShutdown: boolean;
  names: string[];
  contexts: number[];
  /** DER; as many as there are certificates, or none; an empty one is none. */
  ocsp: Uint8Array[];
  /** Which function is asked for other names, so that contexts are told apart by it; 0: none. */
  asks: number;
  asksForNames: boolean;
  tickets: boolean;
  /** Milliseconds. */
  ticketRotation: number;
  /** Seconds. */
  sessionTimeout: number;
  ticketFile: string;
  /** The context whose ticket keys it goes on with, or 0. */
  ticketsOf: number;
  requestOcsp: boolean;
  keyLog: string;
}

/** What calls on a TLS session answer besides counts and -errno (native/core/tls_session.h). */
export const TlsCode = { FAILED: -20_001, TRUNCATED: -20_002, WANTS_OTHER: -20_003 } as const;
/** Of tlsRead: there may be more inside, of which the socket will not tell. */
export const TLS_MORE = 2 ** 24;

export interface Native {
  baseNew(backend: string, page: ArrayBuffer, waker: string): number;
  baseClose(base: number): void;
  baseRun(base: number, preferBase: boolean, dispatcher: () => void, resource: object): number;
  baseStop(base: number): void;
  baseDrive(base: number): number;
  baseSettle(base: number): void;
  basePoll(base: number, limit: number): number;
  baseTimeout(base: number): number;
  baseExpire(base: number): void;
  commonTimeout(base: number, micros: number): number;
  baseNow(base: number): number;
  baseIdle(base: number): number;
  baseUpdateTime(base: number): void;
  baseCheck(base: number): void;
  reportException(error: unknown): void;
  eventNew(base: number, fd: number, mask: number): number;
  eventAdd(base: number, event: number, timeout: number): number;
  eventDel(base: number, event: number): number;
  eventRemoveTimer(base: number, event: number): number;
  eventFree(base: number, event: number): number;
  eventRearm(base: number, event: number): number;
  eventBeginSignal(base: number, event: number): number;
  eventRef(base: number, event: number, ref: boolean): number;
  eventAlone(base: number, event: number): number;
  eventPending(base: number, event: number): number;
  eventRemaining(base: number, event: number): number;
  fdForget(base: number, fd: number): void;
  backends(): [name: string, features: number, status: number, emulated: boolean][];
  wakers(): [name: string, status: number, backend: string][];
  portable(): boolean;
  layout(): Record<string, number>;
  sysRead(fd: number, into: Uint8Array, offset: number, length: number): number;
  sysWrite(fd: number, from: Uint8Array, offset: number, length: number): number;
  sysShare(small: Uint8Array): void;
  sysReadSmall(fd: number, length: number): number;
  sysWriteSmall(fd: number, length: number): number;
  sysClose(fd: number): number;
  sysDup(fd: number): number;
  sysPipe(): [number, number] | number;
  sysSocketPair(): [number, number] | number;
  sockSendv(fd: number, chunks: Uint8Array[], first: number, offset: number): number;
  sockNonBlocking(fd: number): number;
  sockCloseOnExec(fd: number): number;
  sockKeepAlive(fd: number, seconds: number): number;
  sockShutdown(fd: number): number;
  sockError(fd: number): number;
  sockLocal(fd: number): RawAddress | undefined;
  sockPeer(fd: number): RawAddress | undefined;
  sockListen(
    kind: number,
    name: string,
    port: number,
    backlog: number,
    reusePort: boolean,
    ipv6Only: boolean,
    deferAccept: boolean,
  ): number | Failure;
  listenerAccept(listener: number): number;
  listenerPeer(): RawAddress | undefined;
  listenerAdopt(fd: number, backlog: number): 0 | string | Failure;
  listenerReserve(): number;
  listenerRefuse(listener: number, reserve: number, max: number): [count: number, reserve: number];
  datagramOpen(
    family: number,
    bind: Uint8Array,
    connect: Uint8Array,
    reuseAddress: boolean,
    reusePort: boolean,
    ipv6Only: number,
  ): number | Failure;
  datagramAdopt(fd: number): number | Failure;
  datagramOption(fd: number, family: number, option: number, value: number): number;
  datagramMembership(fd: number, group: Uint8Array, index: number, joined: boolean): number;
  datagramInterface(name: string): number;
  datagramPack(family: number, name: string, port: number, out: Uint8Array): number;
  datagramName(memory: Uint8Array, at: number, length: number): RawAddress | undefined;
  datagramReceive(
    fd: number,
    memory: Uint8Array,
    size: number,
    names: Uint8Array,
    records: Int32Array,
    max: number,
  ): number;
  datagramSend(
    fd: number,
    memory: Uint8Array,
    records: Int32Array,
    first: number,
    count: number,
  ): number;
  isIp(text: string): 0 | 4 | 6;
  slabShare(slab: Uint8Array): void;
  slabRecv(fd: number, offset: number, length: number): number;
  slabSend(fd: number, offset: number, length: number): number;
  sockSendPart(fd: number, from: Uint8Array, offset: number, length: number): number;
  sockPeek(fd: number, into: Uint8Array): number;
  sysReadv(fd: number, pieces: Uint8Array[]): number;
  sysWritev(fd: number, pieces: Uint8Array[]): number;
  sysPread(fd: number, into: Uint8Array, offset: number, length: number, position: number): number;
  sendFile(to: number, file: number, position: number, length: number): number;
  fileFolder(path: string): number;
  fileOpen(folder: number, path: string, links: boolean): number;
  fileClose(fd: number): number;
  fileFollows(): boolean;
  sockConnect(
    kind: number,
    name: string,
    port: number,
    localHost: string,
    localPort: number,
  ): number | [errno: number, syscall: string];
  sockType(fd: number): number;
  sockResetOnClose(fd: number): number;
  inboxNew(capacity: number, waker: string, parent: number): number;
  inboxFree(inbox: number): void;
  inboxAttach(base: number, inbox: number): number;
  inboxDetach(base: number): void;
  inboxAbandon(inbox: number): number;
  inboxRef(base: number, ref: boolean): void;
  inboxPost(from: number, to: number, bytes: Uint8Array): number;
  inboxTake(base: number, index: number): Buffer | undefined;
  inboxHandoff(connection: number, from: number, to: number): number;
  inboxWake(inbox: number): void;
  inboxStats(inbox: number, out: Float64Array): boolean;
  inboxAccepts(inbox: number, out: Float64Array): boolean;
  inboxShed(inbox: number, count: number): void;
  quotaNew(max: number): number;
  quotaFree(quota: number): void;
  topicsNew(bytes: number, messages: number, keptBytes: number, keptMessages: number): number;
  topicsFree(log: number): void;
  topicsAppend(
    log: number,
    from: number,
    bucket: number,
    flags: number,
    except: number,
    topic: string,
    payload: Uint8Array,
  ): boolean | number[];
  topicsJoin(log: number, inbox: number, join: boolean): void;
  topicsInterest(log: number, inbox: number, bucket: number, on: boolean): void;
  topicsRead(log: number, inbox: number, done: number): Buffer | number;
  topicsReplay(log: number, from: number, to: number): Buffer;
  topicsNote(log: number, inbox: number, connection: number, topic: string, on: boolean): void;
  topicsForget(log: number, connection: number): void;
  topicsUnderWay(log: number, connection: number, on: boolean): void;
  topicsAdopt(
    log: number,
    inbox: number,
    connection: number,
    position: number,
  ): [position: number, topics: string[]];
  topicsSizes(log: number): [entries: number, readers: number, connections: number];
  ledgerListen(fd: number, owner: number, listener: number, quota: number): number;
  ledgerPass(socket: number, from: number, to: number): number;
  ledgerUnlisten(socket: number, owner: number): boolean;
  ledgerReserve(socket: number): void;
  ledgerRefuse(socket: number, max: number): number;
  ledgerAccept(socket: number, owner: number, isLoop: boolean, out: Float64Array): number;
  inboxBoundaries(base: number, bytes: Uint8Array): void;
  ledgerCheckpoint(base: number, connection: number, bytes: Uint8Array): boolean;
  ledgerList(inboxes: Float64Array): Float64Array;
  inboxNumbers(inbox: number, boundaries: Uint8Array, bytes: Float64Array): void;
  inboxTimes(inbox: number, out: Float64Array): boolean;
  processors(): number[] | number;
  bindThread(processor: number): number;
  ledgerMove(
    base: number,
    connection: number,
    to: number,
    bytes: Uint8Array,
    rescued: boolean,
  ): number;
  ledgerOwner(connection: number): number;
  ledgerClose(base: number, connection: number, reset: boolean): boolean;
  ledgerPeer(connection: number): RawAddress | undefined;
  ledgerListener(connection: number): number;
  ledgerCount(): number;
  tlsUnavailable(): string | undefined;
  tlsContextNew(settings: TlsContextSettings): number | string;
  tlsContextExpired(context: number): boolean;
  tlsContextFree(context: number): void;
  tlsContextLearn(context: number, name: string, named: number): void;
  tlsContextProblem(context: number): string | undefined;
  tlsContextCount(): number;
  tlsOpen(
    base: number,
    connection: number,
    context: number,
    fd: number,
    serverName: string,
    identity: string,
    session: Uint8Array,
  ): number | string;
  tlsFree(session: number): void;
  tlsUnfinished(base: number, session: number): number;
  tlsHandshake(base: number, session: number): number;
  tlsAsked(base: number, session: number): string;
  tlsAnswer(base: number, session: number, context: number): boolean;
  tlsRead(base: number, session: number, offset: number, length: number): number;
  tlsWrite(
    base: number,
    session: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): number;
  tlsShutdown(base: number, session: number): number;
  tlsError(base: number, session: number): string;
  tlsFacts(
    base: number,
    session: number,
  ):
    | [
        protocol: string,
        cipher: string,
        servername: string,
        alpn: string,
        reused: boolean,
        unauthorized: string,
        certificate: Uint8Array | undefined,
        ocsp: Uint8Array | undefined,
      ]
    | undefined;
  tlsSession(base: number, session: number): Buffer | undefined;
  tlsUpdateKeys(base: number, session: number, request: boolean): number;
  /** One call of a session over memory; native/binding/tls_binding.cc says what is where. */
  tlsStep(
    base: number,
    session: number,
    moved: Uint32Array,
    step: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    flag: boolean,
    at: number,
    room: number,
    reply: number,
  ): number;
  tlsSessionCount(): number;
}

// From dist/src/native.js; the package's root holds package.json, build/ and prebuilds/.
const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** glibc tells its version in the process report; musl does not. */
function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report?.header?.glibcVersionRuntime === undefined;
}

/** MULTILOOP_ADDON is the path of another binary, in place of those: for tests and packagers. */
function candidates(): string[] {
  const instead = process.env.MULTILOOP_ADDON;
  if (instead !== undefined) return [resolve(instead)];
  const platform = `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
  return [
    join(root, 'build', 'Release', 'multiloop.node'),
    join(root, 'prebuilds', `${platform}.node`),
  ];
}

function load(): { native: Native; addonPath: string } {
  const require = createRequire(import.meta.url);
  const tried: string[] = [];
  let cause: unknown;
  for (const path of candidates()) {
    if (!existsSync(path)) {
      tried.push(`  ${path}: not there`);
      continue;
    }
    try {
      return { native: require(path) as Native, addonPath: path };
    } catch (error) {
      cause = error;
      tried.push(`  ${path}: ${(error as Error).message}`);
    }
  }
  throw new MultiloopError(
    'ERR_ADDON_LOAD',
    `The native part of multiloop could not be loaded. Tried:\n${tried.join('\n')}\n` +
      'To build it, install python3, make and g++ (Debian: apt-get install python3 make g++), ' +
      'then run:\n  npm rebuild multiloop\n' +
      'If your package manager blocks install scripts, allow this one first:\n' +
      '  npm install-scripts approve multiloop   (npm 11 and later)\n' +
      '  pnpm approve-builds                     (pnpm)\n' +
      'In a clone of the repository: npm run build',
    { cause },
  );
}

export const { native, addonPath } = load();
