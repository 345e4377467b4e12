// Lines and searches, over segments that end anywhere: every way to cut a text in up to three
// pieces, with memory behind each piece that would match.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Eol, EvBuffer } from '../../src/index.js';
import { filled, openFile, textOf } from './support.js';

/** The text in pieces, each a part of memory in which what is behind it looks like a line end. */
function* cut(text: string): Iterable<EvBuffer> {
  const piece = (from: number, to: number) =>
    Buffer.from(`\r\n\0${text.slice(from, to)}\n\r\n\0abab`).subarray(3, 3 + to - from);
  for (let i = 0; i <= text.length; i++) {
    for (let k = i; k <= text.length; k++) {
      const buffer = new EvBuffer();
      for (const [from, to] of [
        [0, i],
        [i, k],
        [k, text.length],
      ])
        if (to > from) buffer.addReference(piece(from, to));
      yield buffer;
    }
  }
}

function linesOf(buffer: EvBuffer, eol: Eol): (string | undefined)[] {
  const lines: (string | undefined)[] = [];
  for (let line = buffer.readln(eol); line !== undefined; line = buffer.readln(eol))
    lines.push(line);
  return [...lines, textOf(buffer)];
}

const TEXT = 'a\r\nb\n\n\r\rc\r\r\n\0d\n\re';
const expected: Record<Eol, string[]> = {
  any: ['a', 'b', 'c', '\0d', 'e'],
  crlf: ['a', 'b', '', '\r\rc\r', '\0d', '\re'],
  'crlf-strict': ['a', 'b\n\n\r\rc\r', '\0d\n\re'],
  lf: ['a\r', 'b', '', '\r\rc\r\r', '\0d', '\re'],
  nul: ['a\r\nb\n\n\r\rc\r\r\n', 'd\n\re'],
};

for (const [eol, lines] of Object.entries(expected)) {
  test(`evbuffer_readln: ${eol}, over every border`, () => {
    for (const buffer of cut(TEXT)) assert.equal(linesOf(buffer, eol as Eol), lines);
  });
}

test('a line that is not whole stays, and is whole later', () => {
  for (const eol of ['crlf', 'crlf-strict', 'lf', 'nul', 'any'] as const) {
    const end = { crlf: '\n', 'crlf-strict': '\r\n', lf: '\n', nul: '\0', any: '\n' }[eol];
    const buffer = new EvBuffer();
    assert.is(buffer.readln(eol), undefined);
    for (const piece of ['par', 't', '']) {
      buffer.add(piece);
      assert.is(buffer.readln(eol), undefined);
    }
    assert.is(textOf(buffer), 'part');
    buffer.prepend('a ').add(`${end}next`);
    assert.is(buffer.readln(eol), 'a part');
    assert.is(textOf(buffer), 'next');
  }
});

test('a CR at the end of one piece and the LF of the next are one line end', () => {
  const buffer = new EvBuffer().add('line\r');
  for (const eol of ['crlf', 'crlf-strict', 'lf'] as const)
    assert.is(buffer.readln(eol), undefined);
  buffer.addReference(Buffer.from('\nrest'));
  assert.equal(buffer.indexOfEol('crlf'), { at: 4, length: 2 });
  assert.is(buffer.readln(), 'line');
  assert.is(textOf(buffer), 'rest');
});

test('a run of line ends that is cut in two is two ends for any, as in libevent', () => {
  const buffer = new EvBuffer().add('a\r');
  assert.is(buffer.readln('any'), 'a');
  buffer.add('\nb\n');
  assert.equal([buffer.readln('any'), buffer.readln('any')], ['', 'b']);
});

