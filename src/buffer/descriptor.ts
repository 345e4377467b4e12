// The system calls between a chain of segments and a descriptor: each function makes one, or one
// more where the kernel refuses to send a file itself. A count or -errno.

import { constants } from 'node:os';
import { native } from '../native.js';
import type { Chain } from './chain.js';
import type { FileSegment } from './file_segment.js';
import type { Segment } from './segment.js';
import { isCurrent, keepSlab, SLAB_BYTES, slabWith, wholeSlab } from './slab.js';

/** Bytes that one read takes without being scattered. */
export const READ_BYTES = 64 * 1024;
/** Whole slabs behind the rest of the current one that one read is scattered over, at most. */
const SCATTER_SLABS_MAX = 4;
/** Pieces that one call gathers at most (native/core/sys.h, kVectorsMax). */
const VECTORS_MAX = 64;
/** Pieces of so many bytes together are copied into one: naming each of them costs more. */
const GATHER_COPY_BYTES = 16 * 1024;
/** Bytes of one call: Linux transfers no more than 0x7ffff000 (write(2), NOTES). */
const WRITE_BYTES_MAX = 2 ** 30;
/** Bytes of a file that one call sends: the descriptor is not the only one of its base. */
const FILE_BYTES_MAX = 1024 * 1024;

/** Not from such a file or not to such a descriptor (sendfile(2), ERRORS). */
const { EINVAL, ENOSYS, EOPNOTSUPP, ESPIPE } = constants.errno;
const REFUSALS = [-EINVAL, -ENOSYS, -EOPNOTSUPP, -ESPIPE];

/** One read of at most `max` bytes to the end of the chain. */
export function readTo(chain: Chain, fd: number, max: number): number {
  const slab = slabWith(Math.min(max, READ_BYTES));
  const room = SLAB_BYTES - slab.used;
  if (max <= room) {
    const count = native.sysRead(fd, slab.bytes, slab.used, max);
    if (count > 0) chain.take(slab, count);
    return count;
  }
  const slabs = [slab];
  const views: Uint8Array[] = [slab.bytes.subarray(slab.used)];
  let left = max - room;
  while (left > 0 && slabs.length <= SCATTER_SLABS_MAX) {
    const more = wholeSlab();
    slabs.push(more);
    views.push(more.bytes.subarray(0, Math.min(SLAB_BYTES, left)));
    left -= SLAB_BYTES;
  }
  const count = native.sysReadv(fd, views);
  let rest = Math.max(0, count);
  for (const [i, one] of slabs.entries()) {
    const part = Math.min(rest, views[i].length);
    rest -= part;
    if (part > 0) chain.take(one, part);
    else if (one !== slab) keepSlab(one);
  }
  return count;
}

/**
 * One write of at most `max` bytes from the front of a chain that is not empty; it is not drained.
 * With `socket` by send or sendmsg, which neither blocks nor raises SIGPIPE.
 */
export function writeFrom(chain: Chain, fd: number, max: number, socket: boolean): number {
  const first = chain.first as Segment;
  if (first.file !== undefined) {
    const count = sendFile(first, first.file, fd, max);
    if (count !== undefined) return count;
    chain.load(first);
  }
  const { next } = first;
  const most = Math.min(max, WRITE_BYTES_MAX);
  const size = first.end - first.start;
  if (next === undefined || next.file !== undefined || size >= most)
    return writeOne(first, fd, Math.min(size, most), socket);
  return gather(first, fd, most, socket);
}

/**
 * The first bytes of a chain that is not empty, at most `max` and in one piece, for `take`; answers
 * what that answers. Small pieces are gathered up to `whole` bytes, larger ones given in multiples
 * of it while others follow, but never less than `least` that were offered and not all taken: there
 * may be others behind them by now.
 */
export function offerFrom(
  chain: Chain,
  max: number,
  whole: number,
  take: (bytes: Buffer, offset: number, length: number) => number,
  least = 0,
): number {
  const first = chain.first as Segment;
  if (first.file !== undefined) chain.load(first);
  first.checkThere();
  const size = first.end - first.start;
  if (size >= max || first.next === undefined)
    return take(first.bytes, first.start, Math.min(size, max));
  if (size >= whole) {
    const length = Math.max(size - (size % whole), Math.min(least, size));
    return take(first.bytes, first.start, length);
  }
  const most = Math.min(max, whole);
  const { bytes, used } = slabWith(most);
  let to = used;
  let one: Segment | undefined = first;
  for (; to - used < most && one !== undefined && one.file === undefined; one = one.next) {
    one.checkThere();
    const part = Math.min(one.end - one.start, most - (to - used));
    bytes.set(one.bytes.subarray(one.start, one.start + part), to);
    to += part;
  }
  return take(bytes, used, to - used);
}

function writeOne(one: Segment, fd: number, count: number, socket: boolean): number {
  one.checkThere();
  const { bytes, slab, start } = one;
  if (!socket) return native.sysWrite(fd, bytes, start, count);
  if (isCurrent(slab)) return native.slabSend(fd, start, count);
  return native.sockSendPart(fd, bytes, start, count);
}

function gather(first: Segment, fd: number, most: number, socket: boolean): number {
  let total = 0;
  let count = 0;
  let one: Segment | undefined = first;
  while (one !== undefined && one.file === undefined && total < most && count < VECTORS_MAX) {
    one.checkThere();
    total += one.end - one.start;
    count++;
    one = one.next;
  }
  const length = Math.min(total, most);
  if (length <= GATHER_COPY_BYTES) {
    // The end of the slab is nobody's: these bytes are only passing through.
    const { bytes, used } = slabWith(length);
    let to = used;
    for (one = first; to - used < length && one !== undefined; one = one.next) {
      const part = Math.min(one.end - one.start, length - (to - used));
      bytes.set(one.bytes.subarray(one.start, one.start + part), to);
      to += part;
    }
    return socket ? native.slabSend(fd, used, length) : native.sysWrite(fd, bytes, used, length);
  }
  const views: Uint8Array[] = [];
  let left = length;
  for (one = first; left > 0 && one !== undefined; one = one.next) {
    const part = Math.min(one.end - one.start, left);
    views.push(one.view(part));
    left -= part;
  }
  return socket ? native.sockSendv(fd, views, 0, 0) : native.sysWritev(fd, views);
}

/** Undefined: the kernel does not do it. */
function sendFile(part: Segment, file: FileSegment, fd: number, max: number): number | undefined {
  if (!file._sendfile || file._refusedBy === fd) return undefined;
  const count = Math.min(part.end - part.start, max, FILE_BYTES_MAX);
  const sent = native.sendFile(fd, file.fd, part.start, count);
  if (sent < 0 && REFUSALS.includes(sent)) {
    // Of this pair of descriptors; to another one the same file may be sent.
    file._refusedBy = fd;
    return undefined;
  }
  return sent === 0 ? file._truncated(part.start) : sent;
}
