// What `multiloop` refuses: one line on stderr, the right exit code, and nothing left running.

import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import * as assert from 'uvu/assert';
import { test } from '../hooks.js';
import { Cli, cleanUp, type Ended, run, scratch } from './cli.js';

test.after(cleanUp);

/** The one line. Its end is awaited together with all that holds its output. */
function line({ code, stdout, stderr }: Ended, expected: number): string {
  assert.match(stderr, /^multiloop: [^\n]+\n$/);
  assert.is(stdout, '');
  assert.is(code, expected);
  return stderr.trimEnd().slice('multiloop: '.length);
}

const misuses: [args: string[], message: RegExp][] = [
  [[], /^a command is missing: serve or doctor/],
  [['sevre'], /^there is no command 'sevre'; did you mean serve\?$/],
  [['nonsense'], /^there is no command 'nonsense'; the commands are serve and doctor$/],
  [['--nonsense'], /^there is no option --nonsense before a command/],
  [['serve', '--prot', '1'], /^serve has no option --prot; did you mean --port\?$/],
  [['serve', '--json'], /^serve has no option --json/],
  [['serve', '--loops', '0'], /^--loops must be .* from 1 to 512, not '0'$/],
  [['serve', '--loops', '-1'], /^--loops must be .* not '-1'$/],
  [['serve', '--loops', 'x'], /^--loops must be .* not 'x'$/],
  [['serve', '--loops'], /^--loops needs a value/],
  [['serve', '--port', '99999'], /^--port must be .* from 0 to 65535, not '99999'$/],
  [['serve', '--drain-ms', '1s'], /^--drain-ms must be/],
  [['serve', '--max-connections', '0'], /^--max-connections must be/],
  [['serve', '--waker', 'bell'], /^--waker must be eventfd or evfilt_user or pipe, not 'bell'$/],
  [['serve', '--policy', 'random'], /^--policy must be round-robin or .* or sticky, not 'random'$/],
  [['serve', '--accept', 'shard'], /^--accept must be .* not 'shard'; did you mean shared\?$/],
  [
    ['serve', '--accept', 'shared', '--policy', 'sticky'],
    /^--policy goes with --accept handoff; with --accept shared the kernel picks the loop$/,
  ],
  [
    ['serve', '--accept', 'reuseport', '--path', 'x'],
    /^--accept reuseport needs a port, and --path is a unix socket; try --accept shared$/,
  ],
  [['serve', '--path', 'x', '--port', '1'], /^--path and --port exclude each other$/],
  [['serve', 'htp'], /^'htp' is neither a file .* echo, http and tail; did you mean http\?$/],
  [['serve', 'http', 'echo'], /^http: 'echo' is no folder$/],
  [['serve', 'echo', '--', '--port'], /^echo takes no argument; '--port' is one too many$/],
  [['serve', 'tail'], /^tail needs a FILE: multiloop serve tail FILE$/],
  [['serve', 'tail', '--port', '0'], /^tail needs a FILE: multiloop serve tail FILE$/],
  [['serve', 'tail', 'a', 'b'], /^tail takes FILE and nothing else; 'b' is one too many$/],
  [['serve', 'tail', ''], /^tail: FILE must not be empty$/],
  [['serve', '--', '--port'], /^'--port' is neither a file/],
  [['doctor', 'http'], /^doctor takes no argument; 'http' is one$/],
];
for (const [args, message] of misuses)
  test(`misuse: multiloop ${args.join(' ')}`, async () => {
    assert.match(line(await run(...args), 2), message);
  });

test('a bad variable is named', async () => {
  const cli = new Cli(['serve'], { MULTILOOP_LOOPS: 'many' });
  assert.match(line(await cli.ended, 2), /^MULTILOOP_LOOPS must be .* not 'many'$/);
});

// ── backends ──