test('what was looked through is known after any change of the buffer', () => {
  const buffer = new EvBuffer().add('no line end here');
  assert.is(buffer.readln('lf'), undefined);
  assert.is(buffer.prepend('x\ny').readln('lf'), 'x');
  assert.is(buffer.readln('lf'), undefined);
  assert.is(buffer.readln('nul'), undefined);
  assert.is(buffer.prependBuffer(filled('p\n')), 2);
  assert.is(buffer.readln('lf'), 'p');
  assert.is(buffer.readln('lf'), undefined);
  buffer.drain(1).addBuffer(filled('q\nr'));
  assert.equal(buffer.indexOfEol('lf'), { at: 17, length: 1 });
  assert.equal(buffer.indexOfEol('lf', 18), undefined);
  assert.equal(buffer.indexOfEol('lf', 3), { at: 17, length: 1 });
  assert.is(buffer.readln('lf'), 'no line end hereq');
  assert.is(buffer.readln('lf'), undefined);
  const other = filled('z\n');
  other.addBuffer(buffer);
  assert.is(other.readln('lf'), 'z');
  assert.is(other.readln('lf'), undefined);
  buffer.add('new\n');
  assert.is(buffer.readln('lf'), 'new');
});

test('a long line that comes in small pieces is looked through once', () => {
  const buffer = new EvBuffer();
  // A quarter of a gigabyte would be looked at if each piece began from the front.
  for (let i = 0; i < 20_000; i++) {
    buffer.add('0123456789abcdefghijklmno');
    if (buffer.readln('lf') !== undefined) assert.unreachable('there is no line');
  }
  buffer.add('\n');
  assert.is(buffer.readln('lf')?.length, 500_000);
});

test('a line is decoded as it is told, also where a character is cut in two', () => {
  const bytes = Buffer.from('grüße 😀\n');
  for (let i = 1; i < bytes.length; i++) {
    const buffer = new EvBuffer();
    buffer.addReference(bytes.subarray(0, i)).addReference(bytes.subarray(i));
    assert.is(buffer.readln(), 'grüße 😀');
  }
  assert.is(new EvBuffer().add(bytes).readln('lf', 'latin1'), bytes.toString('latin1', 0, 12));
  assert.is(new EvBuffer().add(bytes).readln('lf', 'hex'), bytes.toString('hex', 0, 12));
});

test('a line of many segments releases what it was made of', () => {
  let released = 0;
  const buffer = new EvBuffer();
  for (let i = 0; i < 100; i++) buffer.addReference(Buffer.from('ab'), () => released++);
  buffer.add('\r\n');
  assert.is(buffer.readln(), 'ab'.repeat(100));
  assert.is(released, 100);
});

test('evbuffer_search_eol: from a position on', () => {
  const buffer = filled('a\r', '\nb', '\n\n', 'c\0');
  assert.equal(buffer.indexOfEol('crlf'), { at: 1, length: 2 });
  // The CR before `from` is not the line end's.
  assert.equal(buffer.indexOfEol('crlf', 2), { at: 2, length: 1 });
  assert.equal(buffer.indexOfEol('crlf-strict', 2), undefined);
  assert.equal(buffer.indexOfEol('lf', 3), { at: 4, length: 1 });
  assert.equal(buffer.indexOfEol('any', 2), { at: 2, length: 1 });
  assert.equal(buffer.indexOfEol('any', 4), { at: 4, length: 2 });
  assert.equal(buffer.indexOfEol('any', 6), undefined);
  assert.equal(buffer.indexOfEol('nul'), { at: 7, length: 1 });
  for (const eol of ['any', 'crlf', 'crlf-strict', 'lf', 'nul'] as const) {
    assert.is(buffer.indexOfEol(eol, 8), undefined);
    assert.is(buffer.indexOfEol(eol, 1_000), undefined);
    assert.is(new EvBuffer().indexOfEol(eol), undefined);
  }
});

test('evbuffer_search: over every border', () => {
  const text = 'aababaabbab';
  for (const buffer of cut(text)) {
    for (const what of ['a', 'b', 'ab', 'aab', 'abba', 'bb', 'bab', 'baba', 'aababaabbab', 'abab0'])
      for (const from of [0, 1, 4, 10, 11])
        assert.is(buffer.indexOf(what, from), text.indexOf(what, from), `${what} from ${from}`);
    assert.is(textOf(buffer), text);
  }
});

test('evbuffer_search_range: a match ends at or before the end', () => {
  const text = 'xxabcxxabc';
  for (const buffer of cut(text)) {
    assert.is(buffer.indexOf('abc', 0, 5), 2);
    assert.is(buffer.indexOf('abc', 0, 4), -1);
    assert.is(buffer.indexOf('abc', 3, 9), -1);
    assert.is(buffer.indexOf('abc', 3, 10), 7);
    assert.is(buffer.indexOf('abc', 3, 1_000), 7);
    assert.is(buffer.indexOf('c', 3, 4), -1);
    assert.is(buffer.indexOf('c', 3, 5), 4);
  }
});

