// Every method of a buffer with arguments of the wrong type or range: Node's codes, and a buffer
// that is as it was.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EvBuffer, EventBase, FileSegment } from '../../src/index.js';
import { codeOf } from '../event/support.js';
import { filled, openFile, textOf } from './support.js';

const TYPE = 'ERR_INVALID_ARG_TYPE';
const RANGE = 'ERR_OUT_OF_RANGE';
const VALUE = 'ERR_INVALID_ARG_VALUE';

// biome-ignore lint/suspicious/noExplicitAny: what a caller without types does.
type Anything = any;
type Call = (buffer: Anything, value: Anything) => unknown;

const noBytes = [undefined, null, 1, true, {}, [], [1], () => 1, Symbol('x'), new Uint16Array(2)];
noBytes.push(new ArrayBuffer(2), new DataView(new ArrayBuffer(2)), new EvBuffer());

function refuses(call: Call, values: Anything[], code: string): void {
  for (const value of values) {
    const buffer = filled('ab', 'c');
    buffer.onChange(() => assert.unreachable('nothing changed'));
    buffer.reserve(10);
    const message = `${call} with ${String(typeof value === 'object' ? JSON.stringify(value) : String(value))}`;
    assert.is(
      codeOf(() => call(buffer, value)),
      code,
      message,
    );
    assert.is(textOf(buffer), 'abc', message);
  }
}

const bytesCalls: Call[] = [
  (buffer, value) => buffer.add(value),
  (buffer, value) => buffer.prepend(value),
  (buffer, value) => buffer.addAll([value]),
  (buffer, value) => buffer.addAll(['fine', value]),
  (buffer, value) => buffer.indexOf(value),
];

test('data is a string or a Uint8Array', () => {
  for (const call of bytesCalls) refuses(call, noBytes, TYPE);
  refuses((buffer, value) => buffer.addReference(value), [...noBytes, 'text'], TYPE);
  refuses((buffer, value) => buffer.addAll(value), [undefined, null, 'text', 1, {}], TYPE);
  refuses(
    (buffer, value) => buffer.addReference(Buffer.from('x'), value),
    [null, 1, 'x', {}],
    TYPE,
  );
});

test('a Uint8Array of another realm is one', async () => {
  const { runInNewContext } = await import('node:vm');
  const foreign = runInNewContext('Uint8Array.from([97, 98])');
  assert.not(foreign instanceof Uint8Array);
  const buffer = new EvBuffer().add(foreign).prepend(foreign).addReference(foreign);
  assert.is(textOf(buffer), 'ababab');
  assert.is(buffer.indexOf(foreign, 1), 2);
});

test('a buffer is a buffer', () => {
  const values = [undefined, null, 1, 'x', {}, Buffer.from('x'), { length: 3 }];
  refuses((buffer, value) => buffer.addBuffer(value), values, TYPE);
  refuses((buffer, value) => buffer.prependBuffer(value), values, TYPE);
  refuses((buffer, value) => buffer.addView(value), values, TYPE);
});

const lengthCalls: Call[] = [
  (buffer, value) => buffer.addBuffer(filled('x'), value),
  (buffer, value) => buffer.reserve(value),
  (buffer, value) => buffer.commit(value),
  (buffer, value) => buffer.expand(value),
  (buffer, value) => buffer.remove(value),
  (buffer, value) => buffer.drain(value),
  (buffer, value) => buffer.copyOut(value),
  (buffer, value) => buffer.copyOut(1, value),
  (buffer, value) => buffer.pullup(value),
  (buffer, value) => buffer.peek(value),
  (buffer, value) => buffer.peek(1, value),
  (buffer, value) => buffer.indexOf('x', value),
  (buffer, value) => buffer.indexOf('x', 0, value),
  (buffer, value) => buffer.indexOfEol('lf', value),
  (buffer, value) => buffer.readFrom(0, value),
  (buffer, value) => buffer.writeTo(0, value),
  (buffer, value) => buffer.readFrom(value),
  (buffer, value) => buffer.writeTo(value),
];

test('a length, a position, a descriptor is a whole number that makes sense', () => {
  for (const call of lengthCalls) {
    refuses(call, [null, '1', {}, [], true, 1n, new Number(1)], TYPE);
    refuses(call, [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -0.1], RANGE);
  }
  // Where there is no default.
  for (const name of [
    'reserve',
    'commit',
    'expand',
    'remove',
    'drain',
    'copyOut',
    'readFrom',
    'writeTo',
  ])
    refuses((buffer) => buffer[name](), [undefined], TYPE);
});

