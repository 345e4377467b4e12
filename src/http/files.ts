// Serves the files of a folder, and never one outside of it.

import { closeSync, constants, openSync, statSync } from 'node:fs';
import { constants as os } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemError } from '../errors.js';
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkListOf,
  checkMillis,
  checkObject,
  checkOneOf,
  invalidType,
  invalidValue,
} from '../validate.js';
import { isFieldValue } from './characters.js';
import { contentType, extensionOf, UNKNOWN_TYPE } from './content_types.js';
import { acceptedEncodings, ENCODING_NAMES, ENCODINGS, type Encoding } from './encodings.js';
import { answerFile } from './file_answer.js';
import { FileCache, type Found, type OpenFile, openFile } from './file_cache.js';
import type { RequestHandler } from './http_options.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import type { HttpServer } from './http_server.js';
import { restOf } from './router.js';

export interface FileOptions {
  /** By extension, without its dot: the Content-Type, in place of the table's. */
  types?: Readonly<Record<string, string>>;
  /** Cache-Control, of all files or by the path in the folder; without it there is none. */
  cacheControl?: string | ((path: string) => string | undefined);
  /** Ranges of one request: 16; to one that asks for more the whole file is sent. */
  rangesMax?: number;
}

export interface FilesOptions extends FileOptions {
  /**
   * The part of the path that is not the folder's, such as '/static'. In a Router whose pattern
   * ends with `*` it is what that stands before.
   */
  prefix?: string;
  /** What is served of a directory, the first that exists: ['index.html']. */
  index?: readonly string[];
  /** What a name that begins with a dot is: 404, 403, or a file like others. 'hide'. */
  dotfiles?: 'hide' | 'refuse' | 'serve';
  /** What is answered when the file system refuses: 403, or 404, which does not tell. 403. */
  denied?: 403 | 404;
  /**
   * Whether symbolic links are followed, those that stay in the folder: true. Only where the kernel
   * has openat2 (Linux 5.6), and only relative ones.
   */
  links?: boolean;
  /** Encodings to look for beside a file, as FILE.br, FILE.zst and FILE.gz: all three. */
  compressed?: readonly Encoding[];
  /** Answers instead of 404. */
  notFound?: RequestHandler;
  /** Milliseconds for which an open file, or that there is none, is remembered: 1,000. */
  cacheMs?: number;
  /** Files that each loop remembers, and has open, at most: 256; not below 16. */
  cacheFiles?: number;
}

const RANGES_MAX = 16;
const CACHE_MS = 1_000;
const CACHE_FILES = 256;
/** What one request looks for has to be there together. */
const CACHE_FILES_MIN = 16;
const INDEX_MAX = 8;
const DOTFILES = ['hide', 'refuse', 'serve'] as const;
const { EACCES, EPERM } = os.errno;

/**
 * A handler that answers GET and HEAD with the files of a folder: with ranges, conditions, and
 * what is compressed already; other methods with 405. For `request`, for a Router
 * (`router.get('/static/*', files('public'))`), and within `fetch`
 * (`fetch: (_, { request, response }) => void site(request, response)`). A directory is answered
 * with its index, or 404, and without its `/` with 301; there are no listings.
 *
 * The path is taken apart before it is decoded; what has a `..`, a slash or a backslash in a name,
 * or an empty name, is 404, and a bad escape or a NUL 400. FIFOs, devices and links that lead out
 * are 404. What is remembered is for each loop. While more than 32 KiB are being sent, their
 * connection stays where it is. Throws what stat(2) says if there is no such folder.
 *
 * A limit: a path that is not remembered is opened in the loop's own thread (a few system calls),
 * and sendfile(2) waits there for what the kernel has to read first. From a local disk that is
 * short; with a folder on a network or a disk that stalls, all of the loop's connections wait as
 * long. Copy such a folder to a local disk, or give it loops (a server) of its own; a longer
 * `cacheMs` and a larger `cacheFiles` open less often.
 */
export function files(folder: string | URL, options: FilesOptions = {}): RequestHandler {
  const site = new Site(pathOf('folder', folder), options);
  return (request, response) => site.answer(request, response);
}

/**
 * Answers with one file, as files() would: `file` is a path of the program's own, or the descriptor
 * of a regular file, which is closed in any case. Throws what open(2) says, before it has answered.
 */
