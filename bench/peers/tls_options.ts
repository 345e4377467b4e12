// What the servers of the bench `tls` are asked for on their command line, and their certificates.
// Imports nothing of multiloop.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export type Key = 'ecdsa' | 'rsa';
/** What a server does: echo; read and forget; or, once it is sent anything, send `bytes`. */
export type Role = 'echo' | 'sink' | 'source';

export interface Task {
  key: Key;
  role: Role;
  /** Of a source. */
  bytes: number;
}

/** All writes of a source but the last. */
export const PIECE = Buffer.alloc(64 * 1024, 'x');

const FILES = { ecdsa: ['localhost.pem', 'localhost-key.pem'], rsa: ['rsa.pem', 'rsa-key.pem'] };
const path = (file: string) => fileURLToPath(new URL(`../../../test/tls/${file}`, import.meta.url));

/** [certificate, key]: ECDSA P-256 or RSA 2048. */
export const filesOf = (key: Key): string[] => FILES[key].map(path);
export const authority = (): string => readFileSync(path('ca.pem'), 'utf8');

export function taskOf([key, role, bytes]: string[]): Task {
  return { key: key as Key, role: role as Role, bytes: Number(bytes) };
}
export function pairOf(key: Key): { cert: string; key: string } {
  const [certificate, secret] = filesOf(key).map((file) => readFileSync(file, 'utf8'));
  return { cert: certificate, key: secret };
}
