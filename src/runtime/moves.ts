// What the coordinator has asked of loops and waits for, by request number: moves of connections,
// and another TLS.

import { MultiloopError } from '../errors.js';
import { native } from '../native.js';
import type { TlsPlan } from '../stream/tls_options.js';
import type { Moved } from './baggage.js';
import { type ToCoordinator, type ToLoop, unflatten } from './control.js';
import type { Directory } from './directory.js';
import type { LoopSlot } from './loop_slot.js';
import type { Transfer } from './rebalance.js';

type Answer = ToCoordinator & { type: 'moved' };

interface Request {
  slot: LoopSlot;
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export class Moves {
  readonly #directory: Directory;
  readonly #from: number;
  readonly #requests = new Map<number, Request>();
  #next = 1;

  /** `from` is the coordinator's inbox. */
  constructor(directory: Directory, from: number) {
    this.#directory = directory;
    this.#from = from;
  }

  /** Has the loop that serves `connection` give it to `loop`. */
  async move(slots: readonly LoopSlot[], connection: number, loop: number): Promise<Moved> {
    const owner = native.ledgerOwner(connection);
    const slot = slots.find((one) => owner !== 0 && one.inbox === owner);
    if (slot === undefined)
      throw new MultiloopError('ERR_NOT_MOVABLE', `No loop serves a connection ${connection}`);
    const ask = (request: number) => ({ type: 'move', request, connection, loop }) as const;
    const { moved } = await this.#ask(slot, ask);
    return moved as Moved;
  }

  /**
   * Has a loop give up to `count` connections that are idle, and have not come by a move within
   * `restMs`, to another; answers how many went.
   */
  async shed({ from, to, count }: Transfer, restMs = 0): Promise<number> {
    const ask = (request: number) =>
      ({ type: 'shed', request, count, loop: to.id, restMs }) as const;
    const answer = await this.#ask(from, ask);
    return answer.count ?? 0;
  }

  /**
   * Has a loop use another TLS for a listener's connections, by `send`. Resolves when it does, or
   * has ended.
   */
  async secure(
    slot: LoopSlot,
    [listener, plan]: readonly [number, TlsPlan],
    send: (message: ToLoop) => void,
  ): Promise<void> {
    const request = this.#next++;
    const done = new Promise<Answer>((resolve, reject) => {
      this.#requests.set(request, { slot, resolve, reject });
    });
    send({ type: 'tls', request, listener, plan });
    await done.catch(() => undefined);
  }

  answered(answer: Answer): void {
    const { request, error } = answer;
    const waiting = this.#requests.get(request);
    this.#requests.delete(request);
    if (error === undefined) waiting?.resolve(answer);
    else waiting?.reject(unflatten(error));
  }

  /** The loop is gone, and with it what it was asked for. */
  gone(slot: LoopSlot): void {
    for (const [number, request] of [...this.#requests]) {
      if (request.slot !== slot) continue;
      this.#requests.delete(number);
      request.reject(
        new MultiloopError('ERR_LOOP_GONE', `Loop ${slot.id} died before it had moved it`),
      );
    }
  }

  #ask(
    slot: LoopSlot,
    message: (request: number) => Parameters<Directory['tell']>[2],
  ): Promise<Answer> {
    const request = this.#next++;
    return new Promise<Answer>((resolve, reject) => {
      const sent = this.#directory.tell(this.#from, slot.id, message(request));
      if (sent === 'ok') {
        this.#requests.set(request, { slot, resolve, reject });
        return;
      }
      const code = sent === 'full' ? 'ERR_INBOX_FULL' : 'ERR_LOOP_GONE';
      const why = sent === 'full' ? 'its inbox is full' : 'it has no thread now';
      reject(new MultiloopError(code, `Loop ${slot.id} could not be asked: ${why}`));
    });
  }
}
