// Clients of TLS that number what they say and check every byte of the answers, while their
// connections are moved, their loops reloaded and ended: none is lost, and each client has one
// handshake. And what becomes of handshakes that are in flight then.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const LOOPS = 3;
/** Lines that a client sends before it waits for answers. */
const AHEAD = 8;
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
type Version = (typeof VERSIONS)[number];
const why = native.tlsUnavailable();
const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const caFile = fileURLToPath(new URL('../../../test/tls/ca.pem', import.meta.url));

async function withGroup(
  options: Partial<ServeOptions>,
  body: (group: LoopGroup) => Promise<void>,
): Promise<void> {
  const group = await serve({
    worker: workerFile('sequence'),
    loops: LOOPS,
    restart: { max: 1_000, backoff: 1 },
    listen: [
      { port: 0, name: 'tls', tls: pair('localhost') },
      { port: 0, name: 'plain' },
    ],
    ...options,
  });
  try {
    await body(group);
    await until(() => group.stats().open === 0, 'every connection is closed');
    const { accepted, served, refused, lost } = group.stats();
    assert.is(accepted, served + refused + lost);
  } finally {
    await group.close();
  }
}

// ── clients ─────────────────────────────────────────────────────────────────────────────────────

/** What a client is made of: a program or a socket. */
interface Peer {
  write(text: string): void;
  end(): void;
  /** How many handshakes it has done. */
  handshakes(): number;
  /** Resolves when it has ended by itself. */
  over: Promise<unknown>;
  output: NodeJS.ReadableStream;
}

async function nodePeer(group: LoopGroup, maxVersion: Version): Promise<Peer> {
  const port = portOf(group);
  const far = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, maxVersion });
  let handshakes = 0;
  far.on('secureConnect', () => handshakes++);
  far.on('error', () => undefined);
  await once(far, 'secureConnect');
  assert.is(far.getProtocol(), maxVersion);
  return {
    write: (text) => void far.write(text),
    end: () => void far.end(),
    handshakes: () => handshakes,
    over: new Promise((resolve) => far.once('close', resolve)),
    output: far,
  };
}

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

async function opensslPeer(group: LoopGroup, maxVersion: Version): Promise<Peer> {
  const flag = maxVersion === 'TLSv1.2' ? '-tls1_2' : '-tls1_3';
  const child = spawn('openssl', [
    ...['s_client', '-connect', `127.0.0.1:${portOf(group)}`, '-servername', 'localhost', flag],
    ...['-CAfile', caFile, '-verify_return_error', '-brief'],
  ]);
  children.add(child);
  let told = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    told += text;
  });
  const handshakes = () => told.split('CONNECTION ESTABLISHED').length - 1;
  const over = once(child, 'close').then(() => children.delete(child));
  await until(() => told.includes(`Protocol version: ${maxVersion}`), 'its handshake is done');
  const write = (text: string) => void child.stdin.write(text);
  return { write, end: () => child.stdin.end(), handshakes, over, output: child.stdout };
}

/** Lines of many lengths: within a record, a few in one, and longer than one. */
const lineOf = (number: number) => `${number} ${'x'.repeat((number * 7_919) % 20_000)}`;

class Client {
  readonly peer: Peer;
  sent = 0;
  answered = 0;
  rescues = 0;
  readonly loops = new Set<number>();
  readonly wrong: string[] = [];
  #paused = false;
  #rest = '';

  constructor(peer: Peer) {
    this.peer = peer;
    peer.output.on('data', (data: Buffer) => {
      const lines = (this.#rest + data.toString('latin1')).split('\n');
      this.#rest = lines.pop() as string;
      for (const line of lines) this.#check(line);
      this.#pump();
    });
    this.#pump();
  }

  #check(line: string): void {
    const expected = `${lineOf(this.answered)} `;
    if (!line.startsWith(expected)) this.wrong.push(`${line.slice(0, 40)} for ${this.answered}`);
    const [loop, rescues] = line.slice(expected.length).split(' ').map(Number);
    this.loops.add(loop);
    this.rescues = rescues;
    this.answered++;
  }
  #pump(): void {
    while (!this.#paused && this.sent - this.answered < AHEAD)
      this.peer.write(`${lineOf(this.sent++)}\n`);
  }

  /** Says no more until go(), and resolves when all is answered. */
  async quiet(): Promise<void> {
    this.#paused = true;
    await until(() => this.answered === this.sent || this.wrong.length > 0, 'all is answered');
  }
  go(): void {
    this.#paused = false;
    this.#pump();
  }
  /** Lives on by `count` answers. */
  async more(count: number): Promise<void> {
    const most = this.answered + count;
    await until(() => this.answered >= most || this.wrong.length > 0, `${count} answers`);
  }
}

/** What was asked of a loop's connections before this is past its boundary. */
async function settled(group: LoopGroup, loop: number): Promise<void> {
  for (let at = -1; at !== loop; ) {
    const socket = net.connect(portOf(group, 1), '127.0.0.1');
    const witness = LineClient.of(socket.on('error', () => undefined));
    at = Number((await witness.ask('0')).split(' ')[1]);
    await witness.end();
  }
}

