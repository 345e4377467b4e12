// Filters that are Node's transform streams, zlib's above all. Such a stream works between the
// calls of its filter function, on libuv's threads in zlib's case, so its function takes what there
// is, gives what is ready, and has itself called again. Node's own back-pressure bounds what is on
// the way: the transform buffers its highWaterMark on either side, and takes no more meanwhile.
//
// None of it moves inside loopSync(), below which libuv does not run.

import type { Duplex } from 'node:stream';
import zlib, { type BrotliOptions, type ZlibOptions } from 'node:zlib';
import type { EvBuffer } from '../buffer/ev_buffer.js';
import { MultiloopError } from '../errors.js';
import { checkInteger, checkObject, checkOneOf, invalidType, invalidValue } from '../validate.js';
import type { FlushMode } from './bev_options.js';
import { type BevFilter, FILTER_HELD_BYTES_MAX, type Lane, laneFunction } from './filter.js';

/** Bytes that a transform is given at a time. */
const CHUNK_BYTES = 64 * 1024;

export interface TransformFilterOptions {
  /**
   * Bytes of input that nobody has taken, at most: 16 MiB. Beyond it the stream fails instead of
   * growing, which is what a decompression bomb wants. A high watermark below it never comes there.
   */
  maxHeld?: number;
  /** True: what one pass writes is flushed, so that the peer has it. False: only flush() does. */
  autoFlush?: boolean;
}

export type ZlibFormat = 'gzip' | 'deflate' | 'deflate-raw' | 'brotli';
export interface ZlibFilterOptions extends TransformFilterOptions {
  /** For what is written; node:zlib's, of the format's kind. */
  compress?: ZlibOptions | BrotliOptions;
  /** For what is read. */
  decompress?: ZlibOptions | BrotliOptions;
}

/** What zlib's streams have besides. */
interface Flushable {
  flush?: (callback: () => void) => void;
  /** Bytes that the engine has taken. */
  bytesWritten?: number;
}

interface LaneOptions {
  maxHeld: number;
  autoFlush: boolean;
  /** Ending it without any data is no failure. */
  mayBeEmpty: boolean;
}

class TransformLane implements Lane {
  readonly #stream: Duplex & Flushable;
  readonly #options: LaneOptions;
  #again: (() => void) | undefined;
  /** Writes and flushes whose callback has not come. */
  #pending = 0;
  #fed = 0;
  #error: Error | undefined;
  /** It was told that no more comes. */
  #told = false;
  /** It gives no more. */
  #over = false;
  #closed = false;

  constructor(name: string, stream: Duplex, options: LaneOptions) {
    const sound = typeof stream?.pipe === 'function' && typeof stream.write === 'function';
    if (!sound) throw invalidType(name, 'an instance of stream.Duplex', stream);
    if (stream.readableObjectMode || stream.writableObjectMode)
      throw invalidValue(name, 'is in object mode', stream);
    this.#stream = stream;
    this.#options = options;
  }

