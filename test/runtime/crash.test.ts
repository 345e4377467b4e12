// A loop's thread that dies in the middle of traffic: the process, the other loops and their
// connections do not notice, the dead one's are reset, nothing leaks, and another takes its place.

import type net from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type LoopGroup, type LoopHandle, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { ask, connect, descriptors, gone, until, workerFile } from './clients.js';

async function crashing(loops: number, restart = { max: 1_000, backoff: 1 }): Promise<LoopGroup> {
  const options = { worker: workerFile('crash'), loops, restart };
  return serve({ ...options, resourceLimits: { maxOldGenerationSizeMb: 32 } });
}

const serving = (group: LoopGroup) => group.loops.every((loop) => loop.state === 'serving');

/** Resolves with the error of the next loop that goes down. */
function nextDown(group: LoopGroup): Promise<{ loop: LoopHandle; error: Error }> {
  return new Promise((resolve) => {
    const listen = (loop: LoopHandle, what: string, error: Error) => {
      if (what !== 'down') return;
      group.off('loop', listen);
      resolve({ loop, error });
    };
    group.on('loop', listen);
  });
}

function balanced(group: LoopGroup): void {
  const { accepted, open, served, refused, lost } = group.stats();
  assert.is(accepted, open + served + refused + lost);
}

/** Sends without pause; stop() resolves when everything sent has come back. */
function traffic(socket: net.Socket): { stop(): Promise<void> } {
  let going = true;
  let outstanding = 0;
  let quiet: () => void = () => undefined;
  const send = () => {
    if (going) {
      outstanding++;
      socket.write('x');
    } else if (outstanding === 0) {
      socket.off('data', received);
      quiet();
    }
  };
  const received = (data: Buffer) => {
    outstanding -= data.length;
    send();
  };
  socket.on('data', received);
  send();
  return {
    stop: () =>
      new Promise((resolve) => {
        quiet = resolve;
        going = false;
        send();
      }),
  };
}

const ways: [way: string, says: RegExp][] = [
  ['throw', /thrown in a timer/],
  ['tick', /thrown in a tick/],
  ['null', /null/],
  ['reject', /rejected/],
  ['exit', /exited with code: 3/],
  ['memory', /memory limit/],
];

for (const [way, says] of ways) {
  test(`a thread that ends by ${way} costs its own connections and nothing else`, async () => {
    const group = await crashing(2);
    const [victim, witness] = [await connect(group), await connect(group)];
    assert.is(await ask(victim, 'hi'), 'hi');
    assert.is(await ask(witness, 'hi'), 'hi');
    const before = descriptors().length;
    const flow = traffic(witness);
    const down = nextDown(group);
    victim.write(way);
    await gone(victim);
    const { loop, error } = await down;
    assert.match(error.message, says);
    await flow.stop();
    await until(() => serving(group), 'the loop is replaced');
    assert.is(loop.generation, 1);
    assert.is(await ask(witness, 'still here'), 'still here');
    // Closing comes before counting, so a client may know it first.
    await until(() => group.stats().lost === 1, 'the victim is counted');
    assert.is(group.stats().open, 1);
    balanced(group);
    // Both loops serve new connections.
    for (let i = 0; i < 2; i++) {
      const socket = await connect(group);
      assert.is(await ask(socket, 'new'), 'new');
      socket.destroy();
    }
    await until(() => group.stats().open === 1, 'new ones closed');
    await until(() => descriptors().length <= before, 'descriptors back');
    witness.destroy();
    await group.close();
    assert.is(native.ledgerCount(), 0);
  });
}