async function storm(group: LoopGroup, clients: Client[]): Promise<number> {
  const ids = () => group.connections().filter(({ listener }) => listener === 'tls');
  let moves = 0;
  let crashes = 0;
  // A connection is rescued twice a minute at most.
  for (let round = 0; round < 2; round++) {
    // While they talk: at whatever byte of whatever record.
    for (let i = 0; i < 12; i++) {
      const to = i % LOOPS;
      const moved = ids().map(({ id, loop }) => (loop === to ? undefined : group.move(id, to)));
      await within(PATIENCE_MS, Promise.all(moved), 'the moves');
      moves += moved.filter((one) => one !== undefined).length;
    }
    const { moved, drained, closed } = await group.reload();
    assert.equal([moved, drained, closed], [clients.length, 0, 0]);
    await Promise.all(clients.map((client) => client.more(2 * AHEAD)));

    await Promise.all(clients.map((client) => client.quiet()));
    const victim = ids()[round % clients.length].loop;
    await settled(group, victim);
    await until(() => group.stats().open === clients.length, 'the witnesses are closed');
    const there = ids().filter(({ loop }) => loop === victim).length;
    const before = group.stats().rescues;
    await group.loops[victim].terminate();
    await until(() => group.stats().rescues === before + there, 'they are rescued');
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
    crashes += there;
    for (const client of clients) client.go();
    await Promise.all(clients.map((client) => client.more(2 * AHEAD)));
  }
  assert.ok(group.stats().moves >= moves, `${group.stats().moves} of ${moves} moves`);
  return crashes;
}

async function numbered(make: (group: LoopGroup, version: Version) => Promise<Peer>) {
  await withGroup({}, async (group) => {
    const clients: Client[] = [];
    for (const version of [...VERSIONS, ...VERSIONS])
      clients.push(new Client(await make(group, version)));
    const rescues = await storm(group, clients);
    for (const client of clients) {
      await client.quiet();
      assert.equal(client.wrong, []);
      assert.is(client.peer.handshakes(), 1);
      assert.is(client.loops.size, LOOPS);
      client.peer.end();
      await within(PATIENCE_MS, client.peer.over, 'its end');
      assert.is(client.answered, client.sent);
    }
    assert.is(
      clients.reduce((sum, client) => sum + client.rescues, 0),
      rescues,
    );
    const { lost, handshakesFailed } = group.stats();
    assert.equal([lost, handshakesFailed], [0, 0]);
  });
}

test("numbered lines of Node's tls through moves, reloads and crashes", () => numbered(nodePeer));

const opensslName = 'numbered lines of openssl s_client through moves, reloads and crashes';
if (hasOpenssl) test(opensslName, () => numbered(opensslPeer));
else test.skip(`openssl is not installed: ${opensslName}`, () => undefined);

// ── handshakes in flight ────────────────────────────────────────────────────────────────────────

/** A connection that has said nothing yet, and its number in the group. */
async function silent(group: LoopGroup): Promise<{ raw: net.Socket; id: number; loop: number }> {
  const raw = net.connect(portOf(group), '127.0.0.1');
  raw.on('error', () => undefined);
  await once(raw, 'connect');
  let found = group.connections().find(({ loop }) => loop >= 0);
  await until(() => {
    found = group.connections().find(({ loop }) => loop >= 0);
    return found !== undefined;
  }, 'a loop has it');
  const { id, loop } = found as { id: number; loop: number };
  // One that is still in its inbox would be another loop's when this one dies.
  await until(() => {
    const { open, inbox } = group.loops[loop].stats;
    return open === 1 && inbox === 0;
  }, 'the loop has taken it');
  return { raw, id, loop };
}
const brief = (handshakeTimeout: number) => ({
  listen: [
    { port: 0, name: 'tls', tls: { ...pair('localhost'), handshakeTimeout } },
    { port: 0, name: 'plain' },
  ],
});

test('a move waits for the end of a handshake, which is done once', () =>
  withGroup({}, async (group) => {
    for (const maxVersion of VERSIONS) {
      const { raw, id, loop } = await silent(group);
      const to = (loop + 1) % LOOPS;
      let isMoved = false;
      const moving = group.move(id, to).then(() => {
        isMoved = true;
      });
      await settled(group, loop);
      assert.not(isMoved);
      const far = tls.connect({ socket: raw, servername: 'localhost', ca, maxVersion });
      far.on('error', () => undefined);
      const client = LineClient.of(far);
      await once(far, 'secureConnect');
      await within(PATIENCE_MS, moving, 'the move');
      assert.is(await client.ask('0'), `0 ${to} 0`);
      await client.end();
      await until(() => group.stats().open === 0, 'it is closed');
    }
  }));

test('a move that waits for a handshake without an end fails at its deadline', () =>
  withGroup(brief(150), async (group) => {
    const { raw, id, loop } = await silent(group);
    const moving = rejectionOf(group.move(id, (loop + 1) % LOOPS));
    assert.is((await within(PATIENCE_MS, moving, 'the end of the move')).code, 'ERR_NOT_MOVABLE');
    await gone(raw);
    assert.is(group.stats().handshakeFailures.timeout, 1);
  }));

test('a reload waits for a handshake without an end, and no longer than its deadline', () =>
  withGroup(brief(150), async (group) => {
    const { raw } = await silent(group);
    const deadlineMs = 60_000;
    const report = await within(PATIENCE_MS, group.reload({ deadlineMs }), 'the reload');
    assert.is(report.moved, 0);
    await gone(raw);
    const { handshakeFailures, lost, loops } = group.stats();
    assert.equal([handshakeFailures.timeout, lost], [1, 0]);
    // It was the old loop's.
    assert.is(
      loops.reduce((sum, one) => sum + one.handshakesFailed, 0),
      0,
    );
  }));

test('a thread that dies in the middle of a handshake resets its connection', () =>
  withGroup({}, async (group) => {
    const { raw, loop } = await silent(group);
    await group.loops[loop].terminate();
    await gone(raw);
    await until(() => group.stats().lost === 1, 'it is counted');
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
  }));

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
