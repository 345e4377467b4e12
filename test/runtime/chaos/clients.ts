// The clients of the chaos test, in a process of their own: each sends numbered requests, cut at
// random places, and checks every byte of the answers. One whose connection ends early begins anew.
//
// Half of them speak TLS, 1.2 or 1.3, and may do one handshake each.
//
//   node clients.js PORT TLSPORT SEED COUNT    and 'finish', 'quiet', 'go on' or 'report' by messages
//
// TLSPORT is 0 where there is no TLS.

import net from 'node:net';
import tls from 'node:tls';
import { ca } from '../../tls/pems.js';
import { type Frame, frame, HEADER, Kind, parse, Random } from './frames.js';

/** What the clients have seen; sent to the parent when it asks. */
export interface Seen {
  /** Connections that were made, or reset before they knew. */
  made: number;
  /** Ended by the server although the client was not done. */
  early: number;
  /** Reset by the client. */
  broken: number;
  /** Answered completely, to the end. */
  finished: number;
  /** Handshakes that were done. */
  secured: number;
  open: number;
  answers: number;
  bytes: number;
  rescues: number;
  /** What must not be. */
  wrong: string[];
  /** Requests without an answer. */
  waiting: number;
}

export type Told = 'finish' | 'quiet' | 'go on' | 'report' | 'closing';

const [port, tlsPort, seed, count] = process.argv.slice(2).map(Number);
/** A client that waits longer than this hangs. */
const HANG_MS = 10_000;
const WRONG_MAX = 20;

const seen: Seen = {
  made: 0,
  early: 0,
  broken: 0,
  finished: 0,
  secured: 0,
  open: 0,
  answers: 0,
  bytes: 0,
  rescues: 0,
  wrong: [],
  waiting: 0,
};
let phase: 'busy' | 'quiet' | 'finish' | 'closing' = 'busy';

function wrong(what: string): void {
  if (seen.wrong.length < WRONG_MAX) seen.wrong.push(what);
}

const VERSIONS = [undefined, undefined, 'TLSv1.2', 'TLSv1.3'] as const;

const place = { host: '127.0.0.1', allowHalfOpen: true, noDelay: true };

/** Not TLS over a socket of ours: with that reset below it, Node 20's said "malloc failure" once. */
const connect = (maxVersion: tls.SecureVersion | undefined): net.Socket =>
  maxVersion === undefined
    ? net.connect({ ...place, port })
    : tls.connect({ ...place, port: tlsPort, ca, servername: 'localhost', maxVersion });

class Client {
  readonly #random: Random;
  readonly #id: number;
  #socket!: net.Socket;
  #secure = false;
  #key = 0;
  /** Requests that were sent and not answered. */
  readonly waiting: Frame[] = [];
  #number = 0;
  /** What is still to be sent of a request, one piece after another. */
  #pieces: Buffer[] = [];
  #rest: Buffer = Buffer.alloc(0);
  #rescues = 0;
  #ending: 'no' | 'ended' | 'broken' = 'no';
  #over = true;
  #made = false;
  #connected = false;
  #duplex = false;
  progress = performance.now();

  constructor(id: number) {
    this.#id = id;
    this.#random = new Random(seed * 1_000 + id);
    this.begin();
  }

  get idle(): boolean {
    return this.#connected && this.waiting.length === 0 && this.#pieces.length === 0;
  }
  get over(): boolean {
    return this.#over;
  }
  toString(): string {
    const [first] = this.waiting;
    const awaits = first === undefined ? 'nothing' : `${first.number} of kind ${first.word}`;
    return (
      `client ${this.#id} on port ${this.#socket.localPort} (sent ${this.#number}, awaits ` +
      `${awaits}, ${this.#ending}, rescues ${this.#rescues}, rest ${this.#rest.length}` +
      `${this.#duplex ? ', duplex' : ''}${this.#secure ? ', TLS' : ''})`
    );
  }

