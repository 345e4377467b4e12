// URIs part by part, and the escaping that goes with them.

import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  escapeHtml,
  HeaderList,
  parseQuery,
  Uri,
  type UriOptions,
  uriDecode,
  uriDecodeBytes,
  uriEncode,
} from '../../src/http.js';
import { codeOf } from '../event/support.js';

type Parts = (string | number | undefined)[];

function partsOf(text: string, options?: UriOptions): Parts | undefined {
  const uri = Uri.parse(text, options);
  if (uri === undefined) return undefined;
  const { scheme, userinfo, host, port, path, query, fragment } = uri;
  return [scheme, userinfo, host, port, path, query, fragment];
}
const _ = undefined;

test('a URI and its parts', () => {
  const expected: Record<string, Parts> = {
    'http://a/b?c#d': ['http', _, 'a', _, '/b', 'c', 'd'],
    'http://user:pass@a:80/b': ['http', 'user:pass', 'a', 80, '/b', _, _],
    'http://a': ['http', _, 'a', _, '', _, _],
    'http://a:/': ['http', _, 'a', _, '/', _, _],
    'http://a:0': ['http', _, 'a', 0, '', _, _],
    'http://[::1]:80/': ['http', _, '[::1]', 80, '/', _, _],
    'http://[v7.a:b]/': ['http', _, '[v7.a:b]', _, '/', _, _],
    'file:///etc/passwd': ['file', _, '', _, '/etc/passwd', _, _],
    'mailto:a@b': ['mailto', _, _, _, 'a@b', _, _],
    'urn:a:b:c': ['urn', _, _, _, 'a:b:c', _, _],
    'a+b-c.d:': ['a+b-c.d', _, _, _, '', _, _],
    '//a/b': [_, _, 'a', _, '/b', _, _],
    '/a/b?c=/?': [_, _, _, _, '/a/b', 'c=/?', _],
    'a/b:c': [_, _, _, _, 'a/b:c', _, _],
    '': [_, _, _, _, '', _, _],
    '?': [_, _, _, _, '', '', _],
    '#': [_, _, _, _, '', _, ''],
    'HTTP://A/%41?%20': ['HTTP', _, 'A', _, '/%41', '%20', _],
    "http://a/;p=1,2!$&'()*+:@": ['http', _, 'a', _, "/;p=1,2!$&'()*+:@", _, _],
  };
  for (const [text, parts] of Object.entries(expected)) {
    assert.equal(partsOf(text), parts, text);
    // An empty port goes without saying, and nothing else is lost.
    assert.is(String(Uri.parse(text)), text.replace('a:/', 'a/'));
  }
});

test('what is no URI', () => {
  for (const text of [
    'http://a b/',
    'http://a/b c',
    'http://a/\r\n',
    'http://a/\0',
    'http://a/é',
    'http://a/%4',
    'http://a/%zz',
    'http://a/<b>',
    'http://a:65536/',
    'http://a:b/',
    'http://a:80:80/',
    'http://[::1/',
    'http://[::1]a/',
    'http://[1.2.3.4]/',
    'http://[fe80::1%25eth0]/',
    'http://::1/',
    'http://a@b@c/',
    '1http://a/',
    ':a',
    'a:b:c#d#e',
    `/${'a'.repeat(70_000)}`,
  ])
    assert.is(Uri.parse(text), undefined, text.slice(0, 40));
});

test('nonconformant: characters that should be escaped, and no others', () => {
  const nonconformant = true;
  assert.is(Uri.parse('http://a/<b>?"é'), undefined);
  assert.equal(partsOf('http://a/<b>?"é', { nonconformant }), ['http', _, 'a', _, '/<b>', '"é', _]);
  assert.equal(partsOf('/a#b#c', { nonconformant })?.[6], 'b#c');
  for (const text of ['http://a b/', '/a b', '/a\r\n', '/\0'])
    assert.is(Uri.parse(text, { nonconformant }), undefined, text);
});