test('ranges end where the buffer does', () => {
  refuses((buffer, value) => buffer.copyOut(1, value), [4, 1_000], RANGE);
  refuses((buffer, value) => buffer.peek(1, value), [4, 1_000], RANGE);
  refuses((buffer, value) => buffer.commit(value), [11, 1_000], RANGE);
  refuses((buffer, value) => buffer.reserve(value), [0, 2 ** 32, 2 ** 32 + 1], RANGE);
  refuses((buffer, value) => buffer.expand(value), [2 ** 32, 2 ** 40], RANGE);
  refuses((buffer, value) => buffer.readFrom(0, value), [0], RANGE);
  refuses((buffer, value) => buffer.readFrom(value), [2 ** 31, 2 ** 40], RANGE);
  refuses((buffer, value) => buffer.writeTo(value), [2 ** 31, 2 ** 40], RANGE);
  // Fewer are answered where there are not so many.
  const buffer = filled('ab', 'c');
  assert.is(buffer.copyOut(2 ** 52).length, 3);
  assert.is(buffer.peek(2 ** 52).length, 2);
  assert.is(buffer.pullup(2 ** 52), undefined);
  assert.is(buffer.indexOf('c', 2 ** 52), -1);
  assert.is(buffer.indexOf('c', 0, 2 ** 52), 2);
  assert.is(buffer.drain(2 ** 52).length, 0);
});

test('names of line ends, ends and encodings are those that there are', () => {
  const eols: Call[] = [
    (buffer, value) => buffer.readln(value),
    (buffer, value) => buffer.indexOfEol(value),
  ];
  for (const call of eols) {
    refuses(call, ['', 'LF', '\n', 'cr', 'toString'], VALUE);
    refuses(call, [null, 1, {}], TYPE);
  }
  refuses((buffer) => buffer.indexOfEol(), [undefined], TYPE);
  refuses((buffer, value) => buffer.readln('lf', value), ['', 'utf9', 'latin2'], VALUE);
  refuses((buffer, value) => buffer.readln('lf', value), [null, 1, {}], TYPE);
  for (const name of ['freeze', 'unfreeze']) {
    refuses((buffer, value) => buffer[name](value), ['', 'end', 'Front'], VALUE);
    refuses((buffer, value) => buffer[name](value), [undefined, null, 1, true], TYPE);
  }
});

test('a listener is a function, and a base is a base', () => {
  refuses((buffer, value) => buffer.onChange(value), [undefined, null, 'x', {}], TYPE);
  const callback = () => undefined;
  refuses((buffer, value) => buffer.onChange(callback, value), [null, 1, 'x'], TYPE);
  const noBase = [null, 1, {}, { event: callback }, EventBase];
  refuses((buffer, value) => buffer.onChange(callback, { deferTo: value }), noBase, TYPE);
});

test('a file is a descriptor or a segment', () => {
  refuses(
    (buffer, value) => buffer.addFile(value),
    [undefined, null, 'x', {}, Buffer.alloc(1)],
    TYPE,
  );
  refuses((buffer, value) => buffer.addFile(value), [-1, 0.5, Number.NaN, 2 ** 31], RANGE);
  const segment = new FileSegment(openFile('abc'), 0, -1, { closeFd: true });
  refuses((buffer, value) => buffer.addFile(segment, value), [null, '0', {}], TYPE);
  refuses((buffer, value) => buffer.addFile(segment, 0, value), [null, '0', {}], TYPE);
  refuses((buffer, value) => buffer.addFile(segment, value), [-1, 0.5, 4, Number.NaN], RANGE);
  refuses((buffer, value) => buffer.addFile(segment, 1, value), [-2, 0.5, 3, Number.NaN], RANGE);
  segment.close();
});

test('a segment is of a descriptor, with numbers and options that make sense', () => {
  const make = (...given: unknown[]): string | undefined =>
    codeOf(() => new FileSegment(...(given as [number])));
  for (const value of [undefined, null, '1', {}, 1n]) assert.is(make(value), TYPE);
  for (const value of [-1, 0.5, Number.NaN, 2 ** 31]) assert.is(make(value), RANGE);
  for (const value of [null, '1', {}])
    assert.equal([make(0, value), make(0, 0, value)], [TYPE, TYPE]);
  for (const value of [-1, 0.5, Number.NaN, 2 ** 53]) assert.is(make(0, value), RANGE);
  for (const value of [-2, 0.5, Number.NaN, 2 ** 53]) assert.is(make(0, 0, value), RANGE);
  assert.is(make(0, 10, Number.MAX_SAFE_INTEGER), RANGE);
  for (const value of [null, 1, 'x']) assert.is(make(0, 0, 1, value), TYPE);
  for (const name of ['closeFd', 'sendfile', 'release'])
    for (const value of [null, 1, 'x', {}]) assert.is(make(0, 0, 1, { [name]: value }), TYPE, name);
});

test.run();