export function sendFile(
  request: HttpRequest,
  response: HttpResponse,
  file: string | URL | number,
  options: FileOptions & { type?: string } = {},
): void {
  const settings = fileSettings(options);
  const { type } = options;
  if (type !== undefined) checkHeaderText('options.type', type);
  const isOpen = typeof file === 'number';
  const path = isOpen ? '' : pathOf('file', file);
  // Without O_NONBLOCK, opening a FIFO would wait for whoever writes to it.
  const fd = isOpen
    ? checkInteger('file', file, 0, 2 ** 31 - 1)
    : openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  let closed = false;
  const close = () => {
    if (!closed) closeSync(fd);
    closed = true;
  };
  let open: OpenFile | undefined;
  try {
    open = openFile(fd, request.stream.base.wallTime(), close);
    if (open === undefined) throw invalidValue('file', 'is no regular file', file);
    if (!refusesMethod(request, response))
      answerFile(request, response, open, {
        type: type ?? typeOf(path, settings),
        cacheControl: cacheControlOf(settings, path),
        encoding: undefined,
        varies: false,
        rangesMax: settings.rangesMax,
      });
  } catch (error) {
    if (open === undefined) close();
    throw error;
  } finally {
    open?.segment.close();
  }
}

class Site {
  readonly #folder: string;
  readonly #file: FileSettings;
  readonly #prefix: string | undefined;
  readonly #index: readonly string[];
  readonly #dotfiles: (typeof DOTFILES)[number];
  readonly #denied: 403 | 404;
  readonly #encodings: readonly Encoding[];
  readonly #notFound: RequestHandler | undefined;
  readonly #cache: { cacheMs: number; cacheFiles: number; links: boolean };

  constructor(folder: string, options: FilesOptions) {
    this.#file = fileSettings(options);
    const { prefix, index = ['index.html'], dotfiles = 'hide', denied = 403 } = options;
    const { links = true, compressed = ENCODING_NAMES, notFound } = options;
    const { cacheMs = CACHE_MS, cacheFiles = CACHE_FILES } = options;
    this.#prefix = prefix === undefined ? undefined : checkPrefix(prefix);
    this.#index = checkIndex(index);
    this.#dotfiles = checkOneOf('options.dotfiles', dotfiles, DOTFILES);
    if (denied !== 403 && denied !== 404)
      throw invalidValue('options.denied', 'must be 403 or 404', denied);
    this.#denied = denied;
    // In the order of the table, whatever theirs is.
    checkListOf('options.compressed', compressed, ENCODING_NAMES);
    this.#encodings = ENCODING_NAMES.filter((name) => compressed.includes(name));
    if (notFound !== undefined) checkFunction('options.notFound', notFound);
    this.#notFound = notFound;
    checkMillis('options.cacheMs', cacheMs);
    checkInteger('options.cacheFiles', cacheFiles, CACHE_FILES_MIN, 65_536);
    this.#cache = { cacheMs, cacheFiles, links: checkBoolean('options.links', links) };
    if (!statSync(folder).isDirectory())
      throw systemError(-os.errno.ENOTDIR, 'opendir', undefined, folder);
    this.#folder = folder;
  }

  answer(request: HttpRequest, response: HttpResponse): unknown {
    if (refusesMethod(request, response)) return undefined;
    const names = this.#namesOf(request);
    if (typeof names === 'number') return this.#refuse(request, response, names);
    const cache = this.#cacheOf(request._server);
    const isFolder = names.at(-1) === '';
    if (isFolder) names.pop();
    const path = names.length === 0 ? '.' : names.join('/');
    const found = cache.look(path);
    if (found.kind === 'none') return this.#none(request, response, found.errno);
    if (found.kind === 'file') {
      if (isFolder) return this.#refuse(request, response, 404);
      return this.#send(request, response, cache, path, found);
    }
    if (!isFolder) return redirect(request, response);
    for (const name of this.#index) {
      const index = path === '.' ? name : `${path}/${name}`;
      const file = cache.look(index);
      if (file.kind === 'file') return this.#send(request, response, cache, index, file);
    }
    return this.#refuse(request, response, 404);
  }

  /** Decoded, the last one '' for a path that ends with a slash; or the status to refuse with. */
  #namesOf(request: HttpRequest): string[] | 400 | 403 | 404 {
    const path = this.#prefix === undefined ? (restOf(request) ?? request.path) : request.path;
    const prefix = this.#prefix ?? '';
    if (path === prefix) return [];
    if (!path.startsWith(`${prefix}/`)) return 404;
    const parts = path.slice(prefix.length + 1).split('/');
    const names: string[] = [];
    for (const [i, part] of parts.entries()) {
      const name = decoded(part);
      if (name === undefined || name.includes('\0')) return 400;
      if (name === '' ? i < parts.length - 1 : /^\.\.?$|[/\\]/.test(name)) return 404;
      if (name.startsWith('.') && this.#dotfiles !== 'serve')
        return this.#dotfiles === 'hide' ? 404 : 403;
      names.push(name);
    }
    return names;
  }

  #cacheOf(server: HttpServer): FileCache {
    let cache = server._kept.get(this) as FileCache | undefined;
    if (cache === undefined) {
      cache = new FileCache(server.base, this.#folder, this.#cache);
      server._kept.set(this, cache);
    }
    return cache;
  }

