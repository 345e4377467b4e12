// A small HTTP/1.1 server that shows which loop answers: a page at /, the same as JSON at
// /loop.json. With ?fresh the answer closes its connection, so that a browser's next request comes
// over a new one, which may be another loop's.

import { type Connection, defineWorker, type EventHandle, type LoopContext } from '../src/index.js';

/** A request's line and headers together; more is refused. */
const HEAD_BYTES_MAX = 16 * 1024;
/** A longer body is not worth skipping: the connection is closed instead. */
const BODY_BYTES_MAX = 1024 * 1024;
/** How long a peer may go on sending after its last answer, which a reset would destroy. */
const LINGER_MS = 1_000;

interface State {
  /** Input that waits: an unfinished head, or requests whose answers the peer does not read. */
  rest: Buffer;
  /** Bytes of a request's body that are still to be skipped. */
  skip: number;
  /** The last answer was given. */
  ended: boolean;
  /** Answers wait for the peer to read. */
  blocked: boolean;
  linger: EventHandle | undefined;
  /** A request is on its way, so a drain waits for it. */
  held: boolean;
}

const NOTHING = Buffer.alloc(0);

// Of this loop: every loop's thread has this module for itself.
let open = 0;
let requests = 0;

export default defineWorker<State>({
  open(conn) {
    open++;
    conn.state = {
      rest: NOTHING,
      skip: 0,
      ended: false,
      blocked: false,
      linger: undefined,
      held: false,
    };
  },
  data(conn, chunk) {
    const { state } = conn;
    if (state.ended) return;
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    serve(conn, state.rest.length === 0 ? bytes : Buffer.concat([state.rest, bytes]));
  },
  writable(conn) {
    const { state } = conn;
    if (!state.blocked) return;
    state.blocked = false;
    serve(conn, state.rest);
    if (!state.blocked) conn.resume();
  },
  close(conn) {
    open--;
    conn.state.linger?.free();
  },
});

/** Answers every request that is whole, and keeps what is not. */
function serve(conn: Connection<State>, input: Buffer): void {
  const { state } = conn;
  let at = 0;
  while (at < input.length && !state.ended && !state.blocked) {
    if (state.skip > 0) {
      const skipped = Math.min(state.skip, input.length - at);
      state.skip -= skipped;
      at += skipped;
      continue;
    }
    // An empty line before a request is ignored (RFC 9112 section 2.2).
    if (input[at] === CR && input[at + 1] === LF) {
      at += 2;
      continue;
    }
    const end = input.indexOf('\r\n\r\n', at, 'latin1');
    const length = (end < 0 ? input.length : end + 4) - at;
    if (length > HEAD_BYTES_MAX) {
      refuse(conn, 431, 'the head of a request is limited to 16 KiB');
    } else if (end < 0) {
      if (isHopeless(input, at)) refuse(conn, 400, 'this is not HTTP/1.1');
      break;
    } else {
      // The last header's line end belongs to the head, the empty line does not.
      respond(conn, parseHead(input.toString('latin1', at, end + 2)));
      at += length;
    }
  }
  // Copied, since an unfinished head would keep the whole chunk alive.
  if (state.ended || at >= input.length) state.rest = NOTHING;
  else state.rest = state.blocked ? input.subarray(at) : Buffer.from(input.subarray(at));
  const isUnderWay = !state.ended && (state.rest.length > 0 || state.skip > 0);
  if (isUnderWay !== state.held) setHeld(conn, isUnderWay);
}

const holds = new WeakMap<Connection, Disposable>();

function setHeld(conn: Connection<State>, held: boolean): void {
  conn.state.held = held;
  if (held) holds.set(conn, conn.hold());
  else holds.get(conn)?.[Symbol.dispose]();
}

// ── requests ──

const CR = 13;
const LF = 10;

interface Request {
  method: string;
  path: string;
  query: string;
  keepAlive: boolean;
  /** Has to be told that its connection is kept. */
  isOld: boolean;
  bodyLength: number;
}

interface Refusal {
  status: number;
  why: string;
}

