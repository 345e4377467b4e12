// permessage-deflate (RFC 7692) without context takeover, both ways: every message is compressed
// for itself, so there is no window that a connection would have to take along when it moves.

import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';

/** What a message compressed with a flush ends with, and the sender leaves out (section 7.2.1). */
const TAIL = Buffer.from([0, 0, 0xff, 0xff]);
const FLUSH = { finishFlush: constants.Z_SYNC_FLUSH };
/** Offers of one handshake that are looked at. */
const OFFERS_MAX = 16;

/** What the client asks for, and the server's answer to anything that it accepts. */
export const DEFLATE = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';

/** The server: whether one of the client's offers can be met. */
export function acceptsDeflate(header: string): boolean {
  return header.split(',', OFFERS_MAX).some((offer) => {
    const parameters = parametersOf(offer);
    if (parameters === undefined) return false;
    for (const [name, value] of parameters) {
      if (name.endsWith('_no_context_takeover')) {
        if (!NO_CONTEXT.has(name) || value !== undefined) return false;
      } else if (name === 'client_max_window_bits') {
        if (value !== undefined && !isBits(value)) return false;
      } else if (name !== 'server_max_window_bits' || value !== '15') return false;
    }
    return true;
  });
}

/** The client: whether the server's answer is one to what was offered. */
export function isDeflateAnswer(header: string): boolean {
  const parameters = parametersOf(header);
  if (parameters === undefined || !parameters.has('server_no_context_takeover')) return false;
  for (const [name, value] of parameters) {
    if (NO_CONTEXT.has(name) && value === undefined) continue;
    if (name === 'server_max_window_bits' && isBits(value)) continue;
    return false;
  }
  return true;
}

const NO_CONTEXT = new Set(['server_no_context_takeover', 'client_no_context_takeover']);
const isBits = (value: string | undefined): boolean => /^([89]|1[0-5])$/.test(value ?? '');

/** Undefined: another extension, or a parameter that comes twice. */
function parametersOf(offer: string): Map<string, string | undefined> | undefined {
  const [name, ...rest] = offer.split(';').map((one) => one.trim());
  if (name.toLowerCase() !== 'permessage-deflate') return undefined;
  const parameters = new Map<string, string | undefined>();
  for (const one of rest) {
    const mark = one.indexOf('=');
    const key = (mark < 0 ? one : one.slice(0, mark)).trim().toLowerCase();
    if (parameters.has(key)) return undefined;
    const value = mark < 0 ? undefined : one.slice(mark + 1).trim();
    parameters.set(key, value?.replace(/^"(.*)"$/, '$1'));
  }
  return parameters;
}

export function deflateMessage(bytes: Uint8Array): Uint8Array {
  const whole = deflateRawSync(bytes, FLUSH);
  return whole.subarray(0, whole.length - TAIL.length);
}

/** 'large': more than `most` bytes. 'bad': it is no deflate data. */
export function inflateMessage(bytes: Uint8Array, most: number): Buffer | 'large' | 'bad' {
  try {
    return inflateRawSync(Buffer.concat([bytes, TAIL]), {
      ...FLUSH,
      maxOutputLength: Math.max(1, most),
    });
  } catch (error) {
    return (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE' ? 'large' : 'bad';
  }
}
