// Every error that multiloop itself raises: what happened, to what, and what to do about it, with
// a code to switch on. Failures of the kernel keep the shape Node gives them.

import { getSystemErrorMap } from 'node:util';

/** Codes of multiloop's own errors; the table in the README says when each one is raised. */
export type ErrorCode =
  | 'ERR_ADDON_LOAD'
  | 'ERR_BACKEND_UNAVAILABLE'
  | 'ERR_WAKER_UNAVAILABLE'
  | 'ERR_BASE_CLOSED'
  | 'ERR_EVENT_FREED'
  | 'ERR_LOOP_REENTERED'
  | 'ERR_DRIVE_TAKEN'
  | 'ERR_BAD_MASK'
  | 'ERR_FD_OWNED'
  | 'ERR_HTTP_ABORTED'
  | 'ERR_HTTP_ANSWER'
  | 'ERR_HTTP_ANSWER_TOO_LARGE'
  | 'ERR_HTTP_ANSWERED'
  | 'ERR_HTTP_BODY_USED'
  | 'ERR_HTTP_CLIENT_CLOSED'
  | 'ERR_HTTP_LENGTH'
  | 'ERR_HTTP_NO_ANSWER'
  | 'ERR_HTTP_OUTPUT_FULL'
  | 'ERR_HTTP_QUEUE_FULL'
  | 'ERR_HTTP_REFUSED'
  | 'ERR_HTTP_TIMEOUT'
  | 'ERR_INBOX_FULL'
  | 'ERR_POLICY'
  | 'ERR_PEEK'
  | 'ERR_RELOAD_FAILED'
  | 'ERR_RELOAD_IN_PROGRESS'
  | 'ERR_CHECKPOINT_TOO_LARGE'
  | 'ERR_NOT_MOVABLE'
  | 'ERR_CONNECTION_MOVED'
  | 'ERR_LOOP_GONE'
  | 'ERR_LOOP_CRASHING'
  | 'ERR_LOOP_BLOCKED'
  | 'ERR_LOOP_HEAP_FULL'
  | 'ERR_LOOP_STUCK'
  | 'ERR_BUFFER_FROZEN'
  | 'ERR_BUFFER_DETACHED'
  | 'ERR_FILE_TRUNCATED'
  | 'ERR_FILTER_FAILED'
  | 'ERR_FILTER_HELD'
  | 'ERR_FILTER_TRAILING'
  | 'ERR_FILTER_TRUNCATED'
  | 'ERR_NOT_A_STREAM'
  | 'ERR_PARTNER_GONE'
  | 'ERR_SEGMENT_CLOSED'
  | 'ERR_STREAM_DESTROYED'
  | 'ERR_SUBSCRIBER_SLOW'
  | 'ERR_STREAM_PREMATURE_CLOSE'
  | 'ERR_STREAM_WRITE_AFTER_END'
  | 'ERR_TLS_CONFIG'
  | 'ERR_TLS_HANDSHAKE'
  | 'ERR_TLS_PROTOCOL'
  | 'ERR_TLS_TRUNCATED'
  | 'ERR_TLS_UNAVAILABLE'
  | 'ERR_UNDERLYING_CLOSED'
  | 'ERR_WEBSOCKET_HANDSHAKE'
  | 'ERR_WEBSOCKET_NOT_OPEN'
  | 'ERR_WEBSOCKET_PROTOCOL'
  | 'ERR_WEBSOCKET_TIMEOUT'
  | 'ERR_WORKER_LOAD'
  | 'ERR_WORKER_TYPESCRIPT';

export class MultiloopError extends Error {
  override readonly name: string = 'MultiloopError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** A failed system call, shaped like Node's own. */
export interface SystemError extends NodeJS.ErrnoException {
  errno: number;
  code: string;
  syscall: string;
  address?: string;
  port?: number;
}

/** The name of a negative errno, `EINVAL` for -22; numbers nobody knows stay numbers. */
export function errnoName(errno: number): string {
  return getSystemErrorMap().get(errno)?.[0] ?? `E${-errno}`;
}

/** Turns the -errno of a native call into an error. The one place where that happens. */
export function systemError(
  errno: number,
  syscall: string,
  where?: { address?: string; port?: number },
  what?: string,
): SystemError {
  const [name, text] = getSystemErrorMap().get(errno) ?? [errnoName(errno), 'unknown error'];
  let place = what === undefined ? '' : `: ${what}`;
  if (where?.address !== undefined)
    place = ` ${where.address}${where.port === undefined ? '' : `:${where.port}`}`;
  const error = new Error(`${syscall} ${name}: ${text}${place}`) as SystemError;
  error.errno = errno;
  error.code = name;
  error.syscall = syscall;
  if (where?.address !== undefined) error.address = where.address;
  if (where?.port !== undefined) error.port = where.port;
  return error;
}
