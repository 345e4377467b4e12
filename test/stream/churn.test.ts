// Thousands of connections that connect, talk and break at random: no descriptor is lost, nothing
// is thrown, and whoever was told of an end was told once.

import { createServer } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type BevEvent, BufferEvent, Ev, EventBase, Listener } from '../../src/index.js';
import { native } from '../../src/native.js';
import { backendsHere } from '../event/conformance.js';
import { assertNoneLeft, openDescriptors, within } from '../event/support.js';

const CONNECTIONS = 5_000;
const AT_ONCE = 200;
const PATIENCE_MS = 60_000;
// With the first of its streams libuv opens a descriptor in reserve.
createServer().listen(0).close();

/** A generator that begins with the same number each time: xorshift32. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

class Churn {
  readonly base: EventBase;
  readonly below: (below: number) => number;
  readonly listener: Listener;
  readonly open = new Set<BufferEvent>();
  readonly told = new Map<string, number>();
  begun = 0;
  clients = 0;
  problems: string[] = [];

  constructor(base: EventBase, seed: number) {
    this.base = base;
    this.below = random(seed);
    this.listener = new Listener(base, { port: 0 }, (fd) => {
      const bev = BufferEvent.socket(base, fd, this.handlers('server'));
      this.open.add(bev.enable(Ev.READ));
    });
    for (let i = 0; i < AT_ONCE; i++) this.connect();
  }

  connect(): void {
    if (this.begun === CONNECTIONS) return;
    this.begun++;
    this.clients++;
    const { port } = this.listener.address as { port: number };
    const to = { host: '127.0.0.1', port };
    const bev = BufferEvent.connect(this.base, to, this.handlers('client'));
    this.open.add(bev.enable(Ev.READ));
    bev.write('x'.repeat(1 + this.below(2_000)));
    if (this.below(20) === 0) this.finish(bev, 'client');
  }

  handlers(side: 'client' | 'server') {
    let over = false;
    return {
      handlers: {
        read: (bev: BufferEvent) => {
          if (over) this.problems.push(`${side}: read after the end`);
          bev.input.drain(this.below(bev.inputLength + 1));
          this.act(bev, side);
        },
        write: (bev: BufferEvent) => {
          if (this.below(10) === 0) this.act(bev, side);
        },
        event: (bev: BufferEvent, event: BevEvent) => {
          const what = Object.keys(event).join(' ');
          this.told.set(what, (this.told.get(what) ?? 0) + 1);
          if (event.connected) return this.act(bev, side);
          if (over) this.problems.push(`${side}: ${what} after the end`);
          // An end of one direction: half of them go on for a while.
          if (event.eof && this.below(2) === 0) {
            if (!bev.ended) bev.end('bye');
            if (side === 'client' || this.below(2) === 0) return this.finish(bev, side);
            return undefined;
          }
          over = true;
          return this.finish(bev, side);
        },
      },
    };
  }

  /** Something that a program may do at any moment. */
  act(bev: BufferEvent, side: 'client' | 'server'): void {
    const choice = this.below(12);
    if (choice < 5) {
      const length = choice === 0 ? 20_000 : 1 + this.below(500);
      if (!bev.ended) bev.write(Buffer.alloc(length));
    } else if (choice === 5) bev.trigger(Ev.READ | Ev.WRITE);
    else if (choice === 6) bev.end();
    else if (choice === 7) bev.setTimeouts(1 + this.below(5), 1 + this.below(5));
    else this.finish(bev, side, choice);
  }

  finish(bev: BufferEvent, side: 'client' | 'server', choice = this.below(12)): void {
    if (!this.open.delete(bev)) return;
    if (choice % 3 === 0) bev.destroy();
    else bev.close();
    if (side !== 'client') return;
    this.clients--;
    this.connect();
    if (this.clients > 0) return;
    this.listener.close();
    // The servers' sides whose peers are gone hear of it; the others are ours to end.
    for (const one of this.open) one.setTimeouts(50);
  }
}

for (const backend of backendsHere) {
  test(`${backend}: ${CONNECTIONS} connections`, async () => {
    const before = openDescriptors();
    const base = new EventBase({ backend, drive: 'base', debug: true });
    const churn = new Churn(base, 0x2545f491);
    const result = await within(PATIENCE_MS, base.dispatch());
    assert.is(result, 'empty');
    assert.equal(churn.problems.slice(0, 5), []);
    assert.is(churn.begun, CONNECTIONS);
    for (const bev of churn.open) bev.close();
    base.close();
    // A base that is closed in its own turn goes when that turn is over.
    await turn();
    assertNoneLeft(before);
    assert.is(native.ledgerCount(), 0);
    for (const what of ['connected', 'eof direction'])
      assert.ok((churn.told.get(what) ?? 0) > 100, `${what}: ${[...churn.told]}`);
  });
}

test.run();
