// One system call from the front of a chain of segments to a descriptor.

import { constants } from 'node:os';
import { native } from '../native.js';
import type { Segment } from './segment.js';
import { isCurrent } from './slab.js';

/** Pieces that one call gathers at most (native/core/sys.h, kVectorsMax). */
const VECTORS_MAX = 64;
/** Bytes of a file that one call sends or reads: the descriptor is not the only one of its base. */
const FILE_BYTES_MAX = 1024 * 1024;
const COPIED_FILE_BYTES_MAX = 64 * 1024;

const { EINVAL, ENOSYS, EOPNOTSUPP } = constants.errno;

/** Bytes that the descriptor took, at most `max`, or -errno. */
export function write(fd: number, first: Segment, max: number, socket: boolean): number {
  if (first.file !== undefined) return writeFile(fd, first, max, socket);
  const { next } = first;
  if (next === undefined || next.file !== undefined || first.length >= max)
    return writeOne(fd, first, Math.min(first.length, max), socket);
  const views: Uint8Array[] = [];
  let left = max;
  for (
    let one: Segment | undefined = first;
    one !== undefined && one.file === undefined && left > 0 && views.length < VECTORS_MAX;
    one = one.next
  ) {
    const count = Math.min(one.length, left);
    views.push(one.bytes.subarray(one.start, one.start + count));
    left -= count;
  }
  return socket ? native.sockSendv(fd, views, 0, 0) : native.sysWritev(fd, views);
}

function writeOne(fd: number, { bytes, slab, start }: Segment, count: number, socket: boolean) {
  if (!socket) return native.sysWrite(fd, bytes, start, count);
  if (isCurrent(slab)) return native.slabSend(fd, start, count);
  return native.sockSendPart(fd, bytes, start, count);
}

function writeFile(fd: number, segment: Segment, max: number, socket: boolean): number {
  const { file, start, length } = segment;
  if (file === undefined) return 0;
  if (file._sendfile) {
    const count = native.sendFile(fd, file.fd, start, Math.min(length, max, FILE_BYTES_MAX));
    // Not from this kind of file or not to this kind of descriptor (sendfile(2), ERRORS).
    if (count !== -EINVAL && count !== -ENOSYS && count !== -EOPNOTSUPP)
      return count === 0 ? file._truncated(start) : count;
    file._sendfile = false;
  }
  const count = Math.min(length, max, COPIED_FILE_BYTES_MAX);
  const bytes = file._read(start, count);
  return socket ? native.sockSendPart(fd, bytes, 0, count) : native.sysWrite(fd, bytes, 0, count);
}
