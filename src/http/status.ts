// Statuses and what they are called, and why a request is refused.

import { STATUS_CODES } from 'node:http';

export function reasonOf(status: number): string {
  return STATUS_CODES[status] ?? 'Unknown';
}

/** Whether an answer of this status never has a body (RFC 9110 section 6.4.1). */
export function isBodiless(status: number): boolean {
  return status < 200 || status === 204 || status === 304;
}

/** What is wrong with a request: the status that its sender is told, and a sentence. */
export interface Refusal {
  readonly status: number;
  readonly why: string;
}

export const refusal = (status: number, why: string): Refusal => ({ status, why });

export const Refusals = {
  METHOD: refusal(400, 'the method is not a token'),
  TARGET: refusal(400, 'the request target is malformed'),
  VERSION: refusal(400, 'the request line does not end with a version'),
  WRONG_VERSION: refusal(505, 'this server speaks HTTP/1.1 and HTTP/1.0'),
  LINE_END: refusal(400, 'a line does not end with CR LF'),
  LINE_TOO_LONG: refusal(414, 'the request line is too long'),
  HEADER_NAME: refusal(400, 'the name of a header is not a token followed by a colon'),
  FOLDED: refusal(400, 'a header is folded'),
  HEADER_VALUE: refusal(400, 'a header has a character that is not allowed'),
  HEADERS_TOO_LARGE: refusal(431, 'the headers are too large'),
  TOO_MANY_HEADERS: refusal(431, 'there are too many headers'),
  HOST: refusal(400, 'a request needs one Host header, with a host in it'),
  LENGTH: refusal(400, 'the Content-Length is not one number'),
  LENGTH_AND_CODING: refusal(400, 'a body has a Content-Length or a Transfer-Encoding, not both'),
  NOT_CHUNKED: refusal(400, 'the last Transfer-Encoding is not chunked'),
  OLD_AND_CODED: refusal(400, 'HTTP/1.0 has no Transfer-Encoding'),
  CODING: refusal(501, 'no Transfer-Encoding but chunked is known here'),
  CONNECT: refusal(501, 'this server is no proxy'),
  EXPECTATION: refusal(417, 'the only expectation that can be met is 100-continue'),
  BODY_TOO_LARGE: refusal(413, 'the body is too large'),
  CHUNK: refusal(400, 'a chunk of the body is malformed'),
  EXTENSIONS_TOO_LARGE: refusal(413, 'the extensions of the chunks are too large'),
  TRAILER: refusal(400, 'a trailer is malformed'),
  TRAILERS_TOO_LARGE: refusal(431, 'the trailers are too large'),
  LATE: refusal(408, 'the request did not come in time'),
  NO_ANSWER: refusal(503, 'there was no answer in time'),
  FAILED: refusal(500, 'the request could not be answered'),
} as const;
