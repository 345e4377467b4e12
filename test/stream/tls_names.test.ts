// A TLS server's streams with names that are asked for, stapled OCSP responses, files, tickets and
// the key log; the peers are Node's and openssl's.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import {
  type BevEvent,
  BufferEvent,
  Ev,
  EventBase,
  Listener,
  LoopFlag,
  type SniCallback,
  type SocketStream,
  sys,
  type TlsServerOptions,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { assertNoneLeft, openDescriptors, thrownBy, within } from '../event/support.js';
import { suite } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { warmUp } from '../warm_up.js';

const PATIENCE_MS = 20_000;
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
const why = native.tlsUnavailable();
const nothing = () => undefined;
const ours = pair('localhost');
const file = (name: string) =>
  fileURLToPath(new URL(`../../../test/tls/${name}.pem`, import.meta.url));
/** RFC 6960 section 4.2.1: successful, of a type that nobody knows. */
const RESPONSE = Buffer.from('300c0a0100a007300506012a0400', 'hex');

let base: EventBase;
let before: string[];
let folder: string;
const closers: (() => unknown)[] = [];

const test = suite('tls names');
test.before.each(async () => {
  await warmUp();
  before = openDescriptors();
  folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  base = new EventBase({ debug: true });
  base.loop(LoopFlag.NO_EXIT_ON_EMPTY).catch(nothing);
});
test.after.each(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  base.close();
  rmSync(folder, { recursive: true, force: true });
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assertNoneLeft(before);
});

interface Served {
  port: number;
  streams: SocketStream[];
  told: BevEvent[];
  /** The next handshake of any stream that is refused for its name. */
  refusal(): Promise<Error>;
}
/** Streams that say 'hello' when their handshake is done. */
function serve(options: TlsServerOptions): Served {
  let wake: (error: Error) => void = nothing;
  const streams: SocketStream[] = [];
  const told: BevEvent[] = [];
  const listener = new Listener(base, { port: 0, host: '127.0.0.1' }, (fd) => {
    const event = (bev: BufferEvent, what: BevEvent) => {
      told.push(what);
      if (what.connected) bev.write('hello');
      const { code, message } = (what.error ?? {}) as NodeJS.ErrnoException;
      // A client of TLS 1.3 may be done, and gone, before its server is.
      if (code === 'ERR_TLS_HANDSHAKE' && message.includes('refused')) wake(what.error as Error);
    };
    const bev = BufferEvent.socket(base, fd, { tls: options, handlers: { event } });
    streams.push(bev);
    bev.enable(Ev.READ);
  });
  closers.push(() => {
    for (const bev of streams) bev.close();
    listener.close();
  });
  const refusal = () => {
    const coming = new Promise<Error>((resolve) => {
      wake = resolve;
    });
    return within(PATIENCE_MS, coming, 'a handshake fails');
  };
  return { port: (listener.address as { port: number }).port, streams, told, refusal };
}

function connect(port: number, options: tls.ConnectionOptions = {}): tls.TLSSocket {
  const far = tls.connect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca,
    checkServerIdentity: nothing,
    ...options,
  });
  far.on('error', nothing);
  closers.push(async () => {
    far.destroy();
    if (!far.closed) await once(far, 'close');
  });
  return far;
}
/** What a client is shown, or the error that it gets. */
async function shown(port: number, servername: string, options: tls.ConnectionOptions = {}) {
  const far = connect(port, { servername, ...options });
  try {
    await within(PATIENCE_MS, once(far, 'secureConnect'), servername);
  } catch (error) {
    return (error as { code: string }).code;
  }
  const { CN } = far.getPeerCertificate().subject;
  far.destroy();
  return CN;
}
/** Resolves when it is called, and can be answered then. */
function held() {
  const calls: { name: string; answer: (value: ReturnType<SniCallback>) => void }[] = [];
  let wake = nothing as () => void;
  const SNICallback: SniCallback = (name) =>
    new Promise((answer) => {
      calls.push({ name, answer: answer as (value: unknown) => void });
      wake();
    });
  const asked = async (count: number) => {
    while (calls.length < count)
      await within(
        PATIENCE_MS,
        new Promise<void>((resolve) => {
          wake = resolve;
        }),
        'it is asked',
      );
  };
  return { calls, SNICallback, asked };
}

