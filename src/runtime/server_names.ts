// Server names that a listener's TLS has no certificate for, from the loop where a handshake waits
// to the listener's SNICallback on the coordinator's thread, and back. The context of an answer is
// learned by the listener's own (native/core/tls_names.h), where all loops find it from then on.
//
//   handshake ─► NameQuestions ─'askName'─► NameAnswers ─► SNICallback, once for a name
//   goes on   ◄─ NameQuestions ◄─'named'── NameAnswers ◄─ a context, kept until all have used it

import { MultiloopError } from '../errors.js';
import { native } from '../native.js';
import type { TlsListenerPlan } from '../stream/tls_options.js';
import type { ToCoordinator, ToLoop } from './control.js';

/** Names of one listener that are being asked for at a time; the handshakes of others fail. */
const ASKED_MAX = 1_024;
/** Answers whose handles are kept for the loops that wait; one whose handle is gone asks again. */
const HANDLES_MAX = 256;
/** Failed answers are told once in so many milliseconds, and those between are counted. */
const REPORT_MS = 1_000;

/** In `named`: the handshake is refused. */
const REFUSED = -1;

/** A loop's side. */
export class NameQuestions {
  readonly #tell: (message: ToCoordinator) => void;
  readonly #waiting = new Map<string, Promise<number>>();
  readonly #requests = new Map<number, (context: number) => void>();
  #last = 0;

  constructor(tell: (message: ToCoordinator) => void) {
    this.#tell = tell;
  }

  /** The context for a name; 0: the listener's own. Rejects when it is refused. */
  ask(listener: number, servername: string): Promise<number> {
    const key = `${listener} ${servername}`;
    const waiting = this.#waiting.get(key) ?? this.#send(listener, servername);
    this.#waiting.set(key, waiting);
    const done = () => this.#waiting.delete(key);
    waiting.then(done, done);
    return waiting;
  }
  #send(listener: number, servername: string): Promise<number> {
    const request = ++this.#last;
    return new Promise<number>((resolve, reject) => {
      this.#requests.set(request, (context) => {
        if (context === REFUSED)
          reject(new MultiloopError('ERR_TLS_HANDSHAKE', 'SNICallback has no answer'));
        else resolve(context);
      });
      this.#tell({ type: 'askName', request, listener, servername });
    });
  }
  answered({ request, context }: ToLoop & { type: 'named' }): void {
    this.#requests.get(request)?.(context);
    this.#requests.delete(request);
  }
}

/** The coordinator's side, for one context of a listener. */
export class NameAnswers {
  readonly #plan: TlsListenerPlan;
  readonly #failed: (error: Error) => void;
  readonly #asked = new Map<string, Promise<number>>();
  readonly #handles = new Map<string, { handle: number; timer: NodeJS.Timeout }>();
  #closed = false;
  #toldAt = Number.NEGATIVE_INFINITY;
  #untold = 0;

  constructor(plan: TlsListenerPlan, failed: (error: Error) => void) {
    this.#plan = plan;
    this.#failed = failed;
  }

  /** Never rejects. */
  async answer({ request, servername }: ToCoordinator & { type: 'askName' }): Promise<ToLoop> {
    try {
      return { type: 'named', request, context: await this.#contextFor(servername) };
    } catch {
      return { type: 'named', request, context: REFUSED };
    }
  }

  #contextFor(servername: string): Promise<number> {
    const { ask } = this.#plan;
    if (ask === undefined) return Promise.resolve(0);
    const known = this.#handles.get(servername);
    if (known !== undefined) return Promise.resolve(known.handle);
    const waiting = this.#asked.get(servername);
    if (waiting !== undefined) return waiting;
    if (this.#asked.size >= ASKED_MAX) {
      const error = new Error(`more than ${ASKED_MAX} names are being asked for`);
      this.#report(servername, error);
      return Promise.reject(error);
    }
    const asked = this.#ask(servername, ask(servername));
    this.#asked.set(servername, asked);
    return asked;
  }

  async #ask(servername: string, made: Promise<number>): Promise<number> {
    const { timeoutMs } = this.#plan.plan;
    const kept = made.then((handle) => this.#keep(servername, handle));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      // Those who wait have given up as well.
      const fail = () => reject(new Error(`it was not settled within ${timeoutMs} ms`));
      timer = setTimeout(fail, timeoutMs).unref();
    });
    try {
      return await Promise.race([kept, late]);
    } catch (error) {
      kept.catch(() => undefined);
      this.#report(servername, error);
      throw error;
    } finally {
      clearTimeout(timer);
      this.#asked.delete(servername);
    }
  }

  /** What comes too late is of use for the next one. */
  #keep(servername: string, handle: number): number {
    if (handle === 0) return 0;
    if (this.#closed) {
      native.tlsContextFree(handle);
      return handle;
    }
    native.tlsContextLearn(this.#plan.plan.context, servername, handle);
    this.#drop(servername);
    // Who waits for it has its deadline.
    const timer = setTimeout(() => this.#drop(servername), this.#plan.plan.timeoutMs).unref();
    this.#handles.set(servername, { handle, timer });
    for (const oldest of this.#handles.keys()) {
      if (this.#handles.size <= HANDLES_MAX) break;
      this.#drop(oldest);
    }
    return handle;
  }
  #drop(servername: string): void {
    const kept = this.#handles.get(servername);
    if (kept === undefined) return;
    this.#handles.delete(servername);
    clearTimeout(kept.timer);
    native.tlsContextFree(kept.handle);
  }

  #report(servername: string, cause: unknown): void {
    const now = performance.now();
    if (this.#closed || now - this.#toldAt < REPORT_MS) {
      this.#untold++;
      return;
    }
    const said = cause instanceof Error ? cause.message : String(cause);
    const others = this.#untold === 0 ? '' : ` (and ${this.#untold} more since the last of these)`;
    const message = `There is no certificate for '${servername}': ${said}${others}`;
    this.#toldAt = now;
    this.#untold = 0;
    this.#failed(new MultiloopError('ERR_TLS_HANDSHAKE', message, { cause }));
  }

  /** Another context takes its place. */
  close(): void {
    this.#closed = true;
    for (const servername of [...this.#handles.keys()]) this.#drop(servername);
  }
}
