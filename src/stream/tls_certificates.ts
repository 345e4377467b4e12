// Certificates and their keys, given as bytes or as files. What is wrong with one is said of its
// file, and nothing is made of the others.

import { readFileSync } from 'node:fs';
import type { Bytes } from '../buffer/bytes.js';
import { MultiloopError } from '../errors.js';
import { checkBytes, invalidType, invalidValue } from '../validate.js';

/**
 * A certificate and its key; a list has several, of different kinds of key, in the same order. All
 * keys are PEM without a passphrase, all certificates PEM with the chain behind the first.
 */
export interface TlsCertificate {
  cert?: Bytes | Bytes[];
  key?: Bytes | Bytes[];
  /** Instead of `cert` and `key`: the files that they are in, read when the context is made. */
  certFile?: string | string[];
  keyFile?: string | string[];
  /**
   * An OCSP response in DER (RFC 6960), stapled for clients that ask for it; of a list one for each
   * certificate, an empty one for none. Whether it is for the certificate, and how old it is, is
   * for whoever fetches it.
   */
  ocspResponse?: Uint8Array | Uint8Array[];
  /** Instead of `ocspResponse`. */
  ocspFile?: string | string[];
}

/** What a context has of them, and the files that it came from. */
export interface LoadedCertificates {
  certificates: Uint8Array[];
  keys: Uint8Array[];
  ocsp: Uint8Array[];
}
export interface CertificateFiles {
  cert: string[];
  key: string[];
  ocsp: string[];
}

/** Of a PEM text or a response; OpenSSL takes its length as an int. */
const BYTES_MAX = 16 * 1024 * 1024;

const READ_ERRORS: Record<string, string> = {
  ENOENT: 'there is no such file',
  EACCES: 'it is not readable for this process',
  EISDIR: 'it is a folder',
};
/** Why a file was not read: by the error of the system call; else Node's words are as good. */
export function whyUnread(error: unknown): string {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return READ_ERRORS[code] ?? message;
}

/** The text of a PEM file. */
export function pem(name: string, value: unknown): Uint8Array {
  const bytes = checkBytes(name, value);
  if (bytes.length === 0 || bytes.length > BYTES_MAX)
    throw invalidValue(name, 'must be the text of a PEM file, not its name', value);
  return bytes;
}

function response(name: string, value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalidType(name, 'an instance of Uint8Array', value);
  if (value.length > BYTES_MAX)
    throw invalidValue(name, `must have at most ${BYTES_MAX} bytes`, value);
  return value;
}

function file(name: string, value: unknown): Uint8Array {
  checkPath(name, value);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(value);
  } catch (cause) {
    throw unusable(name, value, `it cannot be read: ${whyUnread(cause)}`, cause);
  }
  if (bytes.length === 0) throw unusable(name, value, 'it is empty');
  if (bytes.length > BYTES_MAX) throw unusable(name, value, `it has more than ${BYTES_MAX} bytes`);
  return bytes;
}

function unusable(name: string, path: string, why: string, cause?: unknown): MultiloopError {
  return new MultiloopError('ERR_TLS_CONFIG', `${name} ${path}: ${why}`, { cause });
}

/** A path of the file system. */
export function checkPath(name: string, value: unknown): asserts value is string {
  if (typeof value !== 'string') throw invalidType(name, 'of type string', value);
  if (value === '' || value.includes('\0'))
    throw invalidValue(name, 'must be the path of a file', value);
}

export function listOf<T>(name: string, value: unknown, one: (name: string, value: unknown) => T) {
  return Array.isArray(value)
    ? value.map((element, at) => one(`${name}[${at}]`, element))
    : [one(name, value)];
}

/** One kind of them, from wherever it is given. */
function load(
  name: string,
  from: TlsCertificate,
  [given, named]: [keyof TlsCertificate, keyof TlsCertificate],
  check: typeof pem,
): Uint8Array[] {
  if (from[named] === undefined) return listOf(`${name}.${given}`, from[given], check);
  if (from[given] !== undefined)
    throw invalidValue(`${name}.${named}`, `excludes ${given}`, from[named]);
  return listOf(`${name}.${named}`, from[named], file);
}

export function hasCertificate({ cert, key, certFile, keyFile }: TlsCertificate): boolean {
  return (cert ?? certFile) !== undefined && (key ?? keyFile) !== undefined;
}

export function loadCertificates(name: string, from: TlsCertificate): LoadedCertificates {
  const certificates = load(name, from, ['cert', 'certFile'], pem);
  const keys = load(name, from, ['key', 'keyFile'], pem);
  if (certificates.length !== keys.length || keys.length === 0)
    throw new MultiloopError(
      'ERR_TLS_CONFIG',
      `${name} has ${certificates.length} certificates and ${keys.length} keys; each certificate ` +
        'needs its key, at the same place of its list',
    );
  for (const [at, key] of keys.entries())
    if (hasPassphrase(key))
      throw new MultiloopError(
        'ERR_TLS_CONFIG',
        `${[from.keyFile ?? `${name}.key`].flat()[at] ?? `${name}.key`} ${HAS_PASSPHRASE}`,
      );
  if (from.ocspResponse === undefined && from.ocspFile === undefined)
    return { certificates, keys, ocsp: [] };
  const ocsp = load(name, from, ['ocspResponse', 'ocspFile'], response);
  if (ocsp.length > certificates.length)
    throw new MultiloopError(
      'ERR_TLS_CONFIG',
      `${name} has ${ocsp.length} OCSP responses and ${certificates.length} certificates`,
    );
  return { certificates, keys, ocsp };
}

export const HAS_PASSPHRASE =
  'has a passphrase, which nobody could be asked for; openssl pkey writes it without one';
/** Both forms have the word in their head: RFC 7468 section 11, and RFC 1421's Proc-Type. */
function hasPassphrase({ buffer, byteOffset, length }: Uint8Array): boolean {
  return Buffer.from(buffer, byteOffset, length).includes('ENCRYPTED');
}

/** The files that it is read from; of what is given as bytes none. */
export function filesOf({ certFile, keyFile, ocspFile }: TlsCertificate): CertificateFiles {
  const list = (files: string | string[] | undefined) =>
    files === undefined ? [] : [files].flat();
  return { cert: list(certFile), key: list(keyFile), ocsp: list(ocspFile) };
}

/** What OpenSSL says of a context (native/core/tls_context.cc), with the files that it is about. */
export function blame(made: string, { cert, key, ocsp }: CertificateFiles): string {
  const about = made.startsWith('the key is not')
    ? [...cert, ...key]
    : made.startsWith('the key')
      ? key
      : made.startsWith('the certificate')
        ? cert
        : made.startsWith('the OCSP')
          ? ocsp
          : [];
  return about.length === 0 ? made : `${about.join(', ')}: ${made}`;
}
