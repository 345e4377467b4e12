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
  checkInteger,
  checkObject,
  checkOneOf,
  invalidType,
  invalidValue,
} from '../validate.js';

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

interface TlsOptions {
  /**
   * Who the peer's certificate must come from, as PEM. Of a client, Node's `tls.rootCertificates`
   * by default, 'system' for those of the operating system; of a server, nobody.
   */
  ca?: Bytes | Bytes[] | 'system';
  /** True unless said otherwise: the handshake fails without a certificate that is good. */
  rejectUnauthorized?: boolean;
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
}

/** All keys are PEM without a passphrase, all certificates PEM with the chain behind the first. */
export interface TlsServerOptions extends TlsOptions {
  cert: Bytes | Bytes[];
  /** As many as there are certificates, in the same order. */
  key: Bytes | Bytes[];
  /** By the name that a client asks for (SNI); `*.example.org` stands for one label. */
  contexts?: Record<string, { cert: Bytes | Bytes[]; key: Bytes | Bytes[] }>;
  /** The client is asked for a certificate. */
  requestCert?: boolean;
  /** For BufferEvent.socket(), where a certificate makes a server unless this is false. */
  isServer?: true;
}

export interface TlsClientOptions extends TlsOptions {
  /**
   * What the server is asked for (SNI), and whose certificate it has to show. By default the name
   * that is connected to; an address is not sent, and the certificate must be for it.
   */
  servername?: string;
  cert?: Bytes | Bytes[];
  key?: Bytes | Bytes[];
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
}

/** What a session is made with. */
export interface TlsPlan {
  context: number;
  serverName: string;
  identity: string;
  session: Uint8Array;
  timeoutMs: number;
}

const HANDSHAKE_MS = 10_000;
/** Contexts kept for streams to come; the one that was used longest ago goes. */
const CONTEXTS_KEPT_MAX = 32;
const ALPN_NAME_MAX = 255;
const ALPN_BYTES_MAX = 65_535;
/** Of a PEM text; OpenSSL takes its length as an int. */
const PEM_BYTES_MAX = 16 * 1024 * 1024;
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

/** A server's plan, with a context that is the caller's to free. */
export function planListener(name: string, options: TlsServerOptions): TlsPlan {
  return serverPlan(name, options, newContext);
}

/** What is done on a socket: a certificate makes a server unless `isServer` is false. */
export function planSocket(options: TlsServerOptions | TlsClientOptions): TlsPlan {
  const name = 'options.tls';
  checkObject(name, options);
  const { isServer } = options;
  if (isServer !== undefined) checkBoolean(`${name}.isServer`, isServer);
  if (isServer ?? (options.cert !== undefined && options.key !== undefined))
    return serverPlan(name, options as TlsServerOptions, keptContext);
  return planClient(options as TlsClientOptions, undefined);
}

/** `host`: the name or address that is connected to, if there is one. */
export function planClient(options: TlsClientOptions, host: string | undefined): TlsPlan {
  const name = 'options.tls';
  const settings = commonSettings(name, options, false);
  const { servername, session, cert, key } = options;
  if (servername !== undefined && typeof servername !== 'string')
    throw invalidType(`${name}.servername`, 'of type string', servername);
  if (servername?.includes('\0'))
    throw invalidValue(`${name}.servername`, 'must be a name', servername);
  if (session !== undefined) checkBytes(`${name}.session`, session);
  if ((cert === undefined) !== (key === undefined))
    throw invalidValue(name, 'must have both cert and key, or none of them', options);
  if (cert !== undefined && key !== undefined) Object.assign(settings, pairs(name, { cert, key }));
  const identity = servername || host || '';
  if (identity === '' && settings.rejectUnauthorized)
    throw invalidValue(
      `${name}.servername`,
      'must say whose certificate the peer has to show, where no host is connected to',
      servername,
    );
  const asked = servername ?? host ?? '';
  return {
    context: keptContext(name, settings, []),
    serverName: native.isIp(asked) === 0 ? asked : '',
    identity,
    session: session ?? NO_BYTES,
    timeoutMs: options.handshakeTimeout ?? HANDSHAKE_MS,
  };
}

/** A context for one of the names, `name` being what messages call it. */
interface Named {
  name: string;
  settings: TlsContextSettings;
}
type MakeContext = (name: string, settings: TlsContextSettings, named: Named[]) => number;

