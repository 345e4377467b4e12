// TLS: the server's CPU for each handshake, message and transfer, and its memory for each idle
// connection, on one loop, beside Node's tls, libevent's OpenSSL bufferevents, nginx and Bun. The
// clients are a process of their own on another core, and all of them ask for the same cipher.
// Handshakes per CPU second are a million divided by what is printed.

import { existsSync } from 'node:fs';
import { compiled, libeventPeer } from './peers/compile.js';
import { nodeProgram, type Program } from './peers/program.js';
import { Remote } from './peers/remote.js';
import { pause } from './peers/rpc.js';
import { type Command, hasBun, Server } from './peers/server.js';
import { filesOf, type Key, type Role } from './peers/tls_options.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

type Servers = Record<string, (key: Key, role: Role, bytes: number) => Command | undefined>;

const NGINX = ['/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/bin/nginx'];
/** The peer that shows what the share of the kernel and of the library is. */
const BARE = 'OpenSSL alone';
const OURS = ['BufferEvent', 'serve()'];
/** What is compiled in the first moments is not what a server costs: until so many, or so long. */
const WARM_MESSAGES = 8_000;
const WARM_HANDSHAKES = 1_000;
const WARM_MS = 4_000;
const MEBIBYTE = 1024 * 1024;
const PAGE = (name: string) => `GET /${name} HTTP/1.0\r\n\r\n`;

function serversOf(options: BenchOptions): Servers {
  const command = ({ command: program, args }: Program): Command => [program, ...args];
  const node =
    (kind: string): Servers[string] =>
    (...task) =>
      command(nodeProgram('tls_server', kind, ...task));
  const servers: Servers = { BufferEvent: node('bufferevent'), 'serve()': node('serve') };
  servers['node tls'] = node('node');
  const libevent = libeventPeer(options, 'tls_libevent', [
    '-levent_openssl',
    '-levent',
    '-lssl',
    '-lcrypto',
  ]);
  if (libevent !== undefined)
    servers[libevent.name] = (key, role, bytes) => [
      libevent.command,
      ...filesOf(key),
      role,
      String(bytes),
    ];
  const bare = options.peerCmd === undefined && compiled('tls_bare', ['-lssl', '-lcrypto']);
  if (bare) servers[BARE] = (key, role) => (role === 'echo' ? [bare, ...filesOf(key)] : undefined);
  const nginx = NGINX.find((file) => existsSync(file));
  if (nginx !== undefined)
    servers.nginx = (key, role, bytes) =>
      role === 'source' ? command(nodeProgram('tls_nginx', nginx, key, role, bytes)) : undefined;
  if (hasBun())
    servers.bun = (key, role) =>
      role === 'echo' ? ['bun', ...nodeProgram('tls_bun', key, role).args] : undefined;
  return servers;
}

/** One figure of each server that can do it, ours beside every peer. */
async function* compare(
  name: string,
  unit: string,
  rounds: number,
  programs: Record<string, (() => Promise<number>) | undefined>,
): AsyncIterable<Case> {
  const able = Object.entries(programs).filter(([, run]) => run !== undefined);
  const runs = await inTurn<string, number>(rounds, Object.fromEntries(able));
  for (const [peer, theirs] of Object.entries(runs)) {
    if (OURS.includes(peer)) continue;
    for (const ours of OURS)
      yield caseOf(`${name}, ${ours}`, unit, runs[ours], { name: peer, runs: theirs });
  }
}

export default async function* bench(options: BenchOptions): AsyncIterable<Case> {
  const { quick } = options;
  const servers = serversOf(options);
  const client = new Remote(nodeProgram('tls_load'), 'client');
  const each = (
    key: Key,
    role: Role,
    bytes: number,
    measure: (server: Server, name: string) => Promise<number>,
  ) =>
    Object.fromEntries(
      Object.entries(servers).map(([name, command]) => {
        const program = command(key, role, bytes);
        const run = async () => {
          const server = await Server.start(program as Command);
          try {
            return await measure(server, name);
          } finally {
            await server.stop();
          }
        };
        return [name, program && run];
      }),
    );
  const warm = async (load: { port: number; text: string; resumed: boolean }) => {
    const late = performance.now() + WARM_MS;
    for (let count = 0; count < WARM_HANDSHAKES && performance.now() < late; )
      count += await client.call<number>('handshakes', { ...load, ms: 300 });
  };
  try {
    const rounds = quick ? 1 : 3;
    for (const key of ['ecdsa', 'rsa'] as const) {
      for (const resumed of [false, true]) {
        // A resumed handshake has no signature: the key does not matter.
        if (resumed && (quick || key === 'rsa')) continue;
        // A server of files takes part, so the others answer with one byte as well.
        const programs = each(key, 'source', 1, async (server, name) => {
          const load = { port: server.port, text: name === 'nginx' ? PAGE('small') : 'x', resumed };
          await warm(load);
          const before = server.cpu();
          const count = await client.call<number>('handshakes', {
            ...load,
            ms: quick ? 700 : 2_000,
          });
          return ((server.cpu() - before) / count) * 1e6;
        });
        const name = `${resumed ? 'resumed' : 'full'} handshake, ${key}`;
        yield* compare(name, 'µs CPU', rounds, programs);
      }
    }
    for (const [count, bytes] of [
      [1, 64],
      [50, 64],
      [1, 16_384],
      [50, 16_384],
    ]) {
      if (quick && count === 1 && bytes !== 64) continue;
      const ms = quick ? 800 : 2_000;
      const programs = each('ecdsa', 'echo', 0, async (server) => {
        await client.call('start', { port: server.port, count, bytes });
        await pause(ms / 2);
        const late = performance.now() + WARM_MS;
        while ((await client.call<number>('count')) < WARM_MESSAGES && performance.now() < late)
          await pause(20);
        const [before, seen] = [server.cpu(), await client.call<number>('count')];
        await pause(ms);
        const used = server.cpu() - before;
        const messages = (await client.call<number>('count')) - seen;
        await client.call('leave');
        return (used / messages) * 1e6;
      });
      yield* compare(`echo, ${count} × ${bytes} B`, 'µs CPU/msg', quick ? 1 : 5, programs);
    }
    const bytes = (quick ? 256 : 1_024) * MEBIBYTE;
    for (const role of ['source', 'sink'] as const) {
      const programs = each('ecdsa', role, bytes, async (server, name) => {
        const text = name === 'nginx' ? PAGE('big') : 'x';
        const before = server.cpu();
        await client.call(role === 'source' ? 'download' : 'upload', {
          port: server.port,
          text,
          bytes,
        });
        return ((server.cpu() - before) * 1e3 * 1_024 * MEBIBYTE) / bytes;
      });
      const name = role === 'source' ? 'sending' : 'receiving';
      yield* compare(`${name} ${bytes / MEBIBYTE} MiB`, 'ms CPU/GiB', rounds, programs);
    }
    const [few, many] = quick ? [500, 1_500] : [500, 2_500];
    const programs = each('ecdsa', 'echo', 0, async (server) => {
      const grow = async (to: number) => {
        await client.call('grow', { port: server.port, to, text: 'hello' });
        await pause(quick ? 700 : 1_500);
        return server.privateDirty();
      };
      // A young heap grows with what runs first, and nothing of that is a connection's.
      await warm({ port: server.port, text: 'hello', resumed: false });
      const before = await grow(few);
      const after = await grow(many);
      await client.call('leave');
      return (after - before) / (many - few);
    });
    yield* compare('idle after one message', 'B', rounds, programs);
  } finally {
    await client.stop();
  }
}