for (const maxVersion of VERSIONS)
  test(`${maxVersion}: a certificate for names that have none, now or later, or the default`, async () => {
    const names: string[] = [];
    const { port, refusal } = serve({
      ...ours,
      contexts: { 'www.example.org': pair('www') },
      SNICallback: (name) => {
        names.push(name);
        if (name === 'now.test') return pair('www');
        if (name === 'later.test')
          return new Promise((resolve) => setTimeout(resolve, 5, pair('wildcard')));
        if (name === 'throws.test') throw new Error('not here');
        if (name === 'bad.test') return { ...ours, key: pair('www').key };
        if (name === 'strange.test') return 5 as never;
        return undefined;
      },
    });
    const see = (name: string) => shown(port, name, { maxVersion });
    assert.is(await see('WWW.example.org'), 'www.example.org');
    assert.is(await see(''), 'localhost');
    assert.equal(names, []);
    assert.is(await see('now.test'), 'www.example.org');
    assert.is(await see('Later.TEST'), '*.example.org');
    assert.is(await see('other.test'), 'localhost');
    const refusals: [string, RegExp][] = [
      ['throws.test', /'throws\.test' was refused: not here/],
      ['bad.test', /'bad\.test' was refused: .*SNICallback\('bad\.test'\): the key is not/],
      ['strange.test', /'strange\.test' was refused: .*must be of type object/],
    ];
    for (const [name, reason] of refusals) {
      const refused = refusal();
      assert.is(await see(name), 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME');
      assert.match((await refused).message, reason);
    }
    const wanted = ['now.test', 'later.test', 'other.test'];
    assert.equal(names, [...wanted, ...refusals.map(([name]) => name)]);
  });

test('who waits has its deadline, may go, and takes no turn from others', async () => {
  const { calls, SNICallback, asked } = held();
  const server = serve({ ...ours, SNICallback, handshakeTimeout: 1_500 });
  const waiting = Array.from({ length: 20 }, (_, i) =>
    connect(server.port, { servername: `n${i}.test` }),
  );
  await asked(20);
  // Others go on meanwhile.
  assert.is(await shown(server.port, ''), 'localhost');
  // Some are closed by us, one by its peer, and one is answered.
  for (const bev of server.streams.slice(0, 9)) bev.close();
  waiting[10].destroy();
  const ended = once(waiting[12], 'secureConnect');
  const at = calls.findIndex(({ name }) => name === 'n12.test');
  calls[at].answer(pair('wildcard'));
  await ended;
  assert.is(waiting[12].getPeerCertificate().subject.CN, '*.example.org');
  const late = () => server.told.filter(({ timeout }) => timeout);
  await until(() => late().length >= 10);
  for (const { error } of late()) assert.match(String(error?.message), 'not done within 1500 ms');
  // Nobody is there any more.
  for (const { answer } of calls) answer(ours);
  await new Promise(setImmediate);
  assert.is(await shown(server.port, ''), 'localhost');
});

for (const maxVersion of VERSIONS)
  test(`${maxVersion}: OCSP responses are stapled for who asks, each with its certificate`, async () => {
    const other = Buffer.from(RESPONSE);
    other[other.length - 3] = 0x2b;
    const { port } = serve({
      ...ours,
      ocspResponse: RESPONSE,
      contexts: { 'www.example.org': { ...pair('www'), ocspResponse: other } },
      SNICallback: (name) => (name === 'other.test' ? pair('wildcard') : undefined),
    });
    const stapled = async (servername: string, requestOCSP = true) => {
      // Node's types have it for TLSSocket only.
      const options = { servername, requestOCSP, maxVersion };
      const far = connect(port, options);
      const got: unknown[] = [];
      far.on('OCSPResponse', (response) => got.push(response));
      await once(far, 'secureConnect');
      far.destroy();
      return got;
    };
    assert.equal(await stapled('localhost'), [RESPONSE]);
    assert.equal(await stapled('www.example.org'), [other]);
    assert.equal(await stapled('other.test'), [null]);
    assert.equal(await stapled('localhost', false), []);
    // Ours as the client.
    for (const requestOCSP of [true, false]) {
      let told: BevEvent | undefined;
      const bev = BufferEvent.connect(
        base,
        { host: '127.0.0.1', port },
        {
          tls: { ca, servername: 'localhost', requestOCSP, maxVersion },
          handlers: { event: (_, event) => (told ??= event) },
        },
      );
      closers.push(() => bev.close());
      await until(() => told !== undefined);
      assert.is(told?.connected, true, String(told?.error));
      const response = bev.tls?.ocspResponse;
      assert.equal(response && Buffer.from(response), requestOCSP ? RESPONSE : undefined);
    }
  });

test('openssl s_client sees the stapled response, and a ticket', async () => {
  const { port } = serve({ ...ours, ocspResponse: RESPONSE });
  const output = await new Promise<string | undefined>((resolve, reject) => {
    const args = ['s_client', '-connect', `127.0.0.1:${port}`, '-servername', 'localhost'];
    const child = execFile(
      'openssl',
      [...args, '-status', '-CAfile', file('ca')],
      { timeout: PATIENCE_MS },
      (error, stdout) => {
        if ((error as { code?: unknown } | null)?.code === 'ENOENT') resolve(undefined);
        else if (error?.killed) reject(error);
        else resolve(stdout);
      },
    );
    child.stdin?.on('error', nothing);
    // It quits at the end of its input, but not before it has heard us.
    child.stdout?.on('data', (text) => {
      if (String(text).includes('hello')) child.stdin?.end();
    });
  });
  if (output === undefined) {
    console.log('Skipped: there is no openssl');
    return;
  }
  assert.match(output, /OCSP Response Data:[\s\S]*OCSP Response Status: successful/);
  assert.match(output, /Verify return code: 0 \(ok\)/);
});

test('certificates in files: what is wrong is said of the file', async () => {
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const [text, empty] = [join(folder, 'text.pem'), join(folder, 'empty.pem')];
  writeFileSync(cert, ours.cert);
  writeFileSync(key, ours.key);
  writeFileSync(text, 'nothing');
  writeFileSync(empty, '');
  writeFileSync(join(folder, 'ocsp.der'), RESPONSE);
  const [fd, other] = sys.socketPair();
  const make = (options: object) => () =>
    BufferEvent.socket(base, fd, { tls: { isServer: true, ...options } });
  const count = native.tlsContextCount();
  const wrong: [object, RegExp][] = [
    [{ certFile: '/no/cert', keyFile: key }, /certFile \/no\/cert: it cannot be read: there is no/],
    [{ certFile: cert, keyFile: folder }, /keyFile .*: it cannot be read: it is a folder/],
    [{ certFile: empty, keyFile: key }, /certFile .*empty\.pem: it is empty/],
    [{ certFile: text, keyFile: key }, /tls: .*\/text\.pem: the certificate is no PEM/],
    [{ certFile: cert, keyFile: text }, /tls: .*\/text\.pem: the key is no PEM/],
    [{ certFile: cert, keyFile: file('www-key') }, /cert\.pem, .*www-key\.pem: the key is not the/],
    [{ certFile: cert, keyFile: key, ocspFile: text }, /text\.pem: the OCSP response is no DER/],
    [{ certFile: [cert, cert], keyFile: key }, /2 certificates and 1 keys/],
    [{ ...ours, ocspResponse: [RESPONSE, RESPONSE] }, /2 OCSP responses and 1 certificates/],
    [{ ...ours, ticketFile: cert }, /the ticket file .*cert\.pem (is open to others|has some)/],
    [{ ...ours, keylog: join(folder, 'no/log') }, /the key log .*no\/log cannot be opened/],
    [
      { ...ours, contexts: { 'a.b': { certFile: cert, keyFile: text } } },
      /contexts\['a\.b'\]: .*text\.pem: the key is no PEM/,
    ],
  ];
  if (process.env.SSLKEYLOGFILE === undefined)
    wrong.push([{ ...ours, keylog: true }, /keylog is true, .* no SSLKEYLOGFILE/]);
  for (const [options, message] of wrong) {
    const { code, message: said } = thrownBy(make(options));
    assert.is(code, 'ERR_TLS_CONFIG', said);
    assert.match(said, message);
  }
  const values: [object, string][] = [
    [{ ...ours, certFile: cert }, 'ERR_INVALID_ARG_VALUE'],
    [{ certFile: '', keyFile: key }, 'ERR_INVALID_ARG_VALUE'],
    [{ certFile: 5, keyFile: key }, 'ERR_INVALID_ARG_TYPE'],
    [{ ...ours, ocspResponse: 'text' }, 'ERR_INVALID_ARG_TYPE'],
    [{ ...ours, SNICallback: {} }, 'ERR_INVALID_ARG_TYPE'],
    [{ ...ours, watch: true }, 'ERR_INVALID_ARG_VALUE'],
    [{ ...ours, tickets: 'no' }, 'ERR_INVALID_ARG_TYPE'],
    [{ ...ours, tickets: false, ticketFile: cert }, 'ERR_INVALID_ARG_VALUE'],
    [{ ...ours, ticketFile: '' }, 'ERR_INVALID_ARG_VALUE'],
    [{ ...ours, ticketRotation: 1 }, 'ERR_OUT_OF_RANGE'],
    [{ ...ours, sessionTimeout: 604_801 }, 'ERR_OUT_OF_RANGE'],
    [{ ...ours, keylog: 5 }, 'ERR_INVALID_ARG_TYPE'],
    [{ isServer: false, servername: 'x', requestOCSP: 1 }, 'ERR_INVALID_ARG_TYPE'],
  ];
  for (const [options, code] of values) assert.is(thrownBy(make(options)).code, code);
  assert.is(native.tlsContextCount(), count);
  native.sysClose(fd);
  native.sysClose(other);
  const { port } = serve({
    certFile: cert,
    keyFile: key,
    ocspFile: join(folder, 'ocsp.der'),
    contexts: { 'www.example.org': { certFile: file('www'), keyFile: file('www-key') } },
  });
  assert.is(await shown(port, 'localhost'), 'localhost');
  assert.is(await shown(port, 'www.example.org'), 'www.example.org');
});

for (const maxVersion of VERSIONS)
  test(`${maxVersion}: without tickets no session is resumed; with them over every name`, async () => {
    const visit = async (port: number, servername: string, session?: Buffer) => {
      const far = connect(port, { maxVersion, servername, session });
      let given = session;
      far.on('session', (one) => {
        given = one;
      });
      await once(far, 'data');
      const reused = far.isSessionReused();
      far.destroy();
      return { reused, session: given };
    };
    for (const tickets of [true, false]) {
      const { port } = serve({
        ...ours,
        tickets,
        contexts: { 'www.example.org': pair('www') },
        SNICallback: () => pair('rsa'),
      });
      for (const name of ['localhost', 'www.example.org', 'asked.test']) {
        const first = await visit(port, name);
        assert.is(first.reused, false);
        assert.is((await visit(port, name, first.session)).reused, tickets, name);
      }
    }
  });

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`never came true: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
