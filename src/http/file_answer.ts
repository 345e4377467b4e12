// The answer to a request for one open file: conditions, ranges, and its bytes.

import { randomBytes } from 'node:crypto';
import { type ByteRange, rangesOf } from './byte_ranges.js';
import { judge, rangeHolds } from './conditions.js';
import type { OpenFile } from './file_cache.js';
import type { HttpRequest } from './http_request.js';
import type { FilePart, HttpResponse } from './http_response.js';

/** Up to so many bytes are read and sent with the head, in one system call. */
const READ_MAX = 32 * 1024;

export interface FileAnswer {
  readonly type: string;
  readonly cacheControl: string | undefined;
  readonly encoding: string | undefined;
  /** Whether other encodings of it exist. */
  readonly varies: boolean;
  readonly rangesMax: number;
}

/** Headers that the response has already stay, but for those that tell of the bytes. */
export function answerFile(
  request: HttpRequest,
  response: HttpResponse,
  file: OpenFile,
  how: FileAnswer,
): void {
  const { size, etag, modified } = file;
  const { headers } = request;
  response.set('ETag', etag);
  if (modified !== undefined) response.set('Last-Modified', new Date(modified).toUTCString());
  response.set('Accept-Ranges', 'bytes');
  const { cacheControl } = how;
  if (cacheControl !== undefined && response.get('cache-control') === undefined)
    response.set('Cache-Control', cacheControl);
  if (how.varies) response.append('Vary', 'Accept-Encoding');
  const verdict = judge(headers, file);
  if (verdict !== 200) {
    response.status = verdict;
    response.send(verdict === 412 ? 'What there is, is not what was asked for.\n' : '');
    return;
  }
  if (how.encoding !== undefined) response.set('Content-Encoding', how.encoding);
  const type = response.get('content-type') ?? how.type;
  const range = request.method === 'GET' ? headers.get('range') : undefined;
  const holds =
    range !== undefined &&
    rangeHolds(headers.get('if-range'), file, request.stream.base.wallTime());
  const ranges = holds ? rangesOf(range, size, how.rangesMax) : 'whole';
  if (ranges === 'none') refuseRange(response, size);
  else if (ranges !== 'whole' && ranges.length > 1) sendRanges(response, file, type, ranges);
  else {
    const { start, length } = ranges === 'whole' ? { start: 0, length: size } : ranges[0];
    if (ranges !== 'whole') {
      response.status = 206;
      response.set('Content-Range', rangeText(ranges[0], size));
    }
    response.set('Content-Type', type);
    sendPart(request, response, { file: file.segment, start, length });
  }
}

function sendPart({ method }: HttpRequest, response: HttpResponse, part: FilePart): void {
  const { file, start, length } = part;
  // What has been read can travel with its connection, and no more than this is read at once.
  if (length > 0 && length <= READ_MAX && method !== 'HEAD')
    response.send(file._read(file.offset + start, length));
  else response._sendParts([part], length);
}

function rangeText({ start, length }: ByteRange, size: number): string {
  return `bytes ${start}-${start + length - 1}/${size}`;
}

function refuseRange(response: HttpResponse, size: number): void {
  response.status = 416;
  response.remove('content-encoding');
  response.set('Content-Range', `bytes */${size}`);
  response.send(`There are ${size} bytes, and none of them was asked for.\n`);
}

/** multipart/byteranges (RFC 9110 section 14.6). */
function sendRanges(
  response: HttpResponse,
  { segment, size }: OpenFile,
  type: string,
  ranges: readonly ByteRange[],
): void {
  const boundary = randomBytes(18).toString('hex');
  const parts: (string | FilePart)[] = [];
  let total = 0;
  const text = (line: string) => {
    parts.push(line);
    total += line.length;
  };
  let before = '';
  for (const range of ranges) {
    text(
      `${before}--${boundary}\r\nContent-Type: ${type}\r\n` +
        `Content-Range: ${rangeText(range, size)}\r\n\r\n`,
    );
    parts.push({ file: segment, ...range });
    total += range.length;
    before = '\r\n';
  }
  text(`\r\n--${boundary}--\r\n`);
  response.status = 206;
  response.set('Content-Type', `multipart/byteranges; boundary=${boundary}`);
  response._sendParts(parts, total);
}
