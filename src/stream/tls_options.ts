// What TLS is asked for, checked, and the context that is made of it. Contexts are the process's
// (native/core/tls_context.h); those of streams are kept by what they were made of, since parsing
// the roots alone takes longer than a handshake.

import { existsSync, readFileSync } from 'node:fs';
import type { Bytes } from '../buffer/bytes.js';
import { MultiloopError } from '../errors.js';
import { native, type TlsContextSettings } from '../native.js';
import {
  checkBoolean,
  checkBytes,
  checkFunction,
  checkInteger,
  checkObject,
  checkOneOf,
  invalidType,
  invalidValue,
} from '../validate.js';
import {
  blame,
  type CertificateFiles,
  checkPath,
  filesOf,
  hasCertificate,
  listOf,
  loadCertificates,
  pem,
  type TlsCertificate,
} from './tls_certificates.js';

export type { TlsCertificate };

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

interface TlsOptions {
  /**
   * Who the peer's certificate must come from, as PEM. Of a client, Node's `tls.rootCertificates`
   * by default, 'system' for those of the operating system; of a server, nobody.
   */
  ca?: Bytes | Bytes[] | 'system';
  /** True unless said otherwise: the handshake fails without a certificate that is good. */
  rejectUnauthorized?: boolean;
  /**
   * A peer that ends without a close_notify, as some do, has ended (`eof`), and it is not known
   * whether it meant to: only for protocols that tell the end themselves. An end that cuts a record
   * stays ERR_TLS_TRUNCATED. False by default.
   */
  allowDirtyShutdown?: boolean;
  /** The most wanted first. Nothing in common ends the handshake (RFC 7301). */
  ALPNProtocols?: string[];
  /** TLS 1.2 by default. */
  minVersion?: TlsVersion;
  /** TLS 1.3 by default. */
  maxVersion?: TlsVersion;
  /** OpenSSL's names, with colons between them; those of TLS 1.3 begin with TLS_. */
  ciphers?: string;
  /** OpenSSL's names of groups for the key exchange, with colons between them. */
  groups?: string;
  /** Milliseconds until the handshake must be done: 10,000. */
  handshakeTimeout?: number;
  /**
   * A file that the secrets of all sessions are appended to, in NSS's key log format: who has it
   * can read what is said. True: the file that SSLKEYLOGFILE names. Not at all by default.
   */
  keylog?: string | boolean;
}

/**
 * The certificate for a name that neither `contexts` nor an earlier answer has, or a promise of it;
 * undefined for the default one. The name is in lower case, without a dot at its end. What it
 * throws refuses the handshake with the alert unrecognized_name.
 */
export type SniCallback = (
  servername: string,
) => TlsCertificate | undefined | Promise<TlsCertificate | undefined>;

export interface TlsServerOptions extends TlsOptions, TlsCertificate {
  /** By the name that a client asks for (SNI); `*.example.org` stands for one label. */
  contexts?: Record<string, TlsCertificate>;
  /**
   * Asked for other names, while the handshake waits, within its handshakeTimeout. In serve() it
   * runs on the thread that called that, once for all who wait for a name, and its answer is kept,
   * up to 512 names, until setTls(); elsewhere it is called each time.
   */
  SNICallback?: SniCallback;
  /**
   * In serve(): the files are watched, and when they have changed the listener has another context,
   * as by setTls(). Files that cannot be used then are an 'error' of the group, once, and the old
   * context stays.
   */
  watch?: boolean;
  /** The client is asked for a certificate. */
  requestCert?: boolean;
  /** False: no session tickets, so no session is resumed. */
  tickets?: boolean;
  /** Milliseconds until tickets get another key: 12 hours. Old ones are good until they expire. */
  ticketRotation?: number;
  /**
   * A file for the keys of the tickets, so that processes of one user on this machine resume each
   * other's sessions. It is made with mode 0600; who finds its newest key too old replaces it.
   */
  ticketFile?: string;
  /** Seconds in which a session may be resumed: 7,200; at most 604,800 (RFC 8446). */
  sessionTimeout?: number;
  /** For BufferEvent.socket(), where a certificate makes a server unless this is false. */
  isServer?: true;
}

export interface TlsClientOptions extends TlsOptions {
  /**
   * What the server is asked for (SNI), and whose certificate it has to show. By default the name
   * that is connected to; an address is not sent, and the certificate must be for it.
   */
  servername?: string;
  /** What this client shows when it is asked for a certificate. */
  cert?: Bytes | Bytes[];
  key?: Bytes | Bytes[];
  certFile?: string | string[];
  keyFile?: string | string[];
  /** Asks the server for an OCSP response; it is in `tls.ocspResponse`, and for you to check. */
  requestOCSP?: boolean;
  /** What `tlsSession` of an earlier stream was, to resume it. */
  session?: Uint8Array;
  isServer?: false;
}