  begin(): void {
    this.#over = this.#made = this.#connected = false;
    this.#ending = 'no';
    this.#number = this.#rescues = 0;
    this.#key = this.#random.below(2 ** 32);
    this.#duplex = this.#random.once(30);
    this.waiting.length = this.#pieces.length = 0;
    this.#rest = Buffer.alloc(0);
    this.progress = performance.now();
    const maxVersion = tlsPort === 0 ? undefined : this.#random.pick(VERSIONS);
    const socket = connect(maxVersion);
    this.#secure = maxVersion !== undefined;
    this.#socket = socket;
    let failure: NodeJS.ErrnoException | undefined;
    socket.on('error', (error: NodeJS.ErrnoException) => {
      failure = error;
      if (!/ECONNRESET|EPIPE/.test(error.code ?? '') && phase !== 'closing')
        wrong(`${this}: ${error.message}`);
    });
    socket.on('connect', () => {
      this.#made = true;
      seen.made++;
    });
    socket.on(this.#secure ? 'secureConnect' : 'connect', () => {
      if (this.#connected) wrong(`${this}: a second handshake`);
      this.#connected = true;
      if (this.#secure) seen.secured++;
      this.progress = performance.now();
      this.go();
    });
    socket.on('data', (data) => this.#came(data));
    socket.on('end', () => socket.destroy());
    socket.on('close', () => {
      if (!this.#made && failure?.code === 'ECONNRESET') seen.made++;
      this.#closed();
    });
  }

  #closed(): void {
    if (this.#over) return;
    this.#over = true;
    seen.rescues += this.#rescues;
    const done = this.#ending === 'ended' && this.waiting.length === 0;
    if (done && this.#rest.length === 0) seen.finished++;
    else if (this.#ending === 'broken') seen.broken++;
    else seen.early++;
    if (phase === 'busy') this.begin();
  }

  #came(data: Buffer): void {
    this.progress = performance.now();
    seen.bytes += data.length;
    this.#rest = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    try {
      for (let at = 0; ; ) {
        const answer = parse('answer', this.#rest, at);
        if (answer === undefined) {
          this.#rest = this.#rest.subarray(at);
          break;
        }
        at += HEADER + answer.length;
        this.#answered(answer);
      }
    } catch (error) {
      wrong(`${this}: ${(error as Error).message}`);
      this.#ending = 'broken';
      this.#socket.destroy();
      return;
    }
    this.go();
  }

  #answered(answer: Frame): void {
    const request = this.waiting.shift();
    if (request === undefined) throw new Error(`answer ${answer.number} to no request`);
    const { number, key, word, argument } = request;
    const length = word === Kind.BIG ? argument : request.length >> 1;
    if (answer.number !== number || answer.key !== key || answer.length !== length)
      throw new Error(`answer ${answer.number} of ${answer.length} in place of ${number}`);
    if (answer.word < this.#rescues) throw new Error('it was rescued less often than before');
    this.#rescues = answer.word;
    seen.answers++;
  }

  /** Sends what may be sent now. */
  go(): void {
    if (!this.#connected || this.#over || this.#ending !== 'no') return;
    if (this.#pieces.length > 0) return;
    const random = this.#random;
    if (phase === 'finish') {
      this.#end();
      return;
    }
    if (phase !== 'busy' || this.waiting.length > random.below(6)) return;
    // Some go away in the middle, some end and wait for the answers that are still to come.
    if (random.once(150)) {
      this.#ending = 'broken';
      // A TLSSocket cannot be reset; its peer sees an end without a close_notify.
      if (this.#secure) this.#socket.destroy();
      else this.#socket.resetAndDestroy();
      return;
    }
    this.#request();
    if (random.once(120)) {
      for (const piece of this.#pieces.splice(0)) this.#socket.write(piece);
      this.#end();
      return;
    }
    this.#send();
  }

  /**
   * Not in a 'data' handler of TLS: Node's end() then drops, without an error, the records that it
   * has read and not told yet, and with them answers. It does so to a server of its own too.
   */
  #end(): void {
    const socket = this.#socket;
    this.#ending = 'ended';
    if (this.#secure) setImmediate(() => socket.end());
    else socket.end();
  }

  #request(): void {
    const random = this.#random;
    const burst = 1 + random.below(3);
    const all: Buffer[] = [];
    for (let i = 0; i < burst; i++) {
      const first = this.#number === 0;
      const length = random.once(20) ? random.below(100_000) : random.below(400);
      const one = { length, number: this.#number++, key: this.#key, word: 0, argument: 0 };
      one.word = this.#kind(first);
      one.argument = one.word === Kind.BIG ? random.below(400_000) : random.below(100);
      this.waiting.push(one);
      all.push(frame('request', one));
    }
    const bytes = Buffer.concat(all);
    const cuts = random.below(4);
    let at = 0;
    for (let i = 0; i < cuts; i++) {
      const end = at + random.below(bytes.length - at);
      if (end > at) this.#pieces.push(bytes.subarray(at, end));
      at = end;
    }
    this.#pieces.push(bytes.subarray(at));
  }

  #kind(first: boolean): number {
    if (this.#duplex) return first ? Kind.DUPLEX : Kind.PLAIN;
    const random = this.#random;
    if (random.once(60)) return Kind.BIG;
    if (random.once(30)) return Kind.PAUSE;
    if (random.once(12)) return Kind.MOVE;
    return random.once(8) ? Kind.ASYNC : Kind.PLAIN;
  }

  #send(): void {
    const piece = this.#pieces.shift();
    if (piece === undefined || this.#over) return;
    this.#socket.write(piece);
    this.progress = performance.now();
    if (this.#pieces.length === 0) this.#later(() => this.go());
    else this.#later(() => this.#send());
  }
  #later(what: () => void): void {
    const key = this.#key;
    const still = () => {
      if (this.#key === key) what();
    };
    if (this.#random.once(2)) setTimeout(still, this.#random.below(25));
    else setImmediate(still);
  }
}

const clients: Client[] = [];
for (let id = 0; id < count; id++) clients.push(new Client(id));

function report(): void {
  seen.open = clients.filter((client) => !client.over).length;
  seen.waiting = clients.filter((client) => !client.over && !client.idle).length;
  const now = performance.now();
  for (const client of clients) {
    const awaits = !client.over && (!client.idle || phase === 'finish' || phase === 'closing');
    if (awaits && now - client.progress > HANG_MS) wrong(`hangs: ${client}`);
  }
  process.send?.(seen);
}

process.on('message', (told: Told) => {
  if (told !== 'report') {
    phase = told === 'go on' ? 'busy' : told;
    const now = performance.now();
    for (const client of clients) {
      client.progress = now;
      if (client.over && phase === 'busy') client.begin();
      else client.go();
    }
  }
  report();
});
process.on('disconnect', () => process.exit());
