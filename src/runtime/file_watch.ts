// Watches files by the folders that they are in, since whoever renews a certificate puts a new file
// or a new link in the place of the old one (certbot, Kubernetes), and by what is in them, since a
// folder tells of more than that. Also looked at now and then, for folders that are replaced
// themselves or cannot be watched.

import { createHash } from 'node:crypto';
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { dirname } from 'node:path';

/** From the first sign of a change to the look at the files. */
const DEBOUNCE_MS = 100;
/** Files that cannot be used may be half written: they are tried once more after that. */
const SETTLE_MS = 1_000;
const LOOK_MS = 60_000;

export interface FileWatchHost {
  /** The files have other contents; when it rejects, it is tried once more and told then. */
  changed(): Promise<void>;
  failed(error: Error): void;
}

export class FileWatch {
  readonly #files: readonly string[];
  readonly #host: FileWatchHost;
  readonly #watchers: FSWatcher[] = [];
  readonly #look: NodeJS.Timeout;
  #timer: NodeJS.Timeout | undefined;
  #busy = false;
  #closed = false;
  /** Contents that are in use, or were told to be of no use, and those that failed once. */
  #seen: string;
  #tried: string | undefined;

  /** `seen`: what the files were before they were read for what is in use now. */
  constructor(files: readonly string[], seen: string, host: FileWatchHost) {
    this.#files = files;
    this.#seen = seen;
    this.#host = host;
    for (const folder of new Set(files.map((file) => dirname(file)))) this.#watch(folder);
    this.#look = setInterval(() => this.#soon(0), LOOK_MS).unref();
    // What came between.
    this.#soon(0);
  }

  #watch(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#soon(DEBOUNCE_MS));
      watcher.on('error', () => watcher.close());
      this.#watchers.push(watcher);
    } catch {
      // It is looked at all the same.
    }
  }

  #soon(ms: number): void {
    if (this.#closed || this.#busy) return;
    this.#timer ??= setTimeout(() => this.#check(), ms).unref();
  }

  async #check(): Promise<void> {
    this.#timer = undefined;
    const now = contentsOf(this.#files);
    if (now === this.#seen) return;
    this.#busy = true;
    let wait = 0;
    try {
      await this.#host.changed();
      this.#seen = now;
    } catch (error) {
      if (this.#closed) return;
      if (now === this.#tried) {
        this.#seen = now;
        this.#host.failed(error as Error);
      } else {
        this.#tried = now;
        wait = SETTLE_MS;
      }
    } finally {
      this.#busy = false;
    }
    // They may have changed meanwhile.
    this.#soon(wait);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    for (const watcher of this.#watchers) watcher.close();
  }
}

/** What tells contents apart; a file that cannot be read has a content too. */
export function contentsOf(files: readonly string[]): string {
  const hash = createHash('sha256');
  for (const file of files) {
    let bytes: Uint8Array | undefined;
    try {
      bytes = readFileSync(file);
    } catch {
      // Without it.
    }
    hash.update(`${file}\0${bytes?.length ?? 'none'}\0`);
    if (bytes !== undefined) hash.update(bytes);
  }
  return hash.digest('hex');
}