  attach(again: () => void): void {
    if (this.#again !== undefined)
      throw invalidValue('filter', 'is that of another stream; make one for each', this.#stream);
    this.#again = again;
    const stream = this.#stream;
    const fail = (error: Error) => {
      this.#error ??= error;
      this.#wake();
    };
    stream.on('readable', () => this.#wake());
    stream.on('drain', () => this.#wake());
    stream.on('error', fail);
    stream.on('end', () => {
      this.#over = true;
      const { bytesWritten } = stream;
      if (bytesWritten !== undefined && bytesWritten < this.#fed)
        fail(trailing(this.#fed - bytesWritten));
      else this.#wake();
    });
    stream.on('close', () => {
      if (!this.#over) fail(new MultiloopError('ERR_FILTER_FAILED', 'The transform was destroyed'));
    });
  }

  get busy(): boolean {
    const works = this.#pending > 0 || (this.#told && !this.#over);
    // One that has something for us waits for us.
    return works && this.#error === undefined && this.#stream.readableLength === 0;
  }

  close(): void {
    this.#closed = true;
    this.#stream.destroy();
  }

  run(from: EvBuffer, to: EvBuffer, mode: FlushMode) {
    if (this.#error !== undefined) throw this.#error;
    if (this.#again === undefined)
      throw invalidValue('filter', 'has no stream: give it to BufferEvent.filter()', undefined);
    this.#feed(from, mode);
    const chunk = this.#stream.read() as Buffer | null;
    if (chunk !== null) to._addReference(chunk);
    if (to.length > this.#options.maxHeld)
      throw new MultiloopError(
        'ERR_FILTER_HELD',
        `The filter has ${to.length} bytes that nobody takes, more than maxHeld; take them, or ` +
          'set a high watermark and it waits',
      );
    if (chunk !== null) return 'more';
    return this.#over && mode === 'finished' ? 'ok' : 'later';
  }

  #feed(from: EvBuffer, mode: FlushMode): void {
    const stream = this.#stream;
    if (this.#over && from.length > 0) throw trailing(from.length);
    let wrote = false;
    while (from.length > 0 && !stream.writableNeedDrain && !this.#told) {
      const chunk = from.remove(CHUNK_BYTES);
      this.#fed += chunk.length;
      this.#pending++;
      stream.write(chunk, this.#done);
      wrote = true;
    }
    if (from.length > 0 || this.#told || this.#over) return;
    if (mode === 'finished') {
      this.#told = true;
      if (this.#fed === 0 && this.#options.mayBeEmpty) {
        this.#over = true;
        return;
      }
      this.#pending++;
      stream.end(this.#done);
    } else if ((wrote && this.#options.autoFlush) || mode === 'flush') {
      if (stream.flush === undefined) return;
      this.#pending++;
      stream.flush(this.#done);
    }
  }
  readonly #done = () => {
    this.#pending--;
    this.#wake();
  };
  #wake(): void {
    if (!this.#closed) this.#again?.();
  }
}

/**
 * A filter for one stream from Node's transforms, of which each may be left out: `input` makes the
 * filter's input of what comes, `output` makes what goes of the filter's output. They are the
 * stream's from then on and are destroyed with it. It needs loop() or dispatch(): inside loopSync()
 * they do not work.
 */
export function transformFilter(
  transforms: { input?: Duplex; output?: Duplex },
  options: TransformFilterOptions = {},
): BevFilter {
  checkObject('transforms', transforms);
  const filter: BevFilter = {};
  const { input, output } = transforms;
  const { maxHeld, autoFlush } = checked(options);
  if (input !== undefined) {
    const how = { maxHeld, autoFlush: false, mayBeEmpty: true };
    filter.input = functionOf(new TransformLane('transforms.input', input, how));
  }
  if (output !== undefined) {
    const how = { maxHeld: Infinity, autoFlush, mayBeEmpty: false };
    filter.output = functionOf(new TransformLane('transforms.output', output, how));
  }
  return filter;
}

const FORMATS = {
  gzip: [zlib.createGzip, zlib.createGunzip],
  deflate: [zlib.createDeflate, zlib.createInflate],
  'deflate-raw': [zlib.createDeflateRaw, zlib.createInflateRaw],
  brotli: [zlib.createBrotliCompress, zlib.createBrotliDecompress],
} as const;

/**
 * A filter for one stream that compresses what is written and decompresses what is read, with
 * node:zlib; see transformFilter(). Data that ends too early, is not of the format, or is followed
 * by bytes that are not, fails the reading direction with an error (zlib's own, or
 * ERR_FILTER_TRAILING); a peer that ends without having sent a byte has simply ended. end() writes
 * the format's end; close() alone does not.
 */
export function zlibFilter(format: ZlibFormat, options: ZlibFilterOptions = {}): BevFilter {
  checkOneOf('format', format, Object.keys(FORMATS) as ZlibFormat[]);
  checked(options);
  const [compressor, decompressor] = FORMATS[format];
  const output = compressor(options.compress as ZlibOptions);
  return transformFilter(
    { input: decompressor(options.decompress as ZlibOptions), output },
    options,
  );
}

function functionOf(lane: TransformLane) {
  return laneFunction(lane, (from, to, mode) => lane.run(from, to, mode));
}

function checked(options: TransformFilterOptions): { maxHeld: number; autoFlush: boolean } {
  checkObject('options', options);
  const { maxHeld = FILTER_HELD_BYTES_MAX, autoFlush = true } = options;
  if (typeof autoFlush !== 'boolean')
    throw invalidType('options.autoFlush', 'of type boolean', autoFlush);
  return { maxHeld: checkInteger('options.maxHeld', maxHeld, 1), autoFlush };
}

function trailing(bytes: number): Error {
  return new MultiloopError(
    'ERR_FILTER_TRAILING',
    `${bytes} bytes follow the end of the compressed data`,
  );
}