/** Of a stream whose handshake is done. */
export interface TlsInfo {
  /** 'TLSv1.2' or 'TLSv1.3'. */
  protocol: string;
  /** OpenSSL's name. */
  cipher: string;
  servername?: string;
  alpn?: string;
  /** An earlier session was resumed. */
  reused: boolean;
  /** The peer has shown a certificate, and it is good. */
  authorized: boolean;
  authorizationError?: string;
  /** DER. */
  peerCertificate?: Uint8Array;
  /** Of a client: what the server has stapled, DER. */
  ocspResponse?: Uint8Array;
}

/** What a session is made with. */
export interface TlsPlan {
  context: number;
  serverName: string;
  identity: string;
  session: Uint8Array;
  timeoutMs: number;
  /** Of a stream: the context for a name that it waits for; 0: the one that it has. */
  ask?: NameContext;
}
export type NameContext = (servername: string) => Promise<number>;

/** What a group has of a listener with TLS. */
export interface TlsListenerPlan {
  /** For the loops. */
  plan: TlsPlan;
  /** Makes a context for a name, which is the caller's to free. */
  ask: NameContext | undefined;
}

const HANDSHAKE_MS = 10_000;
/** Contexts kept for streams to come; the one that was used longest ago goes. */
const CONTEXTS_KEPT_MAX = 32;
const ALPN_NAME_MAX = 255;
const ALPN_BYTES_MAX = 65_535;
const TICKET_ROTATION_MS = 12 * 3_600 * 1_000;
const SESSION_SECONDS = 7_200;
/** RFC 8446 section 4.6.1. */
const SESSION_SECONDS_MAX = 604_800;
const NO_BYTES = Buffer.alloc(0);
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
/** In OpenSSL's ssl.h: TLS1_2_VERSION, TLS1_3_VERSION. */
const VERSION_NUMBERS = { 'TLSv1.2': 0x0303, 'TLSv1.3': 0x0304 };
/**
 * Of TLS 1.2 those with forward secrecy and authenticated encryption, which is what RFC 9325
 * section 4.2 recommends; TLS 1.3 has no others.
 */
const CIPHERS = ['ECDHE', 'DHE']
  .flatMap((exchange) => ['AESGCM', 'CHACHA20'].map((cipher) => `${exchange}+${cipher}`))
  .join(':');
/** Where systems have their roots: Debian, Fedora, SUSE, Alpine and the BSDs. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Throws ERR_TLS_UNAVAILABLE, with the reason, where there is no TLS. */
export function checkTls(): void {
  const why = native.tlsUnavailable();
  if (why !== undefined) throw new MultiloopError('ERR_TLS_UNAVAILABLE', `There is no TLS: ${why}`);
}

/**
 * A server's plan, with a context that is the caller's to free; `before` is the context that it
 * replaces, whose ticket keys it goes on with.
 */
export function planListener(name: string, options: TlsServerOptions, before = 0): TlsListenerPlan {
  const { ask, ...plan } = serverPlan(name, options, newContext, before);
  return { plan, ask };
}

/** The files whose change is to be noticed. */
export function watchedFiles(name: string, options: TlsServerOptions): string[] {
  checkObject(name, options);
  if (!checkBoolean(`${name}.watch`, options.watch ?? false)) return [];
  const { contexts = {} } = options;
  checkObject(`${name}.contexts`, contexts);
  const all = [options, ...Object.values(contexts)].map(filesOf);
  const files = all.flatMap(({ cert, key, ocsp }) => [...cert, ...key, ...ocsp]);
  if (files.length === 0)
    throw invalidValue(`${name}.watch`, 'needs files: certFile, keyFile', options);
  for (const file of files) checkPath(`${name}.certFile`, file);
  return [...new Set(files)];
}

/** A plan, and what the options that it was made of said then. */
interface PlanMade {
  plan: TlsPlan;
  said: Map<string, unknown>;
}
const plans = new WeakMap<object, PlanMade>();

/**
 * What is done on a socket: a certificate makes a server unless `isServer` is false. A server gives
 * the same options to each of its streams: they are checked once, as long as they say the same.
 */
