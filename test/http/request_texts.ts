// Requests as text, each with the statuses of its answers; and what node:http does differently.

export interface Case {
  text: string;
  expect: number[];
}

const ok = (text: string, count = 1): Case => ({ text, expect: Array(count).fill(200) });
const no = (status: number, text: string): Case => ({ text, expect: [status] });
const H = 'Host: a\r\n';
const get = (headers: string) => `GET / HTTP/1.1\r\n${H}${headers}\r\n`;
const post = (headers: string, body: string) => `POST / HTTP/1.1\r\n${H}${headers}\r\n${body}`;
const CHUNKED = 'Transfer-Encoding: chunked\r\n';

export const cases: Record<string, Case> = {
  'a request': ok(get('')),
  'no headers but Host, HTTP/1.0': ok(`GET / HTTP/1.0\r\n${H}\r\n`),
  'HTTP/1.0 without Host': ok('GET / HTTP/1.0\r\n\r\n'),
  'an empty line before': ok(`\r\n${get('')}`),
  'two in one packet': ok(get('') + get(''), 2),
  'every character of a token': ok(`M!#$%&'*+-.^_\`|~09 / HTTP/1.1\r\n${H}\r\n`),
  'tabs and spaces around a value': ok(get('A: \t b \t \r\n')),
  'a header of no characters': ok(get('A:\r\n')),
  'obs-text in a value': ok(get('A: \xe9\xff\r\n')),
  'a whole URL': ok(`GET http://b/c?d HTTP/1.1\r\n${H}\r\n`),
  'a whole URL without a path': ok(`GET http://b HTTP/1.1\r\n${H}\r\n`),
  asterisk: ok(`OPTIONS * HTTP/1.1\r\n${H}\r\n`),
  'an empty Host': ok('GET / HTTP/1.1\r\nHost:\r\n\r\n'),
  'Host with a port': ok('GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n'),
  'a later minor version': ok(`GET / HTTP/1.2\r\n${H}\r\n`),

  // ── the request line ──
  'no method': no(400, ` / HTTP/1.1\r\n${H}\r\n`),
  'a method that is no token': no(400, `G(T / HTTP/1.1\r\n${H}\r\n`),
  'two spaces': no(400, `GET  / HTTP/1.1\r\n${H}\r\n`),
  'a tab': no(400, `GET\t/ HTTP/1.1\r\n${H}\r\n`),
  'a space behind the version': no(400, `GET / HTTP/1.1 \r\n${H}\r\n`),
  'no version': no(400, `GET /\r\n${H}\r\n`),
  'a version in lower case': no(400, `GET / http/1.1\r\n${H}\r\n`),
  'a version of more digits': no(400, `GET / HTTP/1.10\r\n${H}\r\n`),
  'HTTP/2.0': no(505, `GET / HTTP/2.0\r\n${H}\r\n`),
  'HTTP/0.9': no(505, `GET / HTTP/0.9\r\n${H}\r\n`),
  'the preface of HTTP/2': no(505, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  'a target that is no path': no(400, `GET a HTTP/1.1\r\n${H}\r\n`),
  'a target of another scheme': no(400, `GET ftp://a/ HTTP/1.1\r\n${H}\r\n`),
  'a URL without a host': no(400, `GET http:///a HTTP/1.1\r\n${H}\r\n`),
  'asterisk for GET': no(400, `GET * HTTP/1.1\r\n${H}\r\n`),
  'a fragment': no(400, `GET /#a HTTP/1.1\r\n${H}\r\n`),
  'a high byte in the target': no(400, `GET /\xe9 HTTP/1.1\r\n${H}\r\n`),
  'NUL in the target': no(400, `GET /\0 HTTP/1.1\r\n${H}\r\n`),
  'DEL in the target': no(400, `GET /\x7f HTTP/1.1\r\n${H}\r\n`),
  CONNECT: no(501, `CONNECT a:80 HTTP/1.1\r\n${H}\r\n`),
  'a request line that ends with LF': no(400, `GET / HTTP/1.1\n${H}\r\n`),
  'a request line with CR': no(400, `GET / HTTP/1.1\rA: b\r\n${H}\r\n`),
  'a request line of 9,000 bytes': no(414, `GET /${'a'.repeat(9_000)} HTTP/1.1\r\n${H}\r\n`),
  'TLS on a plain port': no(400, '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n'),

  // ── headers ──
  'a space before the colon': no(400, get('A : b\r\n')),
  'a tab before the colon': no(400, get('A\t: b\r\n')),
  'no colon': no(400, get('A\r\n')),
  'a name of no characters': no(400, get(': b\r\n')),
  'a name with a high byte': no(400, get('\xe9: b\r\n')),
  'a folded header': no(400, get('A: b\r\n c\r\n')),
  'a fold before the first header': no(400, `GET / HTTP/1.1\r\n A: b\r\n${H}\r\n`),
  'a header that ends with LF': no(400, get('A: b\nC: d\r\n')),
  'LF LF at the end': no(400, `GET / HTTP/1.1\r\n${H}\n`),
  'CR in a value': no(400, get('A: b\rc\r\n')),
  'CR CR LF': no(400, get('A: b\r\r\n')),
  'NUL in a value': no(400, get('A: \0\r\n')),
  'a control character in a value': no(400, get('A: \x01\r\n')),
  'DEL in a value': no(400, get('A: \x7f\r\n')),
  '101 headers': no(431, get('A: b\r\n'.repeat(100))),
  'headers of 17 KiB': no(431, get(`A: ${'b'.repeat(17 * 1024)}\r\n`)),
  '10,000 headers': no(431, get('A: b\r\n'.repeat(10_000))),

  // ── Host ──
  'no Host': no(400, 'GET / HTTP/1.1\r\n\r\n'),
  'two Hosts': no(400, get('Host: b\r\n')),
  'the same Host twice': no(400, get('Host: a\r\n')),
  'two Hosts in HTTP/1.0': no(400, `GET / HTTP/1.0\r\n${H}${H}\r\n`),
  'a Host with a slash': no(400, 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n'),
  'a Host with a user': no(400, 'GET / HTTP/1.1\r\nHost: a@b\r\n\r\n'),
  'a list of Hosts': no(400, 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n'),

  // ── framing ──
  'a body': ok(post('Content-Length: 3\r\n', 'abc')),
  'a body, and a request behind it': ok(post('Content-Length: 3\r\n', 'abc') + get(''), 2),
  'a body of no bytes': ok(post('Content-Length: 0\r\n', '')),
  'a length with zeros before it': ok(post('Content-Length: 003\r\n', 'abc')),
  'a length and a coding': no(400, post(`Content-Length: 3\r\n${CHUNKED}`, '0\r\n\r\n')),
  'a coding and a length': no(400, post(`${CHUNKED}Content-Length: 3\r\n`, '0\r\n\r\n')),
  'two lengths': no(400, post('Content-Length: 3\r\nContent-Length: 4\r\n', 'abc')),
  'the same length twice': no(400, post('Content-Length: 3\r\nContent-Length: 3\r\n', 'abc')),
  'a list of lengths': no(400, post('Content-Length: 3, 3\r\n', 'abc')),
  'a negative length': no(400, post('Content-Length: -3\r\n', 'abc')),
  'a length with a sign': no(400, post('Content-Length: +3\r\n', 'abc')),
  'a length in hexadecimal': no(400, post('Content-Length: 0x3\r\n', 'abc')),
  'a length with a fraction': no(400, post('Content-Length: 3.0\r\n', 'abc')),
  'a length of no digits': no(400, post('Content-Length:\r\n', 'abc')),
  'a length with a space in it': no(400, post('Content-Length: 1 2\r\n', 'abc')),
  'a length past any limit': no(413, post('Content-Length: 99999999999\r\n', '')),
  'a length past any number': no(413, post(`Content-Length: ${'9'.repeat(40)}\r\n`, '')),
  gzip: no(400, post('Transfer-Encoding: gzip\r\n', '')),
  identity: no(400, post('Transfer-Encoding: identity\r\n', '')),
  'chunked, and something after it': no(400, post('Transfer-Encoding: chunked, gzip\r\n', '')),
  'a coding before chunked': no(501, post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n')),
  'chunked twice': no(400, post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')),
  'chunked in two headers': no(400, post(CHUNKED + CHUNKED, '0\r\n\r\n')),
  'a name that ends with chunked': no(400, post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n')),
  'chunked with a parameter': no(400, post('Transfer-Encoding: chunked;a=b\r\n', '0\r\n\r\n')),
  'a coding of no characters': no(400, post('Transfer-Encoding:\r\n', '')),
  'chunked in HTTP/1.0': no(400, `POST / HTTP/1.0\r\n${CHUNKED}\r\n0\r\n\r\n`),
  'another expectation': no(417, post('Expect: 200-ok\r\nContent-Length: 3\r\n', 'abc')),

  // ── chunks ──
  chunks: ok(post(CHUNKED, '3\r\nabc\r\n0\r\n\r\n') + get(''), 2),
  'Chunked in capitals': ok(post('Transfer-Encoding: CHUNKED\r\n', '3\r\nabc\r\n0\r\n\r\n')),
  'a size in capitals, with zeros': ok(post(CHUNKED, '0003\r\nabc\r\n00\r\n\r\n')),
  'an extension': ok(post(CHUNKED, '3;a=b;c="d e"\r\nabc\r\n0;f\r\n\r\n')),
  trailers: ok(post(CHUNKED, '3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n') + get(''), 2),
  'a size with a sign': no(400, post(CHUNKED, '+3\r\nabc\r\n0\r\n\r\n')),
  'a size with 0x': no(400, post(CHUNKED, '0x3\r\nabc\r\n0\r\n\r\n')),
  'a size of no digits': no(400, post(CHUNKED, '\r\nabc\r\n0\r\n\r\n')),
  'a size with a space before it': no(400, post(CHUNKED, ' 3\r\nabc\r\n0\r\n\r\n')),
  'a size with a space behind it': no(400, post(CHUNKED, '3 \r\nabc\r\n0\r\n\r\n')),
  'a size that ends with LF': no(400, post(CHUNKED, '3\nabc\r\n0\r\n\r\n')),
  'a size of 13 digits': no(400, post(CHUNKED, `${'0'.repeat(12)}3\r\nabc\r\n0\r\n\r\n`)),
  'a size past the limit': no(413, post(CHUNKED, 'fffffff\r\nabc')),
  'a chunk that is too long': no(400, post(CHUNKED, '3\r\nabcd\r\n0\r\n\r\n')),
  'a chunk that ends with LF': no(400, post(CHUNKED, '3\r\nabc\n0\r\n\r\n')),
  'an extension with CR': no(400, post(CHUNKED, '3;a\rb\r\nabc\r\n0\r\n\r\n')),
  'an extension with LF': no(400, post(CHUNKED, '3;a\nb\r\nabc\r\n0\r\n\r\n')),
  'an extension with NUL': no(400, post(CHUNKED, '3;\0\r\nabc\r\n0\r\n\r\n')),
  'extensions of 5 KiB': no(413, post(CHUNKED, `3;${'a'.repeat(5_000)}\r\nabc\r\n0\r\n\r\n`)),
  'many extensions of 5 KiB': no(
    413,
    post(CHUNKED, `${`1;${'a'.repeat(500)}\r\nb\r\n`.repeat(10)}0\r\n\r\n`),
  ),
  'trailers of 9 KiB': no(431, post(CHUNKED, `0\r\nA: ${'b'.repeat(9_000)}\r\n\r\n`)),
  '101 trailers': no(431, post(CHUNKED, `0\r\n${'A: b\r\n'.repeat(101)}\r\n`)),
  'a trailer with a space before its colon': no(400, post(CHUNKED, '0\r\nA : b\r\n\r\n')),
  'a folded trailer': no(400, post(CHUNKED, '0\r\nA: b\r\n c\r\n\r\n')),
  'a trailer that ends with LF': no(400, post(CHUNKED, '0\r\nA: b\n\r\n')),
  'a trailer that frames': no(400, post(CHUNKED, '0\r\nContent-Length: 3\r\n\r\n')),
};

const TOKEN = 'any token is a method (RFC 9110 section 9.1); Node has a list of them';
const MINOR = 'a later minor version is served as 1.1 (RFC 9110 section 2.5)';
const LINE = 'one space and a version of HTTP/1 are what a request line has (RFC 9112 section 3)';
const VERSION = 'the status for a version that is not served is 505 (RFC 9110 section 15.6.6)';
const TARGET = 'there are four forms of a target (RFC 9112 section 3.2)';
const HOST = 'one valid Host (RFC 9112 section 3.2); Node lets others route by another one';
const LIMIT = 'a limit of its own, with a status of its own';
const CODING = 'a coding that nobody undoes is answered 501 (RFC 9112 section 6.1)';
const OLD = 'chunked in HTTP/1.0 is faulty framing (RFC 9112 section 6.1)';

/** Every difference from Node 20, with its reason. Other versions may have fewer. */
export const differences: Record<string, string> = {
  'every character of a token': TOKEN,
  'a later minor version': MINOR,
  'two spaces': LINE,
  'no version': LINE,
  'HTTP/2.0': VERSION,
  'HTTP/0.9': VERSION,
  'the preface of HTTP/2': VERSION,
  'a target of another scheme': TARGET,
  'a URL without a host': TARGET,
  'asterisk for GET': TARGET,
  'a fragment': TARGET,
  'a request line of 9,000 bytes': LIMIT,
  '101 headers': LIMIT,
  'two Hosts': HOST,
  'the same Host twice': HOST,
  'two Hosts in HTTP/1.0': HOST,
  'a Host with a slash': HOST,
  'a Host with a user': HOST,
  'a list of Hosts': HOST,
  'a length past any limit': LIMIT,
  'a length past any number': LIMIT,
  'a coding before chunked': CODING,
  'a coding of no characters': CODING,
  'chunked in HTTP/1.0': OLD,
  'a size of 13 digits': LIMIT,
  'a size past the limit': LIMIT,
  'extensions of 5 KiB': LIMIT,
  'many extensions of 5 KiB': LIMIT,
  'trailers of 9 KiB': LIMIT,
  '101 trailers': LIMIT,
};
