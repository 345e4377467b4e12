// Where the lines come from: a FIFO, or a regular file that grows, is truncated, is replaced, or
// is not there yet. It belongs to one loop, whose base waits for it.
//
// A FIFO is an event like a socket: READ when a writer has written something or has gone. A regular
// file has no readiness to wait for: epoll refuses it, and poll and select call it readable even at
// its end. So a file is looked at with a timer, which also sees that a path leads elsewhere now.
// What is truncated and grows beyond its old size between two looks cannot be told from growth.

import {
  closeSync,
  constants as files,
  fstatSync,
  openSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { constants } from 'node:os';
import { Ev, type EventBase, type EventHandle, MultiloopError, sys } from '../../src/index.js';
import { LineCutter, type Lines } from './lines.js';

/** How often the file is looked at. */
const LOOK_MS = 250;
/** One read takes at most this much, so that its lines alone never fill a client's output. */
const READ_BYTES_MAX = 32 * 1024;

const { EAGAIN } = constants.errno;

/** How far the lines of a regular file were handed out, for a loop that has to go on from there. */
export interface Place {
  device: number;
  inode: number;
  position: number;
}

export interface Sink {
  /** False: hand out no more until resume(). No lines, when only the place has changed. */
  take(lines: Lines, place: Place | undefined): boolean;
  /** What whoever runs the server should know. */
  tell(text: string): void;
}

interface Opened {
  fd: number;
  stats: Stats;
  /** Of a FIFO. */
  event: EventHandle | undefined;
  /** Of a regular file: up to where it was read. */
  position: number;
}

/** Why a path cannot be followed, at least not now. */
class Trouble extends Error {
  readonly isAbsence: boolean;
  constructor(text: string, isAbsence = false) {
    super(text);
    this.isAbsence = isAbsence;
  }
}

export class Source {
  readonly #base: EventBase;
  readonly #path: string;
  readonly #sink: Sink;
  readonly #cutter = new LineCutter();
  readonly #buffer = Buffer.alloc(READ_BYTES_MAX);
  readonly #look: EventHandle;
  readonly #goOn: EventHandle;
  #open: Opened | undefined;
  #isPaused = false;
  /** The sink has not heard yet where reading began anew. */
  #isPlaceNews = false;
  /** What was told last of what is wrong with the path. */
  #trouble = '';

  constructor(base: EventBase, path: string, sink: Sink) {
    this.#base = base;
    this.#path = path;
    this.#sink = sink;
    this.#look = base.timer(() => this.#turn(), { persist: true });
    // Not activate(): that runs in the same pass, and output leaves at the end of one.
    this.#goOn = base.timer(() => this.#turn());
  }

  /**
   * Begins at the end of what is there. Throws if that is nothing to follow; a path that leads
   * nowhere yet is waited for, as `tail -F` does.
   */
  start(): void {
    const trouble = this.#openPath();
    if (trouble !== undefined && !trouble.isAbsence)
      throw new MultiloopError('ERR_WORKER_LOAD', `tail: ${this.#path} ${trouble.message}`);
    this.#begin(trouble, undefined);
  }

  /** Goes on where another loop's source was; whatever is wrong meanwhile is waited for. */
  startAgain(place: Place | undefined): void {
    this.#begin(this.#openPath(), place);
  }

  #begin(trouble: Trouble | undefined, place: Place | undefined): void {
    if (trouble !== undefined) this.#isWrong(trouble);
    const open = this.#open;
    if (open !== undefined) {
      const { ino, dev, size } = open.stats;
      if (place === undefined) open.position = size;
      // A file that is shorter by now was truncated, as the first look finds; another one is new.
      else if (ino === place.inode && dev === place.device) open.position = place.position;
    }
    this.#look.add(LOOK_MS);
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#open?.event !== undefined) this.#open.event.add();
    else this.#goOn.add(0);
  }

  close(): void {
    this.#look.free();
    this.#goOn.free();
    this.#drop(this.#open);
    this.#open = undefined;
  }

  /** One look at the path and one read of a regular file. */
  #turn(): void {
    if (this.#isPaused) return;
    // Looked at before the read, which then gets all that was written before the file was replaced.
    const found = this.#stat();
    if (this.#isPlaceNews) this.#hand(NO_LINES);
    if (this.#readFile()) {
      if (!this.#isPaused) this.#goOn.add(0);
    } else if (found instanceof Trouble) this.#lost(found);
    else if (!this.#isOpen(found)) this.#replace(found);
    else if (this.#trouble !== '') this.#isWell('is there again');
  }

  #stat(): Stats | Trouble {
    try {
      return statSync(this.#path);
    } catch (error) {
      return explain(error);
    }
  }

  // ── opening, and opening anew ──

  #openPath(): Trouble | undefined {
    const found = this.#stat();
    if (found instanceof Trouble) return found;
    if (!found.isFIFO() && !found.isFile())
      return new Trouble(`is ${kindOf(found)}, neither a FIFO nor a regular file`);
    let fd: number;
    try {
      // Opening a FIFO would otherwise wait for a writer, and the whole loop with it.
      fd = openSync(this.#path, files.O_RDONLY | files.O_NONBLOCK);
    } catch (error) {
      return explain(error);
    }
    const stats = fstatSync(fd);
    let event: EventHandle | undefined;
    if (stats.isFIFO()) {
      event = this.#base.event(fd, Ev.READ | Ev.PERSIST, () => this.#readFifo());
      if (!this.#isPaused) event.add();
    }
    this.#open = { fd, stats, event, position: 0 };
    this.#isPlaceNews = event === undefined;
    return undefined;
  }

  /** The number of what is open is not given to anything else. */
  #isOpen({ ino, dev }: Stats): boolean {
    const stats = this.#open?.stats;
    return ino === stats?.ino && dev === stats.dev;
  }

  #replace(found: Stats): void {
    const open = this.#open;
    // Whoever rotates a log makes the new file first and tells the writer afterwards, so the old
    // one may still get lines while there is nothing in the new one.
    const isTooEarly = found.isFile() && found.size === 0;
    if (open === undefined || open.event !== undefined || !isTooEarly) this.#turnOver();
  }

  /** Opens the path anew, at the beginning, and lets what was open go. */
  #turnOver(): void {
    const old = this.#open;
    this.#hand(this.#cutter.finish());
    this.#open = undefined;
    const trouble = this.#openPath();
    // Only now: a FIFO keeps what is in it as long as somebody has it open.
    this.#drop(old);
    if (trouble !== undefined) this.#isWrong(trouble);
    else if (old === undefined) this.#isWell('is there now');
    else if (old.event === undefined) this.#isWell('was replaced; following the new one');
  }

  /** The path leads nowhere now. What is open may still get lines, unless it was removed. */
  #lost(trouble: Trouble): void {
    const open = this.#open;
    if (open !== undefined && open.event === undefined && fstatSync(open.fd).nlink === 0) {
      this.#hand(this.#cutter.finish());
      this.#open = undefined;
      this.#drop(open);
    }
    this.#isWrong(trouble);
  }

  #drop(open: Opened | undefined): void {
    if (open === undefined) return;
    open.event?.free();
    closeSync(open.fd);
  }

  // ── reading ──

  /** True when there may be more. */
  #readFile(): boolean {
    const open = this.#open;
    if (open === undefined || open.event !== undefined) return false;
    if (fstatSync(open.fd).size < open.position) {
      this.#hand(this.#cutter.finish());
      open.position = 0;
      this.#isPlaceNews = true;
      this.#sink.tell(`${this.#path} was truncated; reading it from its beginning`);
    }
    let count: number;
    try {
      count = readSync(open.fd, this.#buffer, 0, READ_BYTES_MAX, open.position);
    } catch (error) {
      // A disk or a file server that fails: the path is opened anew as soon as that works.
      this.#open = undefined;
      this.#drop(open);
      this.#isWrong(explain(error));
      return false;
    }
    if (count === 0) return false;
    open.position += count;
    this.#hand(this.#cutter.push(this.#buffer.subarray(0, count)));
    return true;
  }

  #readFifo(): void {
    const open = this.#open as Opened;
    const count = sys.read(open.fd, this.#buffer);
    if (count === -EAGAIN) return;
    if (count > 0) this.#hand(this.#cutter.push(this.#buffer.subarray(0, count)));
    // The last writer has gone, and its line ends with it. From now on the kernel would report this
    // descriptor at once and for ever; one that is opened anew waits for the next writer. (Opening
    // it for writing as well would do too, but needs the right to write, and hides the line's end.)
    else this.#turnOver();
  }

  #hand(lines: Lines): void {
    if (lines.count === 0 && !this.#isPlaceNews) return;
    this.#isPlaceNews = false;
    if (this.#sink.take(lines, this.#place())) return;
    this.#isPaused = true;
    this.#open?.event?.del();
  }

  #place(): Place | undefined {
    const open = this.#open;
    if (open === undefined || open.event !== undefined) return undefined;
    const position = open.position - this.#cutter.restBytes;
    return { device: open.stats.dev, inode: open.stats.ino, position };
  }

  // ── what is told ──

  /** Once, however often it is found. */
  #isWrong({ message }: Trouble): void {
    if (message === this.#trouble) return;
    this.#trouble = message;
    this.#sink.tell(`${this.#path} ${message}; waiting for it`);
  }

  #isWell(text: string): void {
    this.#trouble = '';
    this.#sink.tell(`${this.#path} ${text}`);
  }
}

const NO_LINES: Lines = { bytes: new Uint8Array(0), count: 0 };

function explain(error: unknown): Trouble {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return new Trouble('does not exist', true);
  if (code === 'EACCES') return new Trouble('may not be read by this user');
  return new Trouble(`cannot be opened: ${message}`);
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return 'a folder';
  if (stats.isSocket()) return 'a socket';
  return 'a device';
}