export function planSocket(options: TlsServerOptions | TlsClientOptions): TlsPlan {
  checkObject('options.tls', options);
  const made = plans.get(options);
  if (made !== undefined && saysStill(options, made.said) && usedAgain(made.plan.context))
    return made.plan;
  const plan = planNewSocket(options);
  const said = Object.entries(options).map(([key, value]) => [key, copyOf(value)] as const);
  if (said.every(([key, value]) => isWhole(key, value)))
    plans.set(options, { plan, said: new Map(said) });
  return plan;
}
/** Of an option that says all by itself; undefined of an object, which is not looked into. */
function copyOf(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(copyOf);
  return typeof value === 'object' ? undefined : value;
}
/** Has nothing from a file or the environment, and no object. */
function isWhole(key: string, value: unknown): boolean {
  if (key.endsWith('File') || (key === 'keylog' && value === true)) return false;
  if (key === 'ca' && value === 'system') return false;
  return value !== undefined && !(Array.isArray(value) && value.includes(undefined));
}
function saysStill(options: object, said: Map<string, unknown>): boolean {
  let count = 0;
  for (const [key, value] of Object.entries(options)) {
    if (!sameValue(said.get(key), value)) return false;
    count++;
  }
  return count === said.size;
}
function sameValue(copy: unknown, value: unknown): boolean {
  if (copy instanceof Uint8Array) return value instanceof Uint8Array && sameBytes(copy, value);
  if (!Array.isArray(copy)) return copy === value;
  if (!Array.isArray(value) || value.length !== copy.length) return false;
  return copy.every((one, at) => sameValue(one, value[at]));
}
const sameBytes = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

function planNewSocket(options: TlsServerOptions | TlsClientOptions): TlsPlan {
  const name = 'options.tls';
  const { isServer } = options;
  if (isServer !== undefined) checkBoolean(`${name}.isServer`, isServer);
  if ((options as TlsServerOptions).watch !== undefined)
    throw invalidValue(`${name}.watch`, 'is of serve(), which replaces contexts', options);
  if (isServer ?? hasCertificate(options))
    return serverPlan(name, options as TlsServerOptions, keptContext, 0);
  return planClient(options as TlsClientOptions, undefined);
}

/** `host`: the name or address that is connected to, if there is one. */
export function planClient(options: TlsClientOptions, host: string | undefined): TlsPlan {
  const name = 'options.tls';
  const settings = commonSettings(name, options, false);
  const { servername, session, requestOCSP = false } = options;
  if (servername !== undefined && typeof servername !== 'string')
    throw invalidType(`${name}.servername`, 'of type string', servername);
  if (servername?.includes('\0'))
    throw invalidValue(`${name}.servername`, 'must be a name', servername);
  if (session !== undefined) checkBytes(`${name}.session`, session);
  settings.requestOcsp = checkBoolean(`${name}.requestOCSP`, requestOCSP);
  if (hasCertificate(options)) Object.assign(settings, loadCertificates(name, options));
  else if ((options.cert ?? options.key ?? options.certFile ?? options.keyFile) !== undefined)
    throw invalidValue(name, 'must have both cert and key, or none of them', options);
  const identity = servername || host || '';
  if (identity === '' && settings.rejectUnauthorized)
    throw invalidValue(
      `${name}.servername`,
      'must say whose certificate the peer has to show, where no host is connected to',
      servername,
    );
  const asked = servername ?? host ?? '';
  return {
    context: keptContext({ name, settings, files: filesOf(options) }, []),
    serverName: native.isIp(asked) === 0 ? asked : '',
    identity,
    session: session ?? NO_BYTES,
    timeoutMs: options.handshakeTimeout ?? HANDSHAKE_MS,
  };
}

/** What a context is made of, `name` being what messages call it. */
interface Recipe {
  name: string;
  settings: TlsContextSettings;
  files: CertificateFiles;
}
type MakeContext = (recipe: Recipe, named: Recipe[]) => number;

function serverPlan(
  name: string,
  options: TlsServerOptions,
  make: MakeContext,
  before: number,
): TlsPlan {
  const settings = commonSettings(name, options, true);
  const { contexts = {}, requestCert, SNICallback } = options;
  if (requestCert !== undefined)
    settings.requestCertificate = checkBoolean(`${name}.requestCert`, requestCert);
  // For sessions those of the context that they begin with count.
  const forNames = { ...settings, tickets: false };
  setTickets(name, settings, options);
  settings.ticketsOf = before;
  Object.assign(settings, loadCertificates(name, options));
  checkObject(`${name}.contexts`, contexts);
  const recipe = (at: string, certificate: TlsCertificate): Recipe => {
    checkObject(at, certificate);
    const files = filesOf(certificate);
    return { name: at, settings: { ...forNames, ...loadCertificates(at, certificate) }, files };
  };
  const named = Object.entries(contexts).map(([pattern, certificate]) => {
    const at = `${name}.contexts['${pattern}']`;
    checkPattern(at, pattern);
    return recipe(at, certificate);
  });
  settings.names = Object.keys(contexts);
  let ask: NameContext | undefined;
  if (SNICallback !== undefined) {
    checkFunction(`${name}.SNICallback`, SNICallback);
    settings.asksForNames = true;
    settings.asks = numberOf(SNICallback);
    ask = async (servername) => {
      const answer = await SNICallback(servername);
      if (answer === undefined) return 0;
      return make(recipe(`${name}.SNICallback('${servername}')`, answer), []);
    };
  }
  const context = make({ name, settings, files: filesOf(options) }, named);
  const timeoutMs = options.handshakeTimeout ?? HANDSHAKE_MS;
  return { context, serverName: '', identity: '', session: NO_BYTES, timeoutMs, ask };
}

