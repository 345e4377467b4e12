// What the streams of a server are opened with: checked once, as long as it says the same.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TlsServerOptions } from '../../src/index.js';
import { native } from '../../src/native.js';
import { planSocket } from '../../src/stream/tls_options.js';
import { codeOf } from '../event/support.js';
import { pair } from '../tls/pems.js';

const why = native.tlsUnavailable();
const test = suite(why === undefined ? 'plans of TLS' : `no TLS: ${why}`);
const { cert, key } = pair('localhost');
const other = pair('www');

if (why === undefined) {
  test('the same options have one plan', () => {
    for (const options of [
      { cert, key },
      { cert: Buffer.from(cert), key: [Buffer.from(key)], ALPNProtocols: ['a', 'b'] },
    ])
      assert.is(planSocket(options), planSocket(options));
    // And the same said by another object the same context.
    assert.is(planSocket({ cert, key }).context, planSocket({ cert, key }).context);
  });

  test('options that say something else have another one', () => {
    const options: TlsServerOptions = { cert, key, ALPNProtocols: ['a'] };
    const first = planSocket(options).context;
    options.ALPNProtocols?.push('b');
    const second = planSocket(options).context;
    assert.is.not(second, first);
    options.handshakeTimeout = 5;
    assert.is(planSocket(options).timeoutMs, 5);
    options.handshakeTimeout = undefined;
    delete options.ALPNProtocols;
    const third = planSocket(options).context;
    assert.not([first, second].includes(third));
    options.cert = other.cert;
    assert.is(
      codeOf(() => planSocket(options)),
      'ERR_TLS_CONFIG',
    );
    options.key = other.key;
    assert.not([first, second, third].includes(planSocket(options).context));
  });

  test('bytes that are changed in place are looked at again', () => {
    const options = { cert: Buffer.from(cert), key };
    const before = planSocket(options).context;
    options.cert.fill('x');
    assert.is(
      codeOf(() => planSocket(options)),
      'ERR_TLS_CONFIG',
    );
    Buffer.from(cert).copy(options.cert);
    assert.is(planSocket(options).context, before);
  });

  test('files are read for each stream', () => {
    const directory = mkdtempSync(join(tmpdir(), 'multiloop-plan-'));
    try {
      const options = { certFile: join(directory, 'c.pem'), keyFile: join(directory, 'k.pem') };
      const write = (one: { cert: string; key: string }) => {
        writeFileSync(options.certFile, one.cert);
        writeFileSync(options.keyFile, one.key);
      };
      write({ cert, key });
      const first = planSocket(options).context;
      write(other);
      assert.is.not(planSocket(options).context, first);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('a plan whose context was given up is made anew', () => {
    const options = { cert, key, sessionTimeout: 4_321 };
    const plan = planSocket(options);
    // More than are kept, each once.
    for (let seconds = 1; seconds <= 40; seconds++)
      planSocket({ cert, key, sessionTimeout: seconds });
    const again = planSocket(options);
    assert.is.not(again, plan);
    // One that is used in between stays.
    for (let seconds = 1; seconds <= 40; seconds++) {
      planSocket({ cert, key, sessionTimeout: seconds });
      assert.is(planSocket(options), again);
    }
  });
} else test('nothing to plan', () => assert.type(why, 'string'));

test.run();
