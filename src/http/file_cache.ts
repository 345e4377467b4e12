// What is at the paths of a folder that is served: opened below it (native/core/beneath.h) and kept
// open for a moment, since asking the file system anew for every request would cost four system
// calls of each. Of one loop; a file that is being sent keeps its descriptor until it has left.

import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { FileSegment } from '../buffer/file_segment.js';
import { systemError } from '../errors.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native } from '../native.js';
import type { Validators } from './conditions.js';

/** A file that was written less than so long ago may be written again without its time changing. */
const SETTLED_MS = 2_000;

/** A regular file that is open. */
export interface OpenFile extends Validators {
  readonly kind: 'file';
  /** All of it. */
  readonly segment: FileSegment;
  readonly size: number;
}
export interface NoFile {
  readonly kind: 'folder' | 'none';
  /** Why there is none: a positive errno; 0 for a folder. */
  readonly errno: number;
}
export type Found = OpenFile | NoFile;

interface Entry {
  readonly found: Found;
  /** The base's milliseconds when it was opened. */
  readonly at: number;
}

const { EMFILE, ENFILE } = constants.errno;
const FOLDER: NoFile = { kind: 'folder', errno: 0 };

export interface CacheSettings {
  /** Milliseconds for which what was found at a path is believed. */
  readonly cacheMs: number;
  /** Paths that are remembered, each with one descriptor at most. */
  readonly cacheFiles: number;
  readonly links: boolean;
}

/** Belongs to its base's thread. */
export class FileCache {
  readonly #base: EventBase;
  readonly #folder: string;
  readonly #settings: CacheSettings;
  /** By path; the one that was asked for last is the last. */
  readonly #entries = new Map<string, Entry>();
  #root = -1;
  #rootAt = 0;
  #sweep: EventHandle | undefined = undefined;

  constructor(base: EventBase, folder: string, settings: CacheSettings) {
    this.#base = base;
    this.#folder = folder;
    this.#settings = settings;
  }

  /**
   * `path` is relative and has no `..`; '.' is the folder itself. What is found is good until the
   * next turn of the base. Throws what the process has too little for, such as EMFILE.
   */
  look(path: string): Found {
    const { cacheMs, cacheFiles } = this.#settings;
    const now = this.#base.now();
    const known = this.#entries.get(path);
    if (known !== undefined) {
      this.#entries.delete(path);
      if (now - known.at < cacheMs) {
        this.#entries.set(path, known);
        return known.found;
      }
      forget(known);
    }
    const found = this.#open(path, now);
    this.#entries.set(path, { found, at: now });
    if (this.#entries.size > cacheFiles) {
      const [[oldest, entry]] = this.#entries;
      this.#entries.delete(oldest);
      forget(entry);
    }
    this.#sweepLater();
    return found;
  }

  /** Everything is looked for anew; what is being sent is sent. */
  clear(): void {
    for (const entry of this.#entries.values()) forget(entry);
    this.#entries.clear();
    this.#closeRoot();
    if (this.#base._closed) return;
    this.#sweep?.free();
    this.#sweep = undefined;
  }

  #open(path: string, now: number): Found {
    let fd = this.#openOnce(path, now);
    if (fd === -EMFILE || fd === -ENFILE) {
      // What is only kept for later gives way.
      this.clear();
      fd = this.#openOnce(path, now);
      if (fd === -EMFILE || fd === -ENFILE) throw systemError(fd, 'open', undefined, path);
    }
    if (fd < 0) return { kind: 'none', errno: -fd };
    try {
      return openFile(fd, this.#base.wallTime(), () => native.fileClose(fd)) ?? FOLDER;
    } catch (error) {
      native.fileClose(fd);
      throw error;
    }
  }
  #openOnce(path: string, now: number): number {
    if (this.#root < 0 || now - this.#rootAt >= this.#settings.cacheMs) {
      // Anew each time, since the folder may be another one by now: a link that a release swaps.
      this.#closeRoot();
      this.#root = native.fileFolder(this.#folder);
      this.#rootAt = now;
    }
    return this.#root < 0 ? this.#root : native.fileOpen(this.#root, path, this.#settings.links);
  }
  #closeRoot(): void {
    if (this.#root >= 0) native.fileClose(this.#root);
    this.#root = -1;
  }

  #sweepLater(): void {
    if (this.#sweep === undefined) {
      // It keeps nobody waiting, and a base that is closed has none.
      this.#sweep = this.#base.timer(() => this.#sweepNow()).unref();
      this.#sweep.add(this.#settings.cacheMs);
    }
  }
  /** A deleted file takes room on its disk as long as it is open. */
  #sweepNow(): void {
    const old = this.#base.now() - this.#settings.cacheMs;
    for (const [path, entry] of this.#entries) {
      if (entry.at > old) continue;
      this.#entries.delete(path);
      forget(entry);
    }
    if (this.#entries.size > 0) this.#sweep?.add(this.#settings.cacheMs);
    else this.clear();
  }
}

function forget({ found }: Entry): void {
  if (found.kind === 'file') found.segment.close();
}

/**
 * What is known of an open descriptor; undefined, and it was closed, if it is no regular file.
 * `close` is called when the file's segment and all that is sent of it are gone.
 */
export function openFile(fd: number, wallTime: number, close: () => void): OpenFile | undefined {
  const { size: bytes, mtimeNs, ino, ...info } = fstatSync(fd, { bigint: true });
  if ((info.mode & FILE_TYPE) !== REGULAR) {
    close();
    return undefined;
  }
  const size = Number(bytes);
  const changedMs = Number(mtimeNs / 1_000_000n);
  const tag = `"${[ino, bytes, mtimeNs].map((part) => part.toString(36)).join('-')}"`;
  // RFC 9110 sections 8.8.1 and 8.8.2.1.
  const isSettled = wallTime - changedMs >= SETTLED_MS;
  return {
    kind: 'file',
    segment: new FileSegment(fd, 0, size, { release: close }),
    size,
    etag: isSettled ? tag : `W/${tag}`,
    modified: Math.floor(Math.min(changedMs, wallTime) / 1_000) * 1_000,
  };
}

/** inode(7); what BigIntStats' own isFile() would say. */
const FILE_TYPE = 0o170000n;
const REGULAR = 0o100000n;
