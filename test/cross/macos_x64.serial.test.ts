// The core for macOS on x86_64, with kqueue: compiled and linked against Apple's stubs, not run.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CPU_X86_64, compiles, isMachO } from './compile.js';

compiles('macos-x64', 'the core for macOS on x86_64', (bytes) => {
  isMachO(bytes, CPU_X86_64);
  assert.ok(bytes.includes('_kevent'), 'its kqueue backend is in it');
});

test.run();
