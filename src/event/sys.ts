// Thin system calls for tests, benches and unusual descriptors.

import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkInteger, invalidType } from '../validate.js';

const FD_MAX = 2 ** 31 - 1;

/** Up to so many bytes go through memory that the native side knows already. */
const SMALL_BYTES = 64;
// With memory of its own: V8 keeps that of small arrays where it moves them.
const small = new Uint8Array(new ArrayBuffer(SMALL_BYTES));
native.sysShare(small);

function range(bytes: Uint8Array, offset: number, length: number | undefined): number {
  if (!(bytes instanceof Uint8Array))
    throw invalidType('bytes', 'an instance of Uint8Array', bytes);
  checkInteger('offset', offset, 0, bytes.length);
  const left = bytes.length - offset;
  return length === undefined ? left : checkInteger('length', length, 0, left);
}

function two(result: [number, number] | number, syscall: string): [number, number] {
  if (typeof result === 'number') throw systemError(result, syscall);
  return result;
}

/**
 * read, write, close and dup answer a count, a descriptor or -errno and do not throw for what the
 * kernel says; socketPair and pipe throw. Descriptors made here are non-blocking and close-on-exec.
 * Any thread may call them.
 */
export const sys = {
  /** A connected pair of stream sockets (AF_UNIX). */
  socketPair(): [number, number] {
    return two(native.sysSocketPair(), 'socketpair');
  },
  /** [read end, write end] */
  pipe(): [number, number] {
    return two(native.sysPipe(), 'pipe2');
  },
  dup(fd: number): number {
    return native.sysDup(checkInteger('fd', fd, 0, FD_MAX));
  },
  /** Throws ERR_FD_OWNED for a descriptor that the ledger owns: its connection closes it. */
  close(fd: number): number {
    const status = native.sysClose(checkInteger('fd', fd, 0, FD_MAX));
    if (status === -1)
      throw new MultiloopError(
        'ERR_FD_OWNED',
        `Descriptor ${fd} is a connection or listener of a loop group; close that instead`,
      );
    return status;
  },
  /** For a descriptor from elsewhere: bases wait, and calls must not. 0 or -errno. */
  setNonBlocking(fd: number): number {
    return native.sockNonBlocking(checkInteger('fd', fd, 0, FD_MAX));
  },
  /** For a descriptor from elsewhere: no child process inherits it. 0 or -errno. */
  setCloseOnExec(fd: number): number {
    return native.sockCloseOnExec(checkInteger('fd', fd, 0, FD_MAX));
  },
  /** TCP keep-alive: the first probe after so many idle seconds; 0 switches it off. 0 or -errno. */
  setKeepAlive(fd: number, seconds: number): number {
    checkInteger('fd', fd, 0, FD_MAX);
    return native.sockKeepAlive(fd, checkInteger('seconds', seconds, 0, 32_767));
  },
  read(fd: number, into: Uint8Array, offset = 0, length?: number): number {
    const count = range(into, offset, length);
    checkInteger('fd', fd, 0, FD_MAX);
    if (count > SMALL_BYTES) return native.sysRead(fd, into, offset, count);
    const got = native.sysReadSmall(fd, count);
    for (let i = 0; i < got; i++) into[offset + i] = small[i];
    return got;
  },
  write(fd: number, from: Uint8Array, offset = 0, length?: number): number {
    const count = range(from, offset, length);
    checkInteger('fd', fd, 0, FD_MAX);
    if (count > SMALL_BYTES) return native.sysWrite(fd, from, offset, count);
    for (let i = 0; i < count; i++) small[i] = from[offset + i];
    return native.sysWriteSmall(fd, count);
  },
};
