// What a connection brings along when it moves to another loop: everything that its stream knows
// and the kernel does not. It travels as bytes inside the message that hands the descriptor over.

import { deserialize, serialize } from 'node:v8';
import type { Settings } from '../stream/bev_options.js';
import type { RateLimits } from '../stream/rate_limit.js';

export interface Baggage {
  /** The worker's: what `pack` answered, or the connection's state. */
  packed: unknown;
  /** Whether `pack` made it. */
  byPack: boolean;
  input: Uint8Array | undefined;
  output: Uint8Array | undefined;
  enabled: number;
  flags: number;
  settings: Settings;
  limit: RateLimits | undefined;
  read: number;
  written: number;
  paused: boolean;
  needDrain: boolean;
  /** Up to where it has got what it has subscribed to; undefined: to nothing. */
  published: number | undefined;
}

/** What went along with a connection to another loop. */
export interface Moved {
  /** Bytes in all: its unread input, its unsent output, its state. 0: it was there already. */
  bytes: number;
  /** Of these, a compression context that it shares with its peer: see WebSocket.contextBytes. */
  contextBytes: number;
}
/** It is where it was to go. */
export const NOT_MOVED: Moved = { bytes: 0, contextBytes: 0 };

/** A move that was asked for and waits until the connection may go. */
export interface Departure {
  loop: number;
  /** To the loop of the next generation that has this one's number. */
  evicted: boolean;
  done: Promise<Moved>;
  resolve(moved: Moved): void;
  reject(error: Error): void;
}

/** Throws V8's DataCloneError for what cannot be cloned. */
export function encodeBaggage(baggage: Baggage): Buffer {
  return serialize(baggage);
}

export function decodeBaggage(bytes: Buffer): Baggage {
  return deserialize(bytes) as Baggage;
}
