// The core for macOS on aarch64, with kqueue: compiled and linked against Apple's stubs, not run.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CPU_ARM64, compiles, isMachO } from './compile.js';

compiles('macos-arm64', 'the core for macOS on aarch64', (bytes) => {
  isMachO(bytes, CPU_ARM64);
  assert.ok(bytes.includes('_kevent'), 'its kqueue backend is in it');
});

test.run();
