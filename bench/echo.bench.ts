// Echo: CPU of the server per message, one loop, beside Node's `net` in a process of its own.
// Client and server are processes of their own, so that the client's work is not counted.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BenchOptions, type Case, paired } from './report.js';

const TICKS_PER_SECOND = 100; // sysconf(_SC_CLK_TCK) on every Linux of today
const server = fileURLToPath(new URL('./peers/echo_server.js', import.meta.url));

interface Load {
  connections: number;
  bytes: number;
  ms: number;
}

/** Seconds of CPU that a process has used, user and system. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** A server's command line. It prints its port and ends with SIGTERM. */
type Command = [command: string, ...args: string[]];

async function start([command, ...args]: Command): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  return { child, port: Number(line.toString()) };
}

/** Microseconds of the server's CPU for each message that came back. */
async function measure(command: Command, load: Load): Promise<number> {
  const { child, port } = await start(command);
  let messages = 0;
  let going = true;
  const message = Buffer.alloc(load.bytes, 'x');
  const sockets = await Promise.all(
    Array.from({ length: load.connections }, async () => {
      const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
      await once(socket, 'connect');
      let missing = load.bytes;
      socket.on('data', (data) => {
        missing -= data.length;
        if (missing > 0) return;
        missing = load.bytes;
        messages++;
        if (going) socket.write(message);
      });
      return socket;
    }),
  );
  for (const socket of sockets) socket.write(message);
  // What is compiled in the first moments is not what a server costs.
  await new Promise((resolve) => setTimeout(resolve, load.ms / 4));
  const [cpu, seen] = [cpuOf(child.pid as number), messages];
  await new Promise((resolve) => setTimeout(resolve, load.ms));
  const used = cpuOf(child.pid as number) - cpu;
  const count = messages - seen;
  going = false;
  for (const socket of sockets) socket.destroy();
  child.kill('SIGTERM');
  await once(child, 'exit');
  return (used / count) * 1e6;
}

export default async function* echo({ quick, peerCmd }: BenchOptions): AsyncIterable<Case> {
  const ours: Command = [process.execPath, server, 'multiloop'];
  const peer: Command = peerCmd === undefined ? [process.execPath, server, 'net'] : [peerCmd];
  const peerName = peerCmd === undefined ? 'node net' : basename(peerCmd);
  const ms = quick ? 1_000 : 3_000;
  const pairs = quick ? 2 : 7;
  for (const connections of [1, 50, 500]) {
    for (const bytes of [64, 16_384]) {
      if (quick && (connections === 500 || (connections === 1 && bytes !== 64))) continue;
      const load = { connections, bytes, ms };
      yield await paired(
        `${connections} connections × ${bytes} B`,
        'µs CPU/msg',
        pairs,
        () => measure(ours, load),
        { name: peerName, run: () => measure(peer, load) },
      );
    }
  }
}