/** A function, as a number of this thread. */
const numbers = new WeakMap<SniCallback, number>();
let lastNumber = 0;
function numberOf(callback: SniCallback): number {
  const number = numbers.get(callback) ?? ++lastNumber;
  numbers.set(callback, number);
  return number;
}

function setTickets(name: string, settings: TlsContextSettings, options: TlsServerOptions): void {
  const { tickets = true, ticketFile, ticketRotation = TICKET_ROTATION_MS } = options;
  const { sessionTimeout = SESSION_SECONDS } = options;
  settings.tickets = checkBoolean(`${name}.tickets`, tickets);
  settings.ticketRotation = checkInteger(
    `${name}.ticketRotation`,
    ticketRotation,
    1_000,
    2 ** 31 - 1,
  );
  settings.sessionTimeout = checkInteger(
    `${name}.sessionTimeout`,
    sessionTimeout,
    1,
    SESSION_SECONDS_MAX,
  );
  if (ticketFile === undefined) return;
  checkPath(`${name}.ticketFile`, ticketFile);
  if (!tickets) throw invalidValue(`${name}.ticketFile`, 'needs tickets', ticketFile);
  settings.ticketFile = ticketFile;
}

function keyLogFile(name: string, keylog: unknown): string {
  if (typeof keylog === 'string') checkPath(name, keylog);
  else if (!checkBoolean(name, keylog)) return '';
  const file = keylog === true ? process.env.SSLKEYLOGFILE : (keylog as string);
  if (file !== undefined && file !== '') return file;
  throw new MultiloopError(
    'ERR_TLS_CONFIG',
    `${name} is true, and the environment has no SSLKEYLOGFILE`,
  );
}

function checkPattern(name: string, pattern: string): void {
  const labels = pattern.replace(/^\*\./, '');
  if (labels === '' || labels.includes('*') || labels.includes('\0'))
    throw invalidValue(
      name,
      'must be for a name; a star is a whole first label, *.example.org',
      pattern,
    );
}

function commonSettings(name: string, options: TlsOptions, server: boolean): TlsContextSettings {
  checkTls();
  checkObject(name, options);
  const { ca, rejectUnauthorized = true, ALPNProtocols = [], handshakeTimeout } = options;
  const { minVersion = 'TLSv1.2', maxVersion = 'TLSv1.3', ciphers, groups } = options;
  const { keylog = false, allowDirtyShutdown = false } = options;
  checkBoolean(`${name}.allowDirtyShutdown`, allowDirtyShutdown);
  checkBoolean(`${name}.rejectUnauthorized`, rejectUnauthorized);
  checkOneOf(`${name}.minVersion`, minVersion, VERSIONS);
  checkOneOf(`${name}.maxVersion`, maxVersion, VERSIONS);
  if (VERSION_NUMBERS[minVersion] > VERSION_NUMBERS[maxVersion])
    throw invalidValue(`${name}.minVersion`, `must not be above ${maxVersion}`, minVersion);
  for (const [key, text] of Object.entries({ ciphers, groups }))
    if (text !== undefined && typeof text !== 'string')
      throw invalidType(`${name}.${key}`, 'of type string', text);
  if (handshakeTimeout !== undefined)
    checkInteger(`${name}.handshakeTimeout`, handshakeTimeout, 1, 2 ** 31 - 1);
  const named = (ciphers ?? '').split(':').filter((one) => one !== '');
  const suites = named.filter((one) => one.startsWith('TLS_'));
  const others = named.filter((one) => !one.startsWith('TLS_'));
  return {
    server,
    certificates: [],
    keys: [],
    authorities: authorities(`${name}.ca`, ca, server),
    versionMin: VERSION_NUMBERS[minVersion],
    versionMax: VERSION_NUMBERS[maxVersion],
    ciphers: others.length > 0 ? others.join(':') : CIPHERS,
    cipherSuites: suites.join(':'),
    groups: groups ?? '',
    alpn: alpnBytes(`${name}.ALPNProtocols`, ALPNProtocols),
    requestCertificate: false,
    rejectUnauthorized,
    allowDirtyShutdown,
    names: [],
    contexts: [],
    ocsp: [],
    asks: 0,
    asksForNames: false,
    tickets: false,
    ticketRotation: TICKET_ROTATION_MS,
    sessionTimeout: SESSION_SECONDS,
    ticketFile: '',
    ticketsOf: 0,
    requestOcsp: false,
    keyLog: keyLogFile(`${name}.keylog`, keylog),
  };
}

