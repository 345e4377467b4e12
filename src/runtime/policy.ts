// Policies: how the coordinator picks a loop for a new connection. Each is asked once for every
// connection and answers the loops to try, best first; the next is tried when an inbox is full.
//
// A loop that cannot serve is not among the candidates, and one that is blocked only when all are.
// Load is counted when a connection is assigned, not when the loop gets to it: what is under way
// to a loop is load too, or a burst would all go to the one that was emptiest before it.

import { createHash } from 'node:crypto';
import { MultiloopError } from '../errors.js';
import { native } from '../native.js';
import { checkOneOf, invalidType } from '../validate.js';
import type { LoopHandle, LoopSlot } from './loop_slot.js';
import type { PeekContext, Peeked } from './peek.js';

export type PolicyName = 'round-robin' | 'least-connections' | 'two-index' | 'least-lag' | 'sticky';
export const POLICY_NAMES: readonly PolicyName[] = [
  'round-robin',
  'least-connections',
  'two-index',
  'least-lag',
  'sticky',
];

/**
 * What a policy of the user's own may look at. With the option `peek` there is what the first bytes
 * say too, but for a connection that is given to another loop because its own has died.
 */
export interface Incoming extends PeekContext, Partial<Peeked> {
  /** The name of the server that a TLS client asks for, in small letters. */
  sni?: string;
  /** The protocols that a TLS client offers, preferred first. */
  alpn?: string[];
}

/**
 * Picks the loop for a connection: one of `loops`, which can all serve, or its id; or refuses it.
 * Called by the coordinator between accepting and handing out, and everybody waits for it: a call
 * of 100 ms or more is an 'error' of the group, once. When it throws or answers anything else, that
 * is an 'error' too and round-robin picks instead. It is asked for connections whose loop has died
 * as well, and cannot refuse those.
 */
export type Distribute = (
  incoming: Incoming,
  loops: readonly LoopHandle[],
) => LoopHandle | number | 'refuse';

export interface Policy {
  /**
   * Whom it may do without for the moment: loops that are late, or those in a long turn too, which
   * would be a reason more to be uneven. The others have their reasons for a loop and take another
   * only when that one is blocked.
   */
  readonly avoids?: 'late' | 'late or long';
  /** `candidates` is not empty. Answers undefined to refuse the connection. */
  pick(
    id: number,
    candidates: readonly LoopSlot[],
    peeked?: Peeked,
  ): Iterable<LoopSlot> | undefined;
}

/** What the group does for a policy of the user's own. */
export interface PolicyHost {
  context(id: number): PeekContext;
  failed(error: Error): void;
}

export function checkPolicy(policy: unknown): PolicyName | Distribute {
  if (typeof policy === 'function') return policy as Distribute;
  if (typeof policy === 'string') return checkOneOf('options.policy', policy, POLICY_NAMES);
  throw invalidType('options.policy', 'of type string or function', policy);
}

export function makePolicy(policy: PolicyName | Distribute, host: PolicyHost): Policy {
  if (typeof policy === 'function') return new UserPolicy(policy, host);
  switch (policy) {
    case 'least-connections':
      return new LeastLoad((slot) => slot.load);
    // A message waits for the turn that runs and for those who are before it. Between turns of
    // less than a millisecond there is no difference that a client would see: there load decides.
    case 'least-lag':
      return new LeastLoad((slot) => Math.floor(slot.lag) * 1e6 + slot.load);
    case 'two-index':
      return new TwoIndex();
    case 'sticky':
      return new Sticky();
    default:
      return new RoundRobin();
  }
}

/** In turn from one on. An array: a generator would make more garbage for each connection. */
function from(slots: readonly LoopSlot[], first: number): readonly LoopSlot[] {
  if (first === 0) return slots;
  return slots.map((_, i) => slots[(first + i) % slots.length]);
}

