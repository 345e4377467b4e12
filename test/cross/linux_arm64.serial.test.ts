// The addon for Linux on aarch64. It runs too, with `npm run test:arm64`.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compiles } from './compile.js';

// elf(5): the machine is at byte 18, and EM_AARCH64 is 183.
compiles('linux-arm64', 'the addon for Linux on aarch64', (bytes) => {
  assert.is(bytes.toString('latin1', 1, 4), 'ELF');
  assert.is(bytes.readUInt16LE(18), 183);
  assert.ok(bytes.includes('napi_register_module_v1'));
});

test.run();
