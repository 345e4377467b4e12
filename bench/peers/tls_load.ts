// The clients of the bench `tls`, on Node's tls: one cipher suite and one group, so that every
// server does the same arithmetic. A wrong answer is an error of the bench.

import { once } from 'node:events';
import tls, { type TLSSocket } from 'node:tls';
import { answerCalls, pause } from './rpc.js';
import { authority } from './tls_options.js';

const CIPHER = 'TLS_AES_256_GCM_SHA384';
const GROUP = 'X25519';
/** Connected at a time. */
const WIDTH = 16;
/** A server that answers later hangs, and the bench fails. */
const ANSWER_MS = 20_000;
/** One write of a sink's client. */
const PIECE = Buffer.alloc(64 * 1024, 'x');

const secureContext = tls.createSecureContext({
  ca: authority(),
  ciphers: CIPHER,
  ecdhCurve: GROUP,
  minVersion: 'TLSv1.3',
});

function dial(port: number, session?: Buffer): TLSSocket {
  const options = { port, host: '127.0.0.1', servername: 'localhost', secureContext, session };
  const socket = tls.connect(options);
  socket.setNoDelay(true);
  return socket;
}
async function dialled(port: number): Promise<TLSSocket> {
  const socket = dial(port);
  await once(socket, 'secureConnect');
  return socket;
}

// ── handshakes ──

/** What is sent, and whether anything has to come back. */
interface Asking {
  port: number;
  text: string;
}

/** Connects, asks, is answered, ends. Answers what a later one resumes with. */
function ask({ port, text }: Asking, session?: Buffer): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const socket = dial(port, session);
    let ticket: Buffer | undefined;
    let [answered, reused] = [false, false];
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('a client waits in vain')));
    socket.on('session', (one) => {
      ticket ??= one;
    });
    socket.on('secureConnect', () => {
      reused = socket.isSessionReused();
      socket.write(text);
    });
    socket.on('data', () => {
      answered = true;
      socket.end();
    });
    // A server that has closed by then resets what the client ends with.
    socket.on('error', (error) => answered || reject(error));
    socket.on('close', () => {
      if (!answered) reject(new Error('a client was not answered'));
      else if (reused !== (session !== undefined))
        reject(new Error(`a session was ${session === undefined ? '' : 'not '}resumed`));
      else resolve(ticket);
    });
  });
}

/** As many as are done in `ms`; how many they were. */
async function handshakes(load: Asking & { ms: number; resumed: boolean }): Promise<number> {
  let session: Buffer | undefined;
  if (load.resumed) {
    session = await ask(load);
    if (session === undefined) throw new Error('the server gives no ticket');
  }
  const end = performance.now() + load.ms;
  let count = 0;
  const one = async () => {
    while (performance.now() < end) {
      await ask(load, session);
      count++;
    }
  };
  await Promise.all(Array.from({ length: WIDTH }, one));
  return count;
}

// ── connections that stay ──

let sockets: TLSSocket[] = [];
let messages = 0;
let going = false;

async function start({ port, count, bytes }: { port: number; count: number; bytes: number }) {
  const message = Buffer.alloc(bytes, 'x');
  messages = 0;
  going = true;
  await grow({ port, to: count });
  for (const socket of sockets) {
    let missing = bytes;
    socket.on('data', (data) => {
      missing -= data.length;
      if (missing > 0) return;
      if (missing < 0) throw new Error('a client was answered more than it has sent');
      missing = bytes;
      messages++;
      if (going) socket.write(message);
    });
    socket.write(message);
  }
}

/** Until `to` of them are connected; with `text`, each is answered once. */
async function grow({ port, to, text }: { port: number; to: number; text?: string }) {
  const one = async () => {
    const socket = await dialled(port);
    if (text === undefined) return socket;
    socket.write(text);
    await once(socket, 'data');
    return socket;
  };
  while (sockets.length < to) {
    const width = Math.min(WIDTH, to - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: width }, one))));
  }
}

async function leave(): Promise<void> {
  going = false;
  for (const socket of sockets) socket.destroy();
  sockets = [];
  await pause(10);
}

// ── transfers ──

/** Asks for, and reads, at least `bytes`: a server of HTTP sends a head besides. */
async function download({ port, text, bytes }: Asking & { bytes: number }): Promise<void> {
  const socket = await dialled(port);
  let count = 0;
  socket.on('data', (data) => {
    count += data.length;
  });
  socket.write(text);
  await once(socket, 'end');
  socket.on('error', () => undefined);
  socket.destroy();
  if (count < bytes) throw new Error(`${count} of ${bytes} bytes came`);
}

/** Sends `bytes`; done when the server has ended its side, which it does after the last. */
async function upload({ port, bytes }: { port: number; bytes: number }): Promise<void> {
  const socket = await dialled(port);
  socket.resume();
  for (let left = bytes; left > 0; left -= PIECE.length)
    if (!socket.write(left < PIECE.length ? PIECE.subarray(0, left) : PIECE))
      await once(socket, 'drain');
  const closed = once(socket, 'close');
  socket.end();
  await closed;
}

answerCalls({ handshakes, start, count: () => messages, grow, leave, download, upload });
