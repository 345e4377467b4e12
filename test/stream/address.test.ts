// Addresses as text: libevent's evutil_parse_sockaddr_port() and evutil_format_sockaddr_port_().

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Address, EventBase, formatAddress, Listener, parseAddress } from '../../src/index.js';
import { codeOf } from '../event/support.js';

const ip = (host: string, port: number, family: 4 | 6): Address => ({ host, port, family });

const sound: Record<string, Address> = {
  '1.2.3.4': ip('1.2.3.4', 0, 4),
  '1.2.3.4:80': ip('1.2.3.4', 80, 4),
  '1.2.3.4:0': ip('1.2.3.4', 0, 4),
  '1.2.3.4:080': ip('1.2.3.4', 80, 4),
  '255.255.255.255:65535': ip('255.255.255.255', 65_535, 4),
  '::': ip('::', 0, 6),
  '::1': ip('::1', 0, 6),
  // Without brackets the last group is a group.
  '::1:80': ip('::1:80', 0, 6),
  '[::1]': ip('::1', 0, 6),
  '[::1]:80': ip('::1', 80, 6),
  '[ffff:1:2:3:4:5:6:7]:65535': ip('ffff:1:2:3:4:5:6:7', 65_535, 6),
  '::ffff:1.2.3.4': ip('::ffff:1.2.3.4', 0, 6),
  '[::ffff:1.2.3.4]:7': ip('::ffff:1.2.3.4', 7, 6),
  'fe80::1%lo': ip('fe80::1%lo', 0, 6),
  '[fe80::1%lo]:5': ip('fe80::1%lo', 5, 6),
  '[fe80::1%1]:5': ip('fe80::1%1', 5, 6),
  '/run/a.sock': { path: '/run/a.sock' },
  '/a:80': { path: '/a:80' },
  '@abstract': { path: '@abstract' },
};

const unsound = [
  ['', ' ', '/', '@', ':', ':80', '[]', '[]:80', '[', ']', '%'],
  ['localhost', 'localhost:80', 'example.org', 'a/b'],
  ['1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', '1.2.3.4.', '.1.2.3.4', '1..2.3', '1234'],
  ['1.2.3.4:', '1.2.3.4:-1', '1.2.3.4:+1', '1.2.3.4:8a', '1.2.3.4:65536', '1.2.3.4:100000'],
  ['1.2.3.4:80:80', '1.2.3.4 ', ' 1.2.3.4', '1.2.3.4\n', '1.2.3.4:80\n', '1.2.3.4: 80'],
  ['[1.2.3.4]', '[1.2.3.4]:80', '1.2.3.4%lo', '1.2.3.4%1'],
  ['[::1', '::1]', '[::1]80', '[::1]:', '[::1]:65536', '[::1]]', '[[::1]]', '[::1]:80\n', '[::1]x'],
  [':::', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '12345::', 'g::', '::1/64', '::1 '],
  ['fe80::1%', 'fe80::1%no-such-zone', '[fe80::1%]:5', 'fe80::1%1x', 'fe80::1% 1', 'fe80::1%-1'],
  [`fe80::1%${2 ** 32 + 1}`, `fe80::1%1${' '.repeat(300)}`, `${':'.repeat(300)}1`],
  // What ends at a NUL for the kernel is not what was written.
  ['1.2.3.4\0', '1.2.3.4\0:80', '::1\0', '[::1\0x]:80', '/run/a\0b', '\0', '::1%lo\0'],
].flat();

test('evutil_parse_sockaddr_port: what it reads', () => {
  for (const [text, address] of Object.entries(sound)) assert.equal(parseAddress(text), address);
});

test('evutil_parse_sockaddr_port: anything else is undefined', () => {
  for (const text of unsound) assert.is(parseAddress(text), undefined, JSON.stringify(text));
});

test('evutil_parse_sockaddr_port: text alone is read', () => {
  for (const wrong of [undefined, null, 80, {}, ['::1']])
    assert.is(
      codeOf(() => parseAddress(wrong as never)),
      'ERR_INVALID_ARG_TYPE',
    );
});

test('evutil_format_sockaddr_port_: an address as text', () => {
  assert.is(formatAddress({ host: '127.0.0.1', port: 80 }), '127.0.0.1:80');
  assert.is(formatAddress({ host: '::1', port: 80, family: 6 }), '[::1]:80');
  assert.is(formatAddress({ host: 'a.name', port: 0 }), 'a.name:0');
  assert.is(formatAddress({ path: '/run/a.sock' }), '/run/a.sock');
});

test('what is formatted is read back as it was', () => {
  for (const address of Object.values(sound))
    assert.equal(parseAddress(formatAddress(address)), address);
});

test('a listener’s address is read back as it is', () => {
  using base = new EventBase();
  for (const host of ['127.0.0.1', '::1']) {
    const listener = new Listener(base, { host }, () => undefined);
    assert.equal(parseAddress(formatAddress(listener.address)), listener.address);
    listener.close();
  }
});

test.run();
