// `multiloop serve --tls-cert --tls-key`: what is in the files, checked one by one, so that a
// message can say which of them is wrong and how.

import type { KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { TlsServerOptions } from '../index.js';
import { HAS_PASSPHRASE, whyUnread } from '../stream/tls_certificates.js';
import { checkTls } from '../stream/tls_options.js';
import { type Given, UsageError } from './args.js';
import { Failure } from './failure.js';
import { complain } from './terminal.js';

export interface TlsFiles {
  cert: string;
  key: string;
  watch: boolean;
}

/** Undefined without TLS; one of the two alone is a mistake. */
export function tlsFiles(flags: {
  'tls-cert'?: Given<string>;
  'tls-key'?: Given<string>;
  'tls-watch'?: Given<boolean>;
}): TlsFiles | undefined {
  const { 'tls-cert': cert, 'tls-key': key, 'tls-watch': watch } = flags;
  if (cert === undefined && key === undefined) {
    if (watch?.value === true)
      throw new UsageError(`${watch.source} needs --tls-cert and --tls-key, the files to watch`);
    return undefined;
  }
  if (key === undefined)
    throw new UsageError(`${cert?.source} needs --tls-key too, the file of its private key`);
  if (cert === undefined)
    throw new UsageError(`${key.source} needs --tls-cert too, the file of its certificate`);
  return { cert: cert.value, key: key.value, watch: watch?.value === true };
}

/** Throws a Failure that names the file; says on stderr when the certificate is out of date. */
export async function readTls(files: TlsFiles): Promise<TlsServerOptions> {
  checkTls();
  const crypto = await import('node:crypto');
  const [cert, key] = await Promise.all([
    readPem('certificate', '--tls-cert', files.cert),
    readPem('key', '--tls-key', files.key),
  ]);
  let first: X509Certificate;
  try {
    first = new crypto.X509Certificate(cert);
  } catch (error) {
    throw new Failure(`${files.cert} is no certificate in PEM: ${(error as Error).message}`);
  }
  let secret: KeyObject;
  try {
    secret = crypto.createPrivateKey(key);
  } catch (error) {
    throw new Failure(
      key.includes('ENCRYPTED')
        ? `${files.key} ${HAS_PASSPHRASE}`
        : `${files.key} is no private key in PEM: ${(error as Error).message}`,
    );
  }
  if (!first.checkPrivateKey(secret))
    throw new Failure(`the key in ${files.key} is not that of the certificate in ${files.cert}`);
  if (Date.parse(first.validTo) < Date.now())
    complain(`the certificate in ${files.cert} has expired: ${first.validTo}`);
  if (files.watch) return { certFile: files.cert, keyFile: files.key, watch: true };
  return { cert, key };
}

async function readPem(what: string, flag: string, file: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(file, 'latin1');
  } catch (error) {
    throw new Failure(`the ${what} cannot be read: ${file}: ${whyUnread(error)}`);
  }
  if (!text.includes('-----BEGIN '))
    throw new Failure(`${file} is no PEM, which begins with -----BEGIN; ${flag} takes PEM only`);
  return text;
}
