// The core's portable form for Windows on x86_64: compiled and linked against Winsock, not run.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compiles } from './compile.js';

// "PE Format": where the header begins is at 0x3c, and the machine follows "PE\0\0".
compiles('windows-x64', 'the core for Windows on x86_64', (bytes) => {
  const header = bytes.readUInt32LE(0x3c);
  assert.is(bytes.toString('latin1', header, header + 4), 'PE\0\0');
  assert.is(bytes.readUInt16LE(header + 4), 0x8664);
  assert.ok(bytes.includes('WSAPoll'), 'its poll backend is in it');
});

test.run();