/** Parsed once in a process for each context that has them. */
let roots: Uint8Array[] | undefined;
function authorities(name: string, ca: TlsOptions['ca'], server: boolean): Uint8Array[] {
  if (ca === 'system') return [readFileSync(systemRoots())];
  if (ca !== undefined) return listOf(name, ca, pem);
  if (server) return [];
  roots ??= [Buffer.from(process.getBuiltinModule('node:tls').rootCertificates.join('\n'))];
  return roots;
}
function systemRoots(): string {
  const instead = process.env.SSL_CERT_FILE;
  const found = (instead === undefined ? SYSTEM_ROOTS : [instead]).find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw new MultiloopError(
    'ERR_TLS_CONFIG',
    `This system has no roots at ${SYSTEM_ROOTS.join(', ')}; SSL_CERT_FILE may name the file`,
  );
}

function alpnBytes(name: string, protocols: unknown): Uint8Array {
  if (!Array.isArray(protocols)) throw invalidType(name, 'an instance of Array', protocols);
  const parts = protocols.map((one, at) => {
    if (typeof one !== 'string') throw invalidType(`${name}[${at}]`, 'of type string', one);
    const bytes = Buffer.from(one);
    if (bytes.length === 0 || bytes.length > ALPN_NAME_MAX)
      throw invalidValue(`${name}[${at}]`, `must have 1 to ${ALPN_NAME_MAX} bytes`, one);
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  });
  const all = Buffer.concat(parts);
  if (all.length > ALPN_BYTES_MAX)
    throw invalidValue(name, `must have ${ALPN_BYTES_MAX} bytes in all`, protocols);
  return all;
}

// ── contexts ──

function newContext({ name, settings, files }: Recipe, named: Recipe[]): number {
  const contexts: number[] = [];
  try {
    for (const one of named) contexts.push(newContext(one, []));
    const made = native.tlsContextNew({ ...settings, contexts });
    if (typeof made === 'string')
      throw new MultiloopError('ERR_TLS_CONFIG', `${name}: ${blame(made, files)}`);
    const { cert } = files;
    const which = cert.length === 0 ? `${name}.cert` : `${name}.certFile ${cert.join(', ')}`;
    if (native.tlsContextExpired(made))
      process.emitWarning(`${which} is not valid any more, and is used all the same`, {
        code: 'MULTILOOP_TLS_EXPIRED',
      });
    return made;
  } finally {
    // The context that they are for keeps them.
    for (const one of contexts) native.tlsContextFree(one);
  }
}

const kept = new Map<string, number>();
/** What a context is kept under. */
const keys = new Map<number, string>();

/** Streams with the same settings have one context; it is freed some time after the last. */
function keptContext(recipe: Recipe, named: Recipe[]): number {
  const key = [recipe, ...named].map(({ settings }) => keyOf(settings)).join('\n');
  const context = kept.get(key) ?? newContext(recipe, named);
  keys.set(context, key);
  usedAgain(context);
  for (const [oldest, one] of kept) {
    if (kept.size <= CONTEXTS_KEPT_MAX) break;
    kept.delete(oldest);
    keys.delete(one);
    native.tlsContextFree(one);
  }
  return context;
}
/** Whether the context is still kept: then it goes after all others. */
function usedAgain(context: number): boolean {
  const key = keys.get(context);
  if (key === undefined) return false;
  // A Map is in the order of insertion: the first is the one that was used longest ago.
  kept.delete(key);
  kept.set(key, context);
  return true;
}

function keyOf(settings: TlsContextSettings): string {
  const text = (list: Uint8Array[]) => list.map((bytes) => Buffer.from(bytes).toString('latin1'));
  return JSON.stringify({
    ...settings,
    certificates: text(settings.certificates),
    keys: text(settings.keys),
    ocsp: text(settings.ocsp),
    authorities: settings.authorities === roots ? 'roots' : text(settings.authorities),
  });
}