test('stripBrackets: the host of an address alone', () => {
  const stripBrackets = true;
  const uri = Uri.parse('http://[::1]:80/a', { stripBrackets }) as Uri;
  assert.is(uri.host, '::1');
  assert.is(String(uri), 'http://[::1]:80/a');
  uri.host = '::2';
  assert.equal([uri.host, String(uri)], ['::2', 'http://[::2]:80/a']);
});

test('unixSocket: the path of a socket in the place of a host', () => {
  const unixSocket = true;
  const uri = Uri.parse('http://user@unix:/run/a.sock:/b?c', { unixSocket }) as Uri;
  const { userinfo, host, path, query } = uri;
  assert.equal(
    [uri.unixSocket, userinfo, host, path, query],
    ['/run/a.sock', 'user', '', '/b', 'c'],
  );
  assert.is(String(uri), 'http://user@unix:/run/a.sock:/b?c');
  assert.is(Uri.parse('http://unix:/run/a.sock:', { unixSocket })?.path, '');
  assert.is(Uri.parse('http://unix:/run/a.sock:b', { unixSocket }), undefined);
  // Without the option it is a host without a port.
  assert.equal(partsOf('http://unix:/run/a.sock:/b'), [
    ...['http', _, 'unix', _, '/run/a.sock:/b', _, _],
  ]);
});

