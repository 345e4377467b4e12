// A part of a file, to be put in any number of buffers. sendfile(2) carries it to a socket; where
// somebody needs the bytes themselves (a filter, remove(), pullup()), they are read.

import { fstatSync } from 'node:fs';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkInteger, checkObject, invalidType } from '../validate.js';
import { Loan } from './segment.js';

export interface FileSegmentOptions {
  /** The descriptor is closed when the segment and every buffer that has a part of it are gone. */
  closeFd?: boolean;
  /** False: it is read and written instead of sent by the kernel. */
  sendfile?: boolean;
}

/** `length` -1 means up to the file's end, as it is now. Any thread of its own; not shared. */
export class FileSegment implements Disposable {
  readonly fd: number;
  readonly offset: number;
  readonly length: number;
  /** @internal The segment itself is one of the holders. */ readonly _loan: Loan;
  /** @internal */ _sendfile: boolean;
  #disposed = false;

  constructor(fd: number, offset = 0, length = -1, options: FileSegmentOptions = {}) {
    checkInteger('fd', fd, 0, 2 ** 31 - 1);
    checkInteger('offset', offset, 0);
    checkInteger('length', length, -1);
    checkObject('options', options);
    for (const name of ['closeFd', 'sendfile'] as const)
      if (options[name] !== undefined && typeof options[name] !== 'boolean')
        throw invalidType(`options.${name}`, 'of type boolean', options[name]);
    this.fd = fd;
    this.offset = offset;
    this.length = length === -1 ? Math.max(0, fstatSync(fd).size - offset) : length;
    this._sendfile = options.sendfile !== false;
    this._loan = new Loan(() => {
      if (options.closeFd === true) native.sysClose(fd);
    });
    this._loan.segments++;
  }

  /** Gives up the holder's part; buffers keep theirs. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this._loan.leave();
  }
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
        `${this.offset + this.length}`,
    );
  }
}