class RoundRobin implements Policy {
  readonly avoids = 'late';
  // The number of the loop whose turn it is: one that is left out for a while keeps its place.
  #next = 0;
  pick(_id: number, candidates: readonly LoopSlot[]): Iterable<LoopSlot> {
    let first = candidates.findIndex((slot) => slot.id >= this.#next);
    if (first === -1) first = 0;
    this.#next = candidates[first].id + 1;
    return from(candidates, first);
  }
}

/** The loop with the least of something; among equals they take turns. */
class LeastLoad implements Policy {
  readonly avoids = 'late or long';
  readonly #of: (slot: LoopSlot) => number;
  #turn = 0;
  constructor(of: (slot: LoopSlot) => number) {
    this.#of = of;
  }
  pick(_id: number, candidates: readonly LoopSlot[]): Iterable<LoopSlot> {
    this.#turn++;
    const inTurn = [...from(candidates, this.#turn % candidates.length)];
    const load = new Map(inTurn.map((slot) => [slot, this.#of(slot)]));
    return inTurn.sort((a, b) => (load.get(a) as number) - (load.get(b) as number));
  }
}

/**
 * HAProxy's: one index runs up and one down, and they never stand at the same loop. The lighter of
 * their two gets the connection and the index at the other moves on; of two that are alike the
 * first gets it and moves on itself, being the heavier then. Short connections are dealt out in
 * turn, long ones by their number, and a loop that is idle is never missed for long.
 */
class TwoIndex implements Policy {
  readonly avoids = 'late or long';
  #up = 0;
  #down = 0;
  pick(_id: number, candidates: readonly LoopSlot[]): Iterable<LoopSlot> {
    const count = candidates.length;
    const up = this.#up % count;
    let down = count - 1 - (this.#down % count);
    if (up === down && count > 1) down = count - 1 - (++this.#down % count);
    const difference = candidates[up].load - candidates[down].load;
    if (difference < 0) this.#down++;
    else this.#up++;
    return from(candidates, difference <= 0 ? up : down);
  }
}

/**
 * The same loop for the same peer's address while that loop lives; when one goes, only its peers
 * move (rendezvous hashing). A unix socket's peers have no address and take turns. Behind a proxy
 * whose header is peeked at, the address is that of the proxy's peer.
 */
class Sticky implements Policy {
  readonly #otherwise = new RoundRobin();
  pick(id: number, candidates: readonly LoopSlot[], peeked?: Peeked): Iterable<LoopSlot> {
    const source = peeked?.proxy?.source;
    const proxied = source !== undefined && 'host' in source ? source.host : undefined;
    const host = proxied ?? native.ledgerPeer(id)?.host;
    if (host === undefined) return this.#otherwise.pick(id, candidates);
    const weight = new Map(candidates.map((slot) => [slot, hash(`${slot.id} ${host}`)]));
    return [...candidates].sort((a, b) => (weight.get(b) as number) - (weight.get(a) as number));
  }
}

function hash(text: string): number {
  return createHash('md5').update(text).digest().readUInt32LE(0);
}

class UserPolicy implements Policy {
  readonly #distribute: Distribute;
  readonly #host: PolicyHost;
  readonly #otherwise = new RoundRobin();
  #isSlow = false;
  constructor(distribute: Distribute, host: PolicyHost) {
    this.#distribute = distribute;
    this.#host = host;
  }

  pick(
    id: number,
    candidates: readonly LoopSlot[],
    peeked?: Peeked,
  ): Iterable<LoopSlot> | undefined {
    try {
      const began = performance.now();
      const answer = this.#distribute(incoming(this.#host.context(id), peeked), candidates);
      this.#took(performance.now() - began);
      if (answer === 'refuse') return undefined;
      const at = candidates.findIndex((slot) => slot === answer || slot.id === answer);
      if (at >= 0) return from(candidates, at);
      throw new MultiloopError(
        'ERR_POLICY',
        `The policy answered ${describe(answer)}; it must be one of the loops it was given, the ` +
          "id of one, or 'refuse'. Round-robin picked instead",
      );
    } catch (error) {
      this.#host.failed(error instanceof Error ? error : new Error(`thrown: ${String(error)}`));
      return this.#otherwise.pick(id, candidates);
    }
  }

  #took(ms: number): void {
    if (ms < SLOW_MS || this.#isSlow) return;
    this.#isSlow = true;
    this.#host.failed(
      new MultiloopError(
        'ERR_POLICY',
        `The policy took ${Math.round(ms)} ms for one connection, and every other one waits ` +
          'meanwhile; it has to answer from what it knows. This is said once',
      ),
    );
  }
}

/** A call of a policy is slow from so many milliseconds on. */
const SLOW_MS = 100;
function incoming(context: PeekContext, peeked: Peeked | undefined): Incoming {
  if (peeked === undefined) return context;
  const { tls } = peeked;
  return { ...context, ...peeked, ...(tls && { sni: tls.sni, alpn: tls.alpn }) };
}

function describe(answer: unknown): string {
  if (typeof (answer as Promise<unknown>)?.then === 'function') return 'a promise';
  return typeof answer === 'object' && answer !== null ? 'another object' : String(answer);
}