test('positions beyond the end, ranges that are none, and no bytes to look for', () => {
  const buffer = filled('abc', 'def');
  assert.is(buffer.indexOf('a', 6), -1);
  assert.is(buffer.indexOf('a', 1_000), -1);
  assert.is(buffer.indexOf('d', 4, 2), -1);
  assert.is(buffer.indexOf('a', 0, 0), -1);
  assert.is(buffer.indexOf('abcdefg'), -1);
  // libevent: the start.
  assert.is(buffer.indexOf(''), 0);
  assert.is(buffer.indexOf('', 4), 4);
  assert.is(buffer.indexOf('', 6), 6);
  assert.is(buffer.indexOf(new Uint8Array(0), 7), -1);
  assert.is(buffer.indexOf('', 4, 2), -1);
  assert.is(new EvBuffer().indexOf(''), 0);
  assert.is(new EvBuffer().indexOf('a'), -1);
});

test('long segments are searched to their end and no further', () => {
  const memory = Buffer.alloc(10_000, 'x');
  memory.write('needle', 5_000);
  memory.write('needle', 9_000);
  const buffer = new EvBuffer();
  buffer.addReference(memory.subarray(0, 5_003)).addReference(memory.subarray(100, 9_003));
  assert.is(buffer.indexOf('needle'), 5_003 + 4_900);
  buffer.addReference(Buffer.from('dle'));
  assert.is(buffer.indexOf('needle', 9_904), 5_003 + 8_900);
  assert.is(buffer.indexOf('e', 5_003), 5_003 + 4_901);
  assert.is(buffer.indexOf(Buffer.from('needle').subarray(2, 5), 5_003), 5_003 + 4_902);
});

test('a segment that has grown since it was searched is searched to its new end', () => {
  const buffer = new EvBuffer().add('x'.repeat(100));
  assert.is(buffer.indexOf('y'), -1);
  assert.is(buffer.indexOf('yz'), -1);
  assert.is(buffer.readln('lf'), undefined);
  buffer.add(`${'x'.repeat(100)}yz\n`);
  assert.is(buffer.peek().length, 1);
  assert.is(buffer.indexOf('y'), 200);
  assert.is(buffer.indexOf('yz'), 200);
  assert.is(buffer.indexOf('y', 0, 200), -1);
  assert.is(buffer.indexOf('y', 0, 201), 200);
  assert.is(buffer.indexOf('yz', 0, 201), -1);
  assert.is(buffer.readln('lf')?.length, 202);
});

test('lines and matches in a file are found, a piece of it at a time', () => {
  const line = `${'x'.repeat(99)}\n`;
  const buffer = new EvBuffer().add('first ');
  buffer.addFile(openFile(`${line.repeat(3_000)}the end`)).add(' of it\r\n');
  assert.is(buffer.indexOf('the end of it'), 6 + 300_000);
  assert.is(buffer.indexOf('end', 0, 300_000), -1);
  assert.equal(buffer.indexOfEol('crlf-strict'), { at: 300_019, length: 2 });
  assert.equal(buffer.indexOfEol('any', 250_000), { at: 250_005, length: 1 });
  assert.is(buffer.readln('lf'), `first ${line.slice(0, -1)}`);
  for (let i = 1; i < 3_000; i++) assert.is(buffer.readln('lf'), line.slice(0, -1));
  assert.is(buffer.readln(), 'the end of it');
  assert.is(buffer.length, 0);
});

test('a file that nobody has looked at is found in from any position', () => {
  for (const eol of ['any', 'lf', 'crlf'] as const) {
    const buffer = new EvBuffer();
    buffer.addFile(openFile('abc')).addFile(openFile('def\nghi\n'));
    assert.equal(buffer.indexOfEol(eol, 7), { at: 10, length: 1 });
    assert.is(buffer.indexOf('gh', 4), 7);
    assert.equal(buffer.indexOfEol(eol), { at: 6, length: 1 });
    buffer.close();
  }
});

test.run();