for (const way of ['spin', 'spin here']) {
  test(`a thread that spins (${way}) is terminated`, async () => {
    const group = await crashing(2);
    const [victim, witness] = [await connect(group), await connect(group)];
    await ask(victim, 'hi');
    await ask(witness, 'hi');
    const down = nextDown(group);
    victim.write(way);
    await until(
      () => group.loops.some((one) => one.stats.bytesRead > 'hi'.length),
      'the loop has read it',
    );
    // Readable while that loop is blocked.
    assert.is(group.stats().open, 2);
    const spinning = group.loops.find((one) => one.stats.bytesRead > 2) as LoopHandle;
    await spinning.terminate();
    await gone(victim);
    await down;
    assert.is(await ask(witness, 'still here'), 'still here');
    await until(() => serving(group), 'the loop is replaced');
    witness.destroy();
    await group.close();
    assert.is(native.ledgerCount(), 0);
  });
}

test('threads terminated at random moments under load leak nothing and hang nobody', async () => {
  const group = await crashing(2);
  const rounds = 10;
  let before = 0;
  let terminated = 0;
  let answered = 0;
  const client = async () => {
    while (terminated < rounds) {
      let socket: net.Socket;
      try {
        socket = await connect(group);
      } catch {
        continue; // reset while it waited to be accepted
      }
      while (terminated < rounds && (await ask(socket, 'message')) !== 'closed') answered++;
      await gone(socket.end());
    }
  };
  const clients = Promise.all(Array.from({ length: 20 }, client));
  for (let at = 0; terminated < rounds; terminated++) {
    const loop = group.loops[terminated % 2];
    await until(() => loop.state === 'serving', 'a loop to terminate');
    // After the first rounds everything that is opened once is open.
    if (terminated === 2) before = descriptors().length;
    at = (at * 7 + 3) % 23;
    const goal = answered + at;
    await until(() => answered >= goal, 'traffic');
    await loop.terminate();
  }
  await clients;
  assert.ok(answered > 50, `${answered} answered`);
  await until(() => serving(group), 'both loops are back');
  await until(() => group.stats().open === 0, 'nothing is open');
  balanced(group);
  // 20 clients and their connections are gone since `before`.
  await until(() => descriptors().length <= before, 'descriptors back');
  await group.close();
  assert.is(native.ledgerCount(), 0);
});

test('connections that wait for a dead loop go to another', async () => {
  const group = await crashing(2);
  const [victim, witness] = [await connect(group), await connect(group)];
  await ask(victim, 'hi');
  await ask(witness, 'hi');
  const spinner = group.loops.find((one) => one.stats.open === 1);
  victim.write('spin here');
  await until(() => group.loops.some((one) => one.stats.bytesRead > 2), 'it spins');
  const blocked = group.loops.find((one) => one.stats.bytesRead > 2) as LoopHandle;
  assert.ok(spinner);
  // Half of these wait in the inbox of the loop that never looks.
  const waiting = await Promise.all(Array.from({ length: 10 }, () => connect(group)));
  await until(() => blocked.stats.inbox === 5, 'five wait');
  await blocked.terminate();
  const answers = await Promise.all(waiting.map((socket) => ask(socket, 'served')));
  assert.equal(
    answers,
    waiting.map(() => 'served'),
  );
  await until(() => group.stats().lost === 1, 'the victim is counted');
  balanced(group);
  for (const socket of [...waiting, witness]) socket.destroy();
  await group.close();
  assert.is(native.ledgerCount(), 0);
});

test('a loop that keeps dying ends the group with ERR_LOOP_CRASHING', async () => {
  const before = descriptors().length;
  const group = await crashing(2, { max: 2, backoff: 1 });
  const errors: Error[] = [];
  group.on('error', (error: Error) => errors.push(error));
  const closed = group.closed.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error,
  );
  while (errors.length === 0) {
    try {
      const socket = await connect(group);
      socket.write('exit');
      await gone(socket);
    } catch {
      break; // the listening socket is closed
    }
  }
  const error = await closed;
  assert.is(error?.code, 'ERR_LOOP_CRASHING');
  assert.match(error?.message as string, /died 3 times within 60000 ms.*exited with code: 3/);
  assert.is(errors[0], error);
  assert.is(native.ledgerCount(), 0);
  await until(() => descriptors().length <= before, 'descriptors back');
});

test.run();