  #send(
    request: HttpRequest,
    response: HttpResponse,
    cache: FileCache,
    path: string,
    file: OpenFile,
  ): void {
    const variants = this.#encodings.filter((name) => {
      const found = cache.look(path + ENCODINGS[name]);
      return found.kind === 'file' && isOf(file, found);
    });
    const accepted =
      variants.length === 0
        ? []
        : acceptedEncodings(request.headers.get('accept-encoding'), variants);
    const [encoding] = accepted;
    const chosen = encoding === undefined ? file : cache.look(path + ENCODINGS[encoding]);
    answerFile(request, response, chosen.kind === 'file' ? chosen : file, {
      type: typeOf(path, this.#file),
      cacheControl: cacheControlOf(this.#file, path),
      encoding,
      varies: variants.length > 0,
      rangesMax: this.#file.rangesMax,
    });
  }

  #none(request: HttpRequest, response: HttpResponse, errno: number): unknown {
    const isDenied = errno === EACCES || errno === EPERM;
    return this.#refuse(request, response, isDenied ? this.#denied : 404);
  }
  #refuse(request: HttpRequest, response: HttpResponse, status: number): unknown {
    if (status === 404 && this.#notFound !== undefined) return this.#notFound(request, response);
    response.status = status;
    response.send(REASONS[status]);
    return undefined;
  }
}

const REASONS: Record<number, string> = {
  400: 'The path has a bad escape.\n',
  403: 'This may not be read.\n',
  404: 'Not found.\n',
};

/** One that is older than its file is of another state of it. */
function isOf(file: OpenFile, variant: Found & { kind: 'file' }): boolean {
  return (variant.modified ?? 0) >= (file.modified ?? 0);
}

function refusesMethod({ method }: HttpRequest, response: HttpResponse): boolean {
  if (method === 'GET' || method === 'HEAD') return false;
  response.status = 405;
  response.set('Allow', 'GET, HEAD');
  response.send(`${method} is not allowed here.\n`);
  return true;
}

/** What a relative link on the page is relative to ends with a slash. */
function redirect(request: HttpRequest, response: HttpResponse): void {
  const { path, query } = request;
  response.status = 301;
  // It begins with one slash: no name is empty, so this is no other host's.
  response.set('Location', `${path}/${query === '' ? '' : `?${query}`}`);
  response.send();
}

function decoded(part: string): string | undefined {
  if (!part.includes('%')) return part;
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

// ── options ──

interface FileSettings {
  readonly types: ReadonlyMap<string, string>;
  readonly cacheControl: FileOptions['cacheControl'];
  readonly rangesMax: number;
}

function fileSettings(options: FileOptions): FileSettings {
  checkObject('options', options);
  const { types = {}, cacheControl, rangesMax = RANGES_MAX } = options;
  checkObject('options.types', types);
  const byExtension = new Map<string, string>();
  for (const [extension, type] of Object.entries(types)) {
    checkHeaderText(`options.types.${extension}`, type);
    byExtension.set(extension.toLowerCase(), type);
  }
  if (typeof cacheControl !== 'function' && cacheControl !== undefined)
    checkHeaderText('options.cacheControl', cacheControl);
  checkInteger('options.rangesMax', rangesMax, 0, 1_000);
  return { types: byExtension, cacheControl, rangesMax };
}

function typeOf(path: string, { types }: FileSettings): string {
  const extension = extensionOf(path);
  return types.get(extension) ?? contentType(extension) ?? UNKNOWN_TYPE;
}

function cacheControlOf({ cacheControl }: FileSettings, path: string): string | undefined {
  return typeof cacheControl === 'function' ? cacheControl(path) : cacheControl;
}

function checkHeaderText(name: string, value: unknown): void {
  if (typeof value !== 'string') throw invalidType(name, 'of type string', value);
  if (!isFieldValue(value))
    throw invalidValue(name, 'has a character that no header may have', value);
}

function pathOf(name: string, path: unknown): string {
  if (path instanceof URL) return fileURLToPath(path);
  if (typeof path !== 'string') throw invalidType(name, 'of type string or a file: URL', path);
  if (path === '' || path.includes('\0')) throw invalidValue(name, 'is no path', path);
  return resolve(path);
}

function checkPrefix(prefix: unknown): string {
  if (typeof prefix !== 'string') throw invalidType('options.prefix', 'of type string', prefix);
  if (prefix !== '' && !/^(\/[^/?#]+)+\/?$/.test(prefix) && prefix !== '/')
    throw invalidValue('options.prefix', 'is no path', prefix);
  return prefix.replace(/\/$/, '');
}

function checkIndex(index: unknown): readonly string[] {
  if (!Array.isArray(index)) throw invalidType('options.index', 'an instance of Array', index);
  for (const name of index)
    if (typeof name !== 'string' || name === '' || /[/\\\0]|^\.\.?$/.test(name))
      throw invalidValue('options.index', 'has what is no name of a file', name);
  if (index.length > INDEX_MAX)
    throw invalidValue('options.index', `has more than ${INDEX_MAX} names`, index);
  return [...index];
}
