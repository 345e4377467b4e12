// A part of a file, to be put in any number of buffers. sendfile(2) carries it to a socket; where
// somebody needs the bytes themselves (a filter, remove(), pullup()), they are read.

import { fstatSync } from 'node:fs';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkFunction, checkInteger, checkObject, invalidType } from '../validate.js';
import { Loan, tellLenders } from './segment.js';

export interface FileSegmentOptions {
  /** The descriptor is closed when the segment and every buffer that has a part of it are gone. */
  closeFd?: boolean;
  /** False: it is read and written instead of sent by the kernel. */
  sendfile?: boolean;
  /**
   * Called once, when the segment and every buffer that has a part of it are gone, after the
   * descriptor was closed if that was asked for. (libevent: evbuffer_file_segment_add_cleanup_cb.)
   */
  release?: () => void;
}

/**
 * `length` bytes of a file from `offset` on, -1 (the default) meaning up to the file's end as it
 * is now; an `offset` behind that end makes an empty segment. It holds no bytes: they are sent or
 * read when they leave a buffer, and whoever changes the file meanwhile changes what is sent.
 * Belongs to the thread that made it, and so does every buffer that it is put in. Throws what
 * fstat(2) answers for a descriptor that is not open; then it has not taken the descriptor.
 */
export class FileSegment implements Disposable {
  readonly fd: number;
  /** Bytes before it in the file. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** @internal The segment itself is one of the holders. */ readonly _loan: Loan;
  /** @internal */ readonly _sendfile: boolean;
  /** @internal The descriptor that the kernel refused last to send it to. */ _refusedBy = -1;
  #disposed = false;

  constructor(fd: number, offset = 0, length = -1, options: FileSegmentOptions = {}) {
    checkInteger('fd', fd, 0, 2 ** 31 - 1);
    checkInteger('offset', offset, 0);
    checkInteger('length', length, -1, Number.MAX_SAFE_INTEGER - offset);
    checkObject('options', options);
    const { closeFd, sendfile, release } = options;
    for (const [name, value] of Object.entries({ closeFd, sendfile }))
      if (value !== undefined && typeof value !== 'boolean')
        throw invalidType(`options.${name}`, 'of type boolean', value);
    if (release !== undefined) checkFunction('options.release', release);
    this.fd = fd;
    this.offset = offset;
    this.length = length === -1 ? Math.max(0, fstatSync(fd).size - offset) : length;
    this._sendfile = sendfile !== false;
    this._loan = new Loan(() => {
      if (closeFd === true) native.sysClose(fd);
      release?.();
    });
    this._loan.segments++;
  }

  /** @internal Of a descriptor that is closed whatever happens. */
  static _own(fd: number, offset: number, length: number): FileSegment {
    try {
      return new FileSegment(fd, offset, length, { closeFd: true });
    } catch (error) {
      native.sysClose(fd);
      throw error;
    }
  }

  /** Gives up the holder's part; buffers keep theirs. Idempotent. The same as `close()`. */
  [Symbol.dispose](): void {
    this.close();
  }
  close(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this._loan.leave();
    tellLenders();
  }
  /** Whether it was closed; then it can be put in no further buffer. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** @internal */
  _read(position: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(length);
    this._readInto(position, bytes, 0, length);
    return bytes;
  }

  /** @internal Reads all of it or throws: a buffer's length has been promised already. */
  _readInto(position: number, into: Buffer, offset: number, length: number): void {
    let read = 0;
    while (read < length) {
      const count = native.sysPread(this.fd, into, offset + read, length - read, position + read);
      if (count < 0) throw systemError(count, 'pread', undefined, `descriptor ${this.fd}`);
      if (count === 0) this._truncated(position + read);
      read += count;
    }
  }

  /** @internal */
  _truncated(position: number): never {
    throw new MultiloopError(
      'ERR_FILE_TRUNCATED',
      `The file of descriptor ${this.fd} ends at byte ${position}; a segment of it was to end at ` +
        `${this.offset + this.length}. drain() gets rid of what is missing`,
    );
  }
}
