// Why handshakes fail, as a fixed set, so that they can be counted in shared memory.

import { TlsCode } from '../native.js';

/**
 * 'not TLS': what came is another protocol, or garbage. 'no shared cipher': no version, cipher,
 * group or application protocol in common. 'bad certificate': the peer's is missing or not good, or
 * ours is not for the peer. 'timeout': not done within handshakeTimeout. 'peer gone': it closed or
 * reset the connection in the middle. 'unknown name': the name that was asked for was refused.
 */
export const HANDSHAKE_FAILURES = [
  'not TLS',
  'no shared cipher',
  'bad certificate',
  'timeout',
  'peer gone',
  'unknown name',
  'other',
] as const;
export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number];
export type HandshakeFailures = Record<HandshakeFailure, number>;

export function noHandshakeFailures(): HandshakeFailures {
  return Object.fromEntries(HANDSHAKE_FAILURES.map((reason) => [reason, 0])) as HandshakeFailures;
}
export function addHandshakeFailures(part: HandshakeFailures, to: HandshakeFailures): void {
  for (const reason of HANDSHAKE_FAILURES) to[reason] += part[reason];
}

/**
 * By the reasons of OpenSSL, as its ssl/ssl_err.c has them; 'sslv3 alert' and 'tlsv1 alert' begin
 * what a peer's alert is called, which names the reason too.
 */
const REASONS: readonly [RegExp, HandshakeFailure][] = [
  [/unrecognized name/, 'unknown name'],
  [/certificate|unknown ca|bad signature|decrypt error/, 'bad certificate'],
  [
    /^(http request|https proxy request|wrong version number|bad record type|record layer)/,
    'not TLS',
  ],
  [
    /^(packet length too long|unexpected message|length mismatch|record length|bad length)/,
    'not TLS',
  ],
  [
    /cipher|protocol version|unsupported protocol|version too low|version too high/,
    'no shared cipher',
  ],
  [/application protocol|alert handshake failure|key share|group|curve/, 'no shared cipher'],
];

/** `code` of a handshake that was not over its deadline; `reason`: OpenSSL's, where it has one. */
export function whyHandshakeFailed(code: number, reason: string): HandshakeFailure {
  if (code > TlsCode.FAILED || code === TlsCode.TRUNCATED) return 'peer gone';
  return REASONS.find(([pattern]) => pattern.test(reason))?.[1] ?? 'other';
}
