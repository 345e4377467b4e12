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
}

/** A connection whose loop died brings only what the ledger has kept of it. */
export interface Rescued {
  checkpoint: Uint8Array | undefined;
}

/** Throws V8's DataCloneError for what cannot be cloned. */
export function encodeBaggage(baggage: Baggage | Rescued): Buffer {
  return serialize(baggage);
}

export function decodeBaggage(bytes: Buffer): Baggage | Rescued {
  return deserialize(bytes) as Baggage | Rescued;
}