// RFC 9110 section 5.6.2; a value is anything but control characters, a tab excepted.
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~\w]+) ([!-~\x80-\xff]+) HTTP\/(\d)\.(\d)\r\n/;
const HEADER = /([!#$%&'*+\-.^_`|~\w]+):[ \t]*([\t -~\x80-\xff]*)\r\n/y;

/** What has no hope of becoming a request, so that nobody waits for the rest of it. */
function isHopeless(input: Buffer, at: number): boolean {
  const first = input[at];
  if (first === CR) return input.length > at + 1;
  const isLetter = (first | 0x20) >= 0x61 && (first | 0x20) <= 0x7a;
  const lineEnd = input.indexOf(LF, at);
  return !isLetter || (lineEnd > at && input[lineEnd - 1] !== CR);
}

function parseHead(head: string): Request | Refusal {
  const line = REQUEST_LINE.exec(head);
  if (line === null) return { status: 400, why: 'the request line is malformed' };
  const [whole, method, target, major, minor] = line;
  if (major !== '1') return { status: 505, why: 'this server speaks HTTP/1.1' };
  const isOld = minor === '0';
  const headers = parseHeaders(head, whole.length);
  if (headers === undefined) return { status: 400, why: 'a header is malformed' };
  if (headers.hosts > 1 || (headers.hosts === 0 && !isOld))
    return { status: 400, why: 'a request needs one Host header' };
  const body = checkBody(headers);
  if (typeof body !== 'number') return body;
  const options = headers.connection.toLowerCase().split(/[ \t]*,[ \t]*/);
  const wantsClose = options.includes('close') || (isOld && !options.includes('keep-alive'));
  // Somebody who waits for leave to send the body is told not to, and may send it all the same.
  const keepAlive = !wantsClose && !headers.expects;
  const [path, query] = splitTarget(target);
  return { method, path, query, keepAlive, isOld, bodyLength: body };
}

interface Headers {
  hosts: number;
  connection: string;
  contentLength: string | undefined;
  /** Two lengths that differ. */
  isAmbiguous: boolean;
  transferEncoding: string | undefined;
  expects: boolean;
}

function parseHeaders(head: string, from: number): Headers | undefined {
  const headers: Headers = {
    hosts: 0,
    connection: '',
    contentLength: undefined,
    isAmbiguous: false,
    transferEncoding: undefined,
    expects: false,
  };
  HEADER.lastIndex = from;
  while (HEADER.lastIndex < head.length) {
    const match = HEADER.exec(head);
    if (match === null) return undefined;
    noteHeader(headers, match[1], match[2]);
  }
  return headers;
}

/** Few names matter, and their lengths tell them apart from most others. */
function noteHeader(headers: Headers, name: string, text: string): void {
  if (name.length === 4 && name.toLowerCase() === 'host') headers.hosts++;
  else if (name.length === 6 && name.toLowerCase() === 'expect') headers.expects = true;
  else if (name.length === 10 && name.toLowerCase() === 'connection')
    headers.connection += headers.connection === '' ? text.trim() : `,${text.trim()}`;
  else if (name.length === 14 && name.toLowerCase() === 'content-length') {
    const value = text.trim();
    headers.isAmbiguous ||= headers.contentLength !== undefined && headers.contentLength !== value;
    headers.contentLength = value;
  } else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') {
    headers.transferEncoding = text.trim().toLowerCase();
  }
}

/** The body's length, or why nobody can tell where the next request begins. */
function checkBody(headers: Headers): number | Refusal {
  const { contentLength, transferEncoding } = headers;
  if (transferEncoding !== undefined) {
    if (contentLength !== undefined)
      return { status: 400, why: 'a body has a length or a coding, not both' };
    return transferEncoding === 'chunked'
      ? { status: 411, why: 'a body needs a Content-Length here' }
      : { status: 501, why: 'this transfer coding is not supported' };
  }
  if (contentLength === undefined) return 0;
  if (headers.isAmbiguous || !/^\d{1,15}$/.test(contentLength))
    return { status: 400, why: 'the Content-Length is malformed' };
  const length = Number(contentLength);
  if (length <= BODY_BYTES_MAX) return length;
  return { status: 413, why: 'a body is limited to 1 MiB' };
}

/** The path and the query of `/path?query` or `http://host/path?query`. */
function splitTarget(target: string): [path: string, query: string] {
  const origin = /^https?:\/\/[^/?]*/i.exec(target);
  const local = origin === null ? target : target.slice(origin[0].length);
  const mark = local.indexOf('?');
  const path = mark < 0 ? local : local.slice(0, mark);
  return [path === '' ? '/' : path, mark < 0 ? '' : local.slice(mark + 1)];
}

// ── answers ──

const REASONS: Record<number, string> = {
  200: 'OK',
  400: 'Bad Request',
  404: 'Not Found',
  405: 'Method Not Allowed',
  411: 'Length Required',
  413: 'Content Too Large',
  431: 'Request Header Fields Too Large',
  501: 'Not Implemented',
  505: 'HTTP Version Not Supported',
};

function respond(conn: Connection<State>, request: Request | Refusal): void {
  if ('why' in request) {
    refuse(conn, request.status, request.why);
    return;
  }
  requests++;
  const { method, path, query } = request;
  if (path !== '/' && path !== '/loop.json')
    answer(conn, request, 404, TEXT, 'Not found: there is / and /loop.json.\n');
  else if (method !== 'GET' && method !== 'HEAD')
    answer(conn, request, 405, `Allow: GET, HEAD\r\n${TEXT}`, `${method} is not allowed here.\n`);
  else if (path === '/') answer(conn, request, 200, HTML, page(conn.loop));
  else {
    if (query === 'fresh') request.keepAlive = false;
    answer(conn, request, 200, JSON_TYPE, `${JSON.stringify(facts(conn.loop))}\n`);
  }
}

const TEXT = 'Content-Type: text/plain; charset=utf-8\r\n';
const HTML = 'Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n';
const JSON_TYPE = 'Content-Type: application/json\r\nCache-Control: no-store\r\n';

function answer(
  conn: Connection<State>,
  request: Request,
  status: number,
  headers: string,
  body: string,
): void {
  const { keepAlive, isOld } = request;
  const goesOn = keepAlive && !conn.loop.signal.aborted;
  const kept = isOld ? 'Connection: keep-alive\r\n' : '';
  const fate = goesOn ? kept : 'Connection: close\r\n';
  const head =
    `HTTP/1.1 ${status} ${REASONS[status]}\r\nDate: ${date(conn.loop)}\r\n${headers}` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n${fate}\r\n`;
  const { state } = conn;
  state.skip = request.bodyLength;
  const text = request.method === 'HEAD' ? head : head + body;
  if (!goesOn) finish(conn, text);
  else if (!conn.write(text)) {
    // Whoever sends requests without reading the answers has to wait for them.
    state.blocked = true;
    conn.pause();
  }
}

/** Answers what cannot be understood; where the next request begins is anybody's guess. */
function refuse(conn: Connection<State>, status: number, why: string): void {
  requests++;
  const body = `${REASONS[status]}: ${why}.\n`;
  finish(
    conn,
    `HTTP/1.1 ${status} ${REASONS[status]}\r\nDate: ${date(conn.loop)}\r\n${TEXT}` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

function finish(conn: Connection<State>, text: string): void {
  const { state } = conn;
  state.ended = true;
  conn.end(text);
  state.linger = conn.loop.base.timer(() => conn.close()).add(LINGER_MS);
}

let dateText = '';
let dateMadeAt = Number.NEGATIVE_INFINITY;

/** Made once a second. */
function date({ base }: LoopContext): string {
  const now = base.now();
  if (now - dateMadeAt >= 1_000) {
    dateText = new Date().toUTCString();
    dateMadeAt = now;
  }
  return dateText;
}

// ── what is shown ──

function facts({ id, threadId, generation, base }: LoopContext) {
  const { backend, waker } = base;
  const connections = open;
  return {
    loop: id,
    generation,
    threadId,
    backend,
    waker,
    pid: process.pid,
    connections,
    requests,
  };
}

/** All of it comes from this process, none of it from the request, so nothing needs escaping. */
function page(loop: LoopContext): string {
  const is = facts(loop);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>loop ${is.loop} · multiloop</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
<main>
<p class="quiet">multiloop</p>
<h1 style="--loop: ${is.loop}">loop <b>${is.loop}</b></h1>
<p>answered this request, its ${ordinal(is.requests)}.</p>
<dl>
<div><dt>backend<dd>${is.backend}</div>
<div><dt>waker<dd>${is.waker}</div>
<div><dt>connections<dd>${is.connections}</div>
<div><dt>generation<dd>${is.generation}</div>
<div><dt>thread<dd>${is.threadId}</div>
<div><dt>process<dd>${is.pid}</div>
</dl>
<section hidden>
<h2>More requests, each over a connection of its own</h2>
<ol></ol>
<p class="quiet" role="status"></p>
<button type="button">Send 24 more</button>
</section>
</main>
<script>${SCRIPT}</script>
</html>
`;
}

function ordinal(number: number): string {
  const tens = number % 100;
  const suffix = tens > 10 && tens < 14 ? 'th' : (['th', 'st', 'nd', 'rd'][number % 10] ?? 'th');
  return `${number}${suffix}`;
}

// A loop's colour is a step of the golden angle further than the one before, so that neighbours
// never look alike, however many there are.
const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f27; --quiet: #68707f; --paper: #f6f7f9;
  --card: #fff; --line: #e2e5ea; --light: 46%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --quiet: #9299a8;
  --paper: #14161b; --card: #1c1f26; --line: #2d313a; --light: 62%; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 42rem; margin: 0 auto; padding: 3rem 1.25rem; }
p { margin: 0; }
.quiet { color: var(--quiet); }
h1 { margin: 0; font-size: clamp(3.5rem, 17vw, 7rem); font-weight: 300; line-height: 1.1;
  letter-spacing: -.03em; }
h1 b, li { --hue: calc(210 + var(--loop) * 137.5); }
h1 b { color: hsl(var(--hue) 70% var(--light)); font-weight: 650; }
dl { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1px;
  margin: 2rem 0; border: 1px solid var(--line); border-radius: .6rem; overflow: hidden;
  background: var(--line); }
dl div { padding: .7rem 1rem; background: var(--card); }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
h2 { margin: 0 0 .8rem; font-size: 1rem; font-weight: 600; }
ol { display: flex; flex-wrap: wrap; gap: .3rem; min-height: 2rem; margin: 0 0 .8rem;
  padding: 0; list-style: none; }
li { min-width: 2rem; padding: 0 .35rem; border-radius: .35rem; color: #fff; line-height: 2rem;
  text-align: center; font-size: .85rem; font-weight: 600;
  background: hsl(var(--hue) 60% 38%); }
button { margin-top: 1rem; padding: .5rem 1rem; border: 1px solid var(--line);
  border-radius: .5rem; background: var(--card); color: inherit; font: inherit; cursor: pointer; }
button:disabled { opacity: .5; cursor: default; }
`;

const SCRIPT = `
const section = document.querySelector('section');
const strip = section.querySelector('ol');
const status = section.querySelector('[role=status]');
const button = section.querySelector('button');
const counts = new Map();
section.hidden = false;

function draw(loop) {
  const item = document.createElement('li');
  item.style.setProperty('--loop', loop);
  item.textContent = loop;
  item.title = 'loop ' + loop;
  strip.append(item);
  counts.set(loop, (counts.get(loop) ?? 0) + 1);
  status.textContent = [...counts].sort((a, b) => a[0] - b[0])
    .map(([id, count]) => 'loop ' + id + ': ' + count).join(', ');
}

async function send() {
  button.disabled = true;
  try {
    for (let i = 0; i < 24; i++) {
      const response = await fetch('/loop.json?fresh', { cache: 'no-store' });
      draw((await response.json()).loop);
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  } catch {
    status.textContent = 'The server does not answer any more.';
  }
  button.disabled = false;
}

button.addEventListener('click', send);
send();
`;
