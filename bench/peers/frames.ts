// The protocol of the benches `move` and `reload`: frames of eight bytes, a number of the client's
// and four bytes that the server fills with who it is. Half a frame is a message that the server
// is in the middle of. Imports nothing of multiloop, so that the peers can use it.

import type { Socket } from 'node:net';

export const FRAME = 8;
const WHO = 4;

export function request(number: number): Buffer {
  const frame = Buffer.alloc(FRAME);
  frame.writeUInt32LE(number);
  return frame;
}

export interface Reply {
  number: number;
  who: number;
}

/** Takes chunks and gives whole frames; keeps what is left of the last one. */
export class Frames {
  rest: Buffer | undefined = undefined;

  /** Undefined: there is none yet. */
  take(chunk: Uint8Array): Buffer | undefined {
    const bytes =
      this.rest === undefined
        ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
        : Buffer.concat([this.rest, chunk]);
    const whole = bytes.length - (bytes.length % FRAME);
    this.rest = whole === bytes.length ? undefined : Buffer.from(bytes.subarray(whole));
    return whole === 0 ? undefined : bytes.subarray(0, whole);
  }
}

export function* replies(frames: Buffer): Generator<Reply> {
  for (let at = 0; at < frames.length; at += FRAME)
    yield { number: frames.readUInt32LE(at), who: frames.readUInt32LE(at + WHO) };
}

/** In place: what a server answers. */
export function stamp(frames: Buffer, who: number): Buffer {
  for (let at = WHO; at < frames.length; at += FRAME) frames.writeUInt32LE(who, at);
  return frames;
}

/** How Node's own servers serve a connection. */
export function serveFrames(socket: Socket, who: number): void {
  const frames = new Frames();
  socket.on('data', (chunk) => {
    const whole = frames.take(chunk);
    if (whole !== undefined) socket.write(stamp(whole, who));
  });
  socket.on('error', () => socket.destroy());
}
