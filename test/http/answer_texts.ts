// Answers as text, and what the client makes of them: the body, or the error.

export interface AnswerCase {
  text: string;
  /** The status and the body, or the code and a part of the message. */
  expect: [status: number, body: string] | [code: 'malformed' | 'too large' | 'ended', why: string];
  /** Of the request, GET otherwise. */
  method?: string;
}

const OK = 'HTTP/1.1 200 OK\r\n';
const CHUNKED = 'Transfer-Encoding: chunked\r\n';
const good = (text: string, body = 'abc', status = 200): AnswerCase => ({
  text,
  expect: [status, body],
});
const bad = (text: string, why: string): AnswerCase => ({ text, expect: ['malformed', why] });
const large = (text: string, why: string): AnswerCase => ({ text, expect: ['too large', why] });
const cut = (text: string, why: string): AnswerCase => ({ text, expect: ['ended', why] });
const with_ = (headers: string, body = '') => `${OK}${headers}\r\n${body}`;
const chunks = (body: string) => with_(CHUNKED, body);

export const answers: Record<string, AnswerCase> = {
  'a length': good(with_('Content-Length: 3\r\n', 'abc')),
  'a length with zeros before it': good(with_('Content-Length: 003\r\n', 'abc')),
  'a body of no bytes': good(with_('Content-Length: 0\r\n'), ''),
  'no length': good(with_('', 'abc')),
  'no length, and no body': good(with_(''), ''),
  'HTTP/1.0': good('HTTP/1.0 200 OK\r\n\r\nabc'),
  'a later minor version': good('HTTP/1.2 200 OK\r\nContent-Length: 3\r\n\r\nabc'),
  'no reason': good('HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc'),
  'no reason, and no space': good('HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc'),
  'a reason of words, tabs and high bytes': good('HTTP/1.1 200 a\tb \xe9\r\n\r\nabc'),
  'a status that nobody knows': good('HTTP/1.1 799 x\r\nContent-Length: 3\r\n\r\nabc', 'abc', 799),
  chunks: good(chunks('1\r\na\r\n2\r\nbc\r\n0\r\n\r\n')),
  'chunks with extensions and trailers': good(chunks('3;a=b\r\nabc\r\n0;c\r\nD: e\r\n\r\n')),
  'Chunked in capitals': good(with_('Transfer-Encoding: CHUNKED\r\n', '3\r\nabc\r\n0\r\n\r\n')),
  '204 with a length': good('HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n', '', 204),
  '304 with a length': good('HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n', '', 304),
  '304 in chunks': good(`HTTP/1.1 304 No\r\n${CHUNKED}\r\n`, '', 304),
  'HEAD with a length': { ...good(with_('Content-Length: 3\r\n'), ''), method: 'HEAD' },
  'HEAD in chunks': { ...good(with_(CHUNKED), ''), method: 'HEAD' },
  'an expectation, which means nothing here': good(with_('Expect: x\r\n', 'abc')),
  '100, 103, and the answer': good(
    `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n${with_('', 'abc')}`,
  ),
  'more than was asked for': good(with_('Content-Length: 3\r\n', `abc${OK}\r\n`)),

  // ── the status line ──
  'nothing of HTTP': bad('SSH-2.0-x\r\n', 'status line'),
  'HTTP/0.9': bad('<html>', 'status line'),
  'an empty line before': bad(`\r\n${with_('')}`, 'status line'),
  'ICY 200': bad('ICY 200 OK\r\n\r\n', 'status line'),
  'lower case': bad('http/1.1 200 OK\r\n\r\n', 'status line'),
  'HTTP/2.0': bad('HTTP/2.0 200 OK\r\n\r\n', 'version'),
  'HTTP/0.9 by name': bad('HTTP/0.9 200 OK\r\n\r\n', 'version'),
  'a version of more digits': bad('HTTP/1.10 200 OK\r\n\r\n', 'status line'),
  'two spaces': bad('HTTP/1.1  200 OK\r\n\r\n', 'status'),
  'a tab': bad('HTTP/1.1\t200 OK\r\n\r\n', 'status line'),
  'a status of two digits': bad('HTTP/1.1 20 OK\r\n\r\n', 'status'),
  'a status of four digits': bad('HTTP/1.1 2000 OK\r\n\r\n', 'status'),
  'a status below 100': bad('HTTP/1.1 099 OK\r\n\r\n', 'status'),
  'a status with a sign': bad('HTTP/1.1 +20 OK\r\n\r\n', 'status'),
  'a status line that ends with LF': bad('HTTP/1.1 200 OK\n\r\n', 'CR LF'),
  'a status line without a reason that ends with LF': bad('HTTP/1.1 200\n\r\n', 'CR LF'),
  'CR in the reason': bad('HTTP/1.1 200 O\rK\r\n\r\n', 'CR LF'),
  'NUL in the reason': bad('HTTP/1.1 200 O\0K\r\n\r\n', 'reason'),
  '101 that nobody asked for': bad('HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n', 'protocol'),
  'a status line of 9 KiB': large(`HTTP/1.1 200 ${'x'.repeat(9_000)}\r\n\r\n`, 'status line'),
  '101 answers before it': bad('HTTP/1.1 103 x\r\n\r\n'.repeat(101) + with_(''), 'before it'),

  // ── headers ──
  'a space before the colon': bad(with_('A : b\r\n'), 'name'),
  'no colon': bad(with_('A\r\n'), 'name'),
  'a folded header': bad(with_('A: b\r\n c\r\n'), 'folded'),
  'a fold before the first header': bad(`${OK} A: b\r\n\r\n`, 'folded'),
  'a header that ends with LF': bad(with_('A: b\n'), 'CR LF'),
  'NUL in a value': bad(with_('A: \0\r\n'), 'character'),
  'LF LF at the end': bad(`${OK}A: b\r\n\n`, 'CR LF'),
  '201 headers': large(with_('A: b\r\n'.repeat(201)), 'too many'),
  'headers of 65 KiB': large(with_(`A: ${'b'.repeat(65 * 1024)}\r\n`), 'headers'),

  // ── framing ──
  'a length and a coding': bad(with_(`Content-Length: 3\r\n${CHUNKED}`), 'not both'),
  'two lengths': bad(with_('Content-Length: 3\r\nContent-Length: 4\r\n', 'abc'), 'one number'),
  'the same length twice': bad(with_('Content-Length: 3\r\nContent-Length: 3\r\n'), 'one number'),
  'a list of lengths': bad(with_('Content-Length: 3, 3\r\n', 'abc'), 'one number'),
  'a negative length': bad(with_('Content-Length: -3\r\n'), 'one number'),
  'a length in words': bad(with_('Content-Length: many\r\n'), 'one number'),
  gzip: bad(with_('Transfer-Encoding: gzip\r\n'), 'not chunked'),
  'a coding before chunked': bad(with_('Transfer-Encoding: gzip, chunked\r\n'), 'known'),
  'chunked twice': bad(with_('Transfer-Encoding: chunked, chunked\r\n'), 'not chunked'),
  'chunked in HTTP/1.0': bad(`HTTP/1.0 200 OK\r\n${CHUNKED}\r\n`, 'HTTP/1.0'),
  'a length past the limit': large(with_('Content-Length: 100001\r\n'), 'bodyMax'),
  'a body past the limit': large(with_('', 'x'.repeat(100_001)), 'bodyMax'),
  'chunks past the limit': large(chunks(`186a1\r\n${'x'.repeat(100_001)}`), 'body'),

  // ── chunks ──
  'a size with a sign': bad(chunks('+3\r\nabc\r\n'), 'chunk'),
  'a size of no digits': bad(chunks('\r\nabc\r\n'), 'chunk'),
  'a size that ends with LF': bad(chunks('3\nabc\r\n'), 'chunk'),
  'a chunk that is too long': bad(chunks('3\r\nabcd\r\n'), 'chunk'),
  'extensions of 17 KiB': large(chunks(`3;${'a'.repeat(17 * 1024)}\r\nabc`), 'extensions'),
  'trailers of 17 KiB': large(chunks(`0\r\nA: ${'b'.repeat(17 * 1024)}\r\n\r\n`), 'trailers'),
  'a trailer that frames': bad(chunks('0\r\nContent-Length: 3\r\n\r\n'), 'trailer'),
  'a folded trailer': bad(chunks('0\r\nA: b\r\n c\r\n\r\n'), 'trailer'),

  // ── ends ──
  'nothing at all': cut('', 'its answer'),
  'a part of the status line': cut('HTTP/1.1 20', 'its answer'),
  'a part of the headers': cut(`${OK}A: b\r\n`, 'its answer'),
  '100 and no answer': cut('HTTP/1.1 100 Continue\r\n\r\n', 'its answer'),
  'less than the length': cut(with_('Content-Length: 4\r\n', 'abc'), 'its body'),
  'a part of a chunk': cut(chunks('4\r\nabc'), 'its body'),
  'no last chunk': cut(chunks('3\r\nabc\r\n'), 'its body'),
  'a part of the trailers': cut(chunks('3\r\nabc\r\n0\r\nA: b\r\n'), 'its body'),
};

const LINE = 'a status line begins an answer, and is of HTTP/1 (RFC 9112 section 4)';
const STATUS = 'a status is three digits from 100 on (RFC 9110 section 15)';
const REASON = 'a reason has no control characters (RFC 9112 section 4)';
const LIMIT = 'a limit of its own; Node has none there, or counts the whole head';
const CODING = 'a coding that nobody undoes is refused, and not given out as the body';
const SWITCH = 'an answer that changes the protocol is one to a request that asks for it';

/** Every difference from the client of Node 20, with its reason. Other versions may have fewer. */
export const answerDifferences: Record<string, string> = {
  'a later minor version': LINE,
  'an empty line before': LINE,
  'HTTP/2.0': LINE,
  'HTTP/0.9 by name': LINE,
  'a status below 100': STATUS,
  'NUL in the reason': REASON,
  '101 that nobody asked for': SWITCH,
  'a status line of 9 KiB': LIMIT,
  '101 answers before it': LIMIT,
  '201 headers': LIMIT,
  gzip: CODING,
  'a body past the limit': LIMIT,
};