test('parts are set, checked, taken away and joined', () => {
  const uri = new Uri();
  uri.scheme = 'https';
  uri.userinfo = 'me';
  uri.host = 'example.org';
  uri.port = 8443;
  uri.path = '/a';
  uri.query = 'b=c';
  uri.fragment = 'd';
  assert.is(String(uri), 'https://me@example.org:8443/a?b=c#d');
  assert.is(JSON.stringify({ uri }), '{"uri":"https://me@example.org:8443/a?b=c#d"}');
  uri.scheme = uri.userinfo = uri.port = uri.query = uri.fragment = undefined;
  assert.is(String(uri), '//example.org/a');
  uri.host = undefined;
  assert.is(String(uri), '/a');
  const wrong: [keyof Uri, unknown][] = [
    ['scheme', '1a'],
    ['scheme', ''],
    ['userinfo', 'a@b'],
    ['host', 'a/b'],
    ['host', '[x]'],
    ['path', '/a?b'],
    ['path', '/a#b'],
    ['query', 'a#b'],
    ['fragment', 'a b'],
    ['unixSocket', 'a:b'],
  ];
  for (const [part, value] of wrong)
    assert.is(
      codeOf(() => Object.assign(uri, { [part]: value })),
      'ERR_INVALID_ARG_VALUE',
      `${part} ${value}`,
    );
  assert.is(
    codeOf(() => Object.assign(uri, { port: 65_536 })),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(String(uri), '/a', 'what was refused has changed nothing');
});

test('parts that do not go together are not joined', () => {
  const join = (parts: Partial<Uri>) => codeOf(() => String(Object.assign(new Uri(), parts)));
  assert.is(join({ port: 80 }), 'ERR_INVALID_ARG_VALUE');
  assert.is(join({ userinfo: 'a' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(join({ host: 'a', path: 'b' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(join({ path: '//a' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(join({ path: 'a:b' }), 'ERR_INVALID_ARG_VALUE');
  assert.is(join({ unixSocket: '/a', host: 'b' }), 'ERR_INVALID_ARG_VALUE');
});

test('whatever is parsed is joined to the same, and URL sees the same host and port', () => {
  fc.assert(
    fc.property(fc.webUrl({ withQueryParameters: true, withFragments: true }), (text) => {
      const uri = Uri.parse(text);
      assert.ok(uri, text);
      assert.is(String(uri), text);
      const url = new URL(text);
      assert.is(uri.host?.toLowerCase(), url.hostname);
      assert.is(uri.query ?? '', url.search.slice(1).replaceAll('%27', "'"));
    }),
    { numRuns: 300 },
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 40 }), (text) => {
      const uri = Uri.parse(text);
      if (uri === undefined) return;
      const joined = String(uri);
      assert.equal(partsOf(joined), partsOf(text), text);
    }),
    { numRuns: 2_000 },
  );
});

test('escapes, there and back', () => {
  assert.is(uriEncode('a b/c?d=é+~-._'), 'a%20b%2Fc%3Fd%3D%C3%A9%2B~-._');
  assert.is(uriEncode('a b', { plus: true }), 'a+b');
  assert.is(uriEncode(Uint8Array.of(0, 255, 65)), '%00%FFA');
  assert.is(uriDecode('a%20b+c%2b'), 'a b+c+');
  assert.is(uriDecode('a+b%2B', { plus: true }), 'a b+');
  for (const text of ['%', '%4', 'a%zz', '%%34%1'])
    assert.is(uriDecode(text), text.replace('%34', '4'));
  assert.is(uriDecode('%ff'), '\ufffd');
  assert.equal([...uriDecodeBytes('%ff%00a')], [255, 0, 97]);
  assert.is(
    codeOf(() => uriEncode(5 as never)),
    'ERR_INVALID_ARG_TYPE',
  );
  fc.assert(
    fc.property(fc.uint8Array(), fc.boolean(), (bytes, plus) => {
      const text = uriEncode(bytes, { plus });
      assert.equal([...uriDecodeBytes(text, { plus })], [...bytes]);
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      assert.is(decodeURIComponent(uriEncode(text)), text);
    }),
  );
});

test('queries, strict and not', () => {
  assert.equal(parseQuery('a=b&c=d+e&a=%66&g='), [
    ['a', 'b'],
    ['c', 'd e'],
    ['a', 'f'],
    ['g', ''],
  ]);
  assert.equal(parseQuery(''), []);
  assert.equal(parseQuery('a=b=c'), [['a', 'b=c']]);
  for (const query of ['a', '=b', 'a=b&', '&a=b', 'a=b&&c=d'])
    assert.is(parseQuery(query), undefined, query);
  assert.equal(parseQuery('a&=b&&c=d', { nonconformant: true }), [
    ['a', ''],
    ['c', 'd'],
  ]);
  assert.equal(parseQuery('a=1&b=2&a=3', { lastValue: true }), [
    ['a', '3'],
    ['b', '2'],
  ]);
  const many = 'a=b&'.repeat(1_000);
  assert.is(parseQuery(`${many}c=d`), undefined);
  assert.is(parseQuery(`${many}c=d`, { pairsMax: 1_001 })?.length, 1_001);
});

test('HTML', () => {
  const text = `<a href="b" c='d'>&amp;</a>`;
  const escaped = '&lt;a href=&quot;b&quot; c=&#039;d&#039;&gt;&amp;amp;&lt;/a&gt;';
  assert.is(escapeHtml(text), escaped);
  assert.is(escapeHtml(''), '');
});

test('a list of headers: added, found, replaced, taken away', () => {
  const list = new HeaderList({ A: 'b', Many: ['1', '2'], N: 5 });
  assert.equal([list.get('a'), list.get('MANY'), list.get('n'), list.size], ['b', '1, 2', '5', 4]);
  list.append('a', 'c').set('many', 'one');
  assert.equal(
    [...list],
    [
      ['a', 'b'],
      ['n', '5'],
      ['a', 'c'],
      ['many', 'one'],
    ],
  );
  assert.equal([list.remove('A'), list.remove('A'), list.has('a')], [true, false, false]);
  assert.equal([...new HeaderList(list)], [...list]);
  list.clear();
  assert.equal([list.size, list.get('n')], [0, undefined]);
  for (const [name, value] of [
    ['', 'a'],
    ['a b', 'c'],
    ['a\r\n', 'b'],
    ['a', 'b\r\nc: d'],
    ['a', 'b\r\n c'],
    ['a', '\0'],
  ])
    assert.is(
      codeOf(() => list.append(name, value)),
      'ERR_INVALID_ARG_VALUE',
      JSON.stringify([name, value]),
    );
  const full = new HeaderList();
  for (let i = 0; i < 1_000; i++) full.append('a', i);
  assert.is(
    codeOf(() => full.append('a', 'b')),
    'ERR_OUT_OF_RANGE',
  );
});

test.run();