test('an unknown backend: what there is, and why not the others', async () => {
  const said = line(await run('serve', '--backend', 'epol'), 2);
  assert.match(said, "--backend: there is no backend 'epol'");
  assert.match(said, /available here: [^;]*poll, select/);
  assert.match(said, /not here: .*devpoll \(for Solaris/);
});

test('a backend that is not available here: the reason', async () => {
  const foreign = process.platform === 'linux' ? 'kqueue' : 'devpoll';
  const said = line(await run('serve', '--backend', `poll,${foreign}`), 2);
  assert.match(said, new RegExp(`^--backend: ${foreign} is not available: for .*; available here`));
});

test('a backend that the environment disables', async () => {
  const cli = new Cli(['serve', '--backend', 'poll'], { EVENT_NOPOLL: '1' });
  const said = line(await cli.ended, 2);
  assert.match(said, 'poll (EVENT_NOPOLL is set)');
  assert.not.match(said, /Available here:.*\bpoll\b/);
});

// ── addresses ──

async function listening(options: { port?: number; path?: string }): Promise<Server> {
  const server = createServer();
  server.listen({ host: options.path === undefined ? '127.0.0.1' : undefined, ...options });
  await Promise.race([
    once(server, 'listening'),
    once(server, 'error').then(([error]) => Promise.reject(error)),
  ]);
  return server;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

/** Two servers on ports that follow each other. */
async function neighbours(): Promise<[Server, Server]> {
  for (;;) {
    const first = await listening({ port: 0 });
    try {
      return [first, await listening({ port: portOf(first) + 1 })];
    } catch {
      first.close();
    }
  }
}

test('a port in use: one that was tried and is free', async () => {
  const servers = await neighbours();
  const port = portOf(servers[0]);
  const said = line(await run('serve', '--port', String(port)), 1);
  const match = said.match(/^port (\d+) on 127\.0\.0\.1 is in use; try --port (\d+)$/);
  assert.is(Number(match?.[1]), port);
  const suggested = Number(match?.[2]);
  assert.is(suggested > port + 1, true, 'the next port is in use as well');
  const free = await listening({ port: suggested });
  for (const server of [...servers, free]) server.close();
});

function portsNeedPrivileges(): boolean {
  if (process.getuid?.() === 0) return false;
  try {
    const file = '/proc/sys/net/ipv4/ip_unprivileged_port_start';
    return Number(readFileSync(file, 'utf8')) > 80;
  } catch {
    return true;
  }
}

const whenUnprivileged = portsNeedPrivileges() ? test : test.skip;
whenUnprivileged('a port that is not permitted', async () => {
  const said = line(await run('serve', '--port', '80'), 1);
  assert.match(said, /^port 80 .* ports below 1024 need privileges; try --port \d{4,}$/);
});

test('a host that does not exist', async () => {
  const said = line(await run('serve', '--host', 'no-such-host.invalid'), 1);
  assert.match(said, /^the host no-such-host\.invalid cannot be found \((ENOTFOUND|EAI_AGAIN)\)/);
});

test('a host that is another machine', async () => {
  const said = line(await run('serve', '--host', '203.0.113.7'), 1);
  assert.match(said, /^203\.0\.113\.7 is not an address of this machine; --host takes 0\.0\.0\.0/);
});

test('a unix path that is taken, stale, nowhere, or too long', async () => {
  const path = scratch('taken.sock');
  const server = await listening({ path });
  const taken = line(await run('serve', '--path', path), 1);
  assert.is(taken, `${path} is in use; another server listens there`);
  server.close();
  const stale = scratch('stale.sock', '');
  assert.match(line(await run('serve', '--path', stale), 1), 'no server listens there');
  const nowhere = scratch('no/folder.sock');
  assert.match(line(await run('serve', '--path', nowhere), 1), 'its folder does not exist');
  const long = scratch('x'.repeat(120));
  assert.match(line(await run('serve', '--path', long), 1), 'too long for a unix socket');
});

// ── workers ──

const workers: [what: string, file: string, text: string | undefined, message: RegExp][] = [
  ['is missing', 'missing.mjs', undefined, /missing\.mjs does not exist$/],
  [
    'does not parse',
    'syntax.mjs',
    'export default {\n  data() {\n    f(x;\n  },\n};\n',
    /syntax\.mjs does not parse: missing \) .* \(syntax\.mjs:3:7\)$/,
  ],
  [
    'does not parse, as a .js file',
    'syntax.js',
    'export default { data() { ( } };\n',
    /syntax\.js does not parse: Unexpected token '}' \(syntax\.js:1:29\)$/,
  ],
  [
    'imports what does not parse',
    'imports.mjs',
    "import './syntax.mjs';\nexport default {};\n",
    /imports\.mjs does not parse: missing \) .* \(the place is in a module that it imports\)$/,
  ],
  [
    'imports what is missing',
    'lost.mjs',
    "import './nowhere.mjs';\nexport default {};\n",
    /lost\.mjs threw while loading: Cannot find module .*nowhere\.mjs/,
  ],
  [
    'has no default export',
    'empty.mjs',
    'export const data = 1;\n',
    /empty\.mjs has no default export/,
  ],
  [
    'throws while loading',
    'throws.mjs',
    "function f() {\n  throw new TypeError('no\\n  config');\n}\nf();\nexport default {};\n",
    /throws\.mjs threw while loading: no config \(throws\.mjs:2:9\)$/,
  ],
  [
    'throws a syntax error of its own',
    'json.mjs',
    "export default JSON.parse('{');\n",
    /json\.mjs threw while loading: .*JSON.* \(json\.mjs:1:21\)$/,
  ],
  [
    'throws in start',
    'start.mjs',
    "export default {\n  async start() {\n    throw new Error('no disk');\n  },\n};\n",
    /start hook of the worker .*start\.mjs threw: no disk \(start\.mjs:3:11\)$/,
  ],
];
for (const [what, file, text, message] of workers)
  test(`a worker that ${what}`, async () => {
    scratch(file, text);
    const ended = await run('serve', `./${file}`, '--port', '0', '--loops', '2');
    assert.match(line(ended, 1), message);
  });

test('a worker that is a folder', async () => {
  mkdirSync(scratch('folder'));
  assert.match(line(await run('serve', './folder'), 1), 'is a folder, not a file');
});

test('MULTILOOP_DEBUG=1 shows the stack below the line', async () => {
  const file = scratch('debug.mjs', "throw new Error('look here');\n");
  const { code, stderr } = await new Cli(['serve', file, '--port', '0', '--loops', '1'], {
    MULTILOOP_DEBUG: '1',
  }).ended;
  assert.is(code, 1);
  assert.match(stderr, /^multiloop: .* look here \(debug\.mjs:1:7\)\n/);
  assert.match(stderr, /\n {4}at file:.*debug\.mjs:1:7\n/);
});

test.run();
