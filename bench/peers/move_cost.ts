// What a move costs in a process that does nothing else, and a message there and back between two
// threads: prints the microseconds of time and of CPU, `time` and `cpu`.
//
//   PROGRAM move|message COUNT
//
// A connection is moved from one of two loops to the other and back, as soon as it has arrived.

import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { millis } from './rpc.js';

/** V8 has compiled everything by then. */
const WARMUP = 3_000;

function print(count: number, ms: number, cpu: NodeJS.CpuUsage): void {
  console.log(`time ${((ms * 1_000) / count).toFixed(3)}`);
  console.log(`cpu ${((cpu.user + cpu.system) / count).toFixed(3)}`);
}

async function move(count: number): Promise<void> {
  const { serve } = await import('../../src/index.js');
  const worker = new URL('./move_worker.js', import.meta.url);
  const group = await serve({ worker, loops: 2 });
  const [address] = group.addresses;
  const socket = net.connect('port' in address ? address.port : 0, '127.0.0.1');
  for (const moves of [WARMUP, count]) {
    const cpu = process.cpuUsage();
    const began = millis();
    socket.write(`${moves}`);
    const answer = await new Promise((resolve) => socket.once('data', resolve));
    if (String(answer) !== `${moves} moves`) throw new Error(`the worker said ${answer}`);
    if (moves === count) print(count, millis() - began, process.cpuUsage(cpu));
  }
  socket.destroy();
  await group.close();
}

function message(count: number): void {
  const thread = new Worker(fileURLToPath(import.meta.url), { stdin: false });
  let rounds = -WARMUP;
  let began = 0;
  let cpu = process.cpuUsage();
  thread.on('message', () => {
    if (rounds++ === 0) {
      began = millis();
      cpu = process.cpuUsage();
    }
    if (rounds <= count) {
      thread.postMessage(rounds);
      return;
    }
    print(count, millis() - began, process.cpuUsage(cpu));
    process.exit(0);
  });
  thread.postMessage(0);
}

if (!isMainThread) {
  parentPort?.on('message', (value) => parentPort?.postMessage(value));
} else {
  const [mode, count] = process.argv.slice(2);
  if (mode === 'move') await move(Number(count));
  else message(Number(count));
}
