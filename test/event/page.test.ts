// The page that a base shares with TypeScript is described twice; here the two are compared.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MessageKind, Num, PAGE_BYTES, Reason, Word } from '../../src/event/page.js';
import { native } from '../../src/native.js';

const layout = native.layout();

test('every word stands where the native side has it', () => {
  const offsets: Record<keyof typeof Word, string> = {
    ACTIVE: 'active',
    ACTIVE_MAX: 'activeMax',
    ADDED: 'added',
    ADDED_MAX: 'addedMax',
    WATCHING: 'watching',
    VIRTUAL: 'virtual',
    VIRTUAL_MAX: 'virtualMax',
    TIME_CACHED: 'timeCached',
    UNSETTLED: 'unsettled',
    NO_EXIT: 'noExit',
    NONBLOCK: 'nonblock',
    REASON: 'reason',
    READY: 'ready',
    MESSAGES: 'messages',
    ERROR: 'error',
    RING: 'ring',
  };
  for (const [word, name] of Object.entries(offsets))
    assert.is(Word[word as keyof typeof Word] * 4, layout[name], `${word} is ${name}`);
});

test('every double stands where the native side has it', () => {
  const offsets: Record<keyof typeof Num, string> = {
    NOW: 'now',
    IDLE: 'idle',
    TURNS: 'turns',
    TIMEOUT: 'timeout',
    INBOX: 'inbox',
  };
  for (const [num, name] of Object.entries(offsets))
    assert.is(Num[num as keyof typeof Num] * 8, layout[name], `${num} is ${name}`);
});

test('the page is as long as the native side takes it to be', () => {
  assert.is(PAGE_BYTES, layout.bytes);
});

test('the native side tells nothing that is not compared above', () => {
  assert.is(Object.keys(layout).length, Object.keys(Word).length + Object.keys(Num).length + 1);
});

test('the numbers of one kind are different from each other', () => {
  for (const numbers of [Reason, MessageKind, Word, Num]) {
    const values = Object.values(numbers);
    assert.is(new Set(values).size, values.length);
  }
});

test.run();
