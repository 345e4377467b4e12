// A storm of handshakes takes its turns: so many steps in each, in the order in which they came.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BufferEvent, Ev, EventBase, type SocketStream, sys } from '../../src/index.js';
import { native } from '../../src/native.js';
import { HANDSHAKE_STEPS_MAX } from '../../src/stream/handshake_turns.js';
import { within } from '../event/support.js';
import { pair } from '../tls/pems.js';

const why = native.tlsUnavailable();
const CLIENTS = 200;
const PATIENCE_MS = 20_000;

/** What a client sends first. */
async function clientHello(): Promise<Buffer> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const far = tls.connect({ port, host: '127.0.0.1' }).on('error', () => undefined);
  const [near] = (await once(server, 'connection')) as [net.Socket];
  const [bytes] = (await once(near, 'data')) as [Buffer];
  far.destroy();
  near.destroy();
  server.close();
  return bytes;
}

test('who is connected is served between the handshakes of 200 that come at once', async () => {
  const hello = await clientHello();
  const base = new EventBase();
  const streams: SocketStream[] = [];
  const fars: number[] = [];
  const pairOf = () => {
    const [near, far] = sys.socketPair();
    fars.push(far);
    return [near, far];
  };
  const [near, client] = pairOf();
  const echo = BufferEvent.socket(base, near, {
    handlers: { read: (bev) => bev.write(bev.input.remove(bev.input.length)) },
  });
  echo.enable(Ev.READ);
  const asking: number[] = [];
  const options = { tls: pair('localhost'), handlers: { event: () => undefined } };
  for (let i = 0; i < CLIENTS; i++) {
    const [one, far] = pairOf();
    sys.write(far, hello);
    asking.push(far);
    streams.push(BufferEvent.socket(base, one, options));
  }
  // One goes away while it waits.
  const gone = CLIENTS - 3;
  streams[gone].close();
  const bytes = Buffer.alloc(16_384);
  const answered: number[] = [];
  /** Those who have been answered since it was asked last. */
  const answers = () => {
    let count = 0;
    for (const [i, far] of asking.entries()) {
      if (answered.includes(i) || sys.read(far, bytes) <= 0) continue;
      answered.push(i);
      count++;
    }
    return count;
  };
  const counts: number[] = [answers()];
  let echoes = 0;
  const watcher = base.prepare(() => {
    if (sys.read(client, bytes) > 0) echoes++;
    sys.write(client, Buffer.from('x'));
    counts.push(answers());
    if (answered.length === CLIENTS - 1) base.loopBreak();
  });
  await within(PATIENCE_MS, base.dispatch(), 'all are answered');
  watcher.free();
  assert.ok(Math.max(...counts) <= HANDSHAKE_STEPS_MAX, String(counts));
  assert.equal(
    answered,
    asking.map((_, i) => i).filter((i) => i !== gone),
  );
  // One in every turn but the first ones.
  assert.ok(echoes >= counts.length - 4, `${echoes} echoes in ${counts.length} turns`);
  for (const stream of [echo, ...streams]) stream.close();
  for (const far of fars) sys.close(far);
  base.close();
});

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