function serverPlan(name: string, options: TlsServerOptions, make: MakeContext): TlsPlan {
  const settings = commonSettings(name, options, true);
  const { contexts = {}, requestCert } = options;
  Object.assign(settings, pairs(name, options));
  if (requestCert !== undefined)
    settings.requestCertificate = checkBoolean(`${name}.requestCert`, requestCert);
  checkObject(`${name}.contexts`, contexts);
  const named = Object.entries(contexts).map(([pattern, files]) => {
    const at = `${name}.contexts['${pattern}']`;
    checkPattern(at, pattern);
    checkObject(at, files);
    return { name: at, settings: { ...settings, ...pairs(at, files) } };
  });
  settings.names = Object.keys(contexts);
  const context = make(name, settings, named);
  const timeoutMs = options.handshakeTimeout ?? HANDSHAKE_MS;
  return { context, serverName: '', identity: '', session: NO_BYTES, timeoutMs };
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
    names: [],
    contexts: [],
  };
}

function pem(name: string, value: unknown): Uint8Array {
  const bytes = checkBytes(name, value);
  if (bytes.length === 0 || bytes.length > PEM_BYTES_MAX)
    throw invalidValue(name, 'must be the text of a PEM file, not its name', value);
  return bytes;
}
function pems(name: string, value: unknown): Uint8Array[] {
  return Array.isArray(value)
    ? value.map((one, at) => pem(`${name}[${at}]`, one))
    : [pem(name, value)];
}

function pairs(name: string, { cert, key }: { cert: unknown; key: unknown }) {
  const [certificates, keys] = [pems(`${name}.cert`, cert), pems(`${name}.key`, key)];
  if (certificates.length !== keys.length || keys.length === 0)
    throw new MultiloopError(
      'ERR_TLS_CONFIG',
      `${name} has ${certificates.length} certificates and ${keys.length} keys; each certificate ` +
        'needs its key, at the same place of its list',
    );
  // Both forms have the word in their head: RFC 7468 section 11, and RFC 1421's Proc-Type.
  for (const one of keys)
    if (Buffer.from(one.buffer, one.byteOffset, one.length).includes('ENCRYPTED'))
      throw new MultiloopError(
        'ERR_TLS_CONFIG',
        `${name}.key has a passphrase, which nobody could be asked for; openssl pkey writes it ` +
          'without one',
      );
  return { certificates, keys };
}

/** Parsed once in a process for each context that has them. */
let roots: Uint8Array[] | undefined;
function authorities(name: string, ca: TlsOptions['ca'], server: boolean): Uint8Array[] {
  if (ca === 'system') return [readFileSync(systemRoots())];
  if (ca !== undefined) return pems(name, ca);
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

function newContext(name: string, settings: TlsContextSettings, named: Named[]): number {
  const contexts: number[] = [];
  try {
    for (const one of named) contexts.push(newContext(one.name, one.settings, []));
    const made = native.tlsContextNew({ ...settings, contexts });
    if (typeof made === 'string') throw new MultiloopError('ERR_TLS_CONFIG', `${name}: ${made}`);
    if (native.tlsContextExpired(made))
      process.emitWarning(`${name}.cert is not valid any more, and is used all the same`, {
        code: 'MULTILOOP_TLS_EXPIRED',
      });
    return made;
  } finally {
    // The context that they are for keeps them.
    for (const one of contexts) native.tlsContextFree(one);
  }
}

const kept = new Map<string, number>();

/** Streams with the same settings have one context; it is freed some time after the last. */
function keptContext(name: string, settings: TlsContextSettings, named: Named[]): number {
  const key = [settings, ...named.map((one) => one.settings)].map(keyOf).join('\n');
  const context = kept.get(key) ?? newContext(name, settings, named);
  // A Map is in the order of insertion: the first is the one that was used longest ago.
  kept.delete(key);
  kept.set(key, context);
  for (const [oldest, one] of kept) {
    if (kept.size <= CONTEXTS_KEPT_MAX) break;
    kept.delete(oldest);
    native.tlsContextFree(one);
  }
  return context;
}

function keyOf(settings: TlsContextSettings): string {
  const text = (list: Uint8Array[]) => list.map((bytes) => Buffer.from(bytes).toString('latin1'));
  return JSON.stringify({
    ...settings,
    certificates: text(settings.certificates),
    keys: text(settings.keys),
    authorities: settings.authorities === roots ? 'roots' : text(settings.authorities),
  });
}
