// The TLS of one listener while it has the same context: its plan, which the loops get, the answers
// to names, and what is watched meanwhile.

import { MultiloopError } from '../errors.js';
import { native } from '../native.js';
import {
  planListener,
  type TlsListenerPlan,
  type TlsPlan,
  type TlsServerOptions,
  watchedFiles,
} from '../stream/tls_options.js';
import type { ToCoordinator, ToLoop } from './control.js';
import { contentsOf, FileWatch } from './file_watch.js';
import { NameAnswers } from './server_names.js';

/** How often it is asked whether the file of the ticket keys is sound. */
const TICKETS_MS = 1_000;

export interface ListenerTlsHost {
  /** The files of its certificates have changed: another one is to take its place. */
  renew(options: TlsServerOptions): Promise<void>;
  failed(error: Error): void;
}

export class ListenerTls {
  readonly #plan: TlsListenerPlan;
  readonly #names: NameAnswers;
  readonly #watch: FileWatch | undefined;
  readonly #tickets: NodeJS.Timeout | undefined;

  /** `name`: what messages call the options. Of `before` it keeps the ticket keys. */
  constructor(
    name: string,
    options: TlsServerOptions,
    host: ListenerTlsHost,
    before?: ListenerTls,
  ) {
    const files = watchedFiles(name, options);
    const seen = contentsOf(files);
    this.#plan = planListener(name, options, before?.plan.context);
    const failed = (error: Error) => host.failed(error);
    this.#names = new NameAnswers(this.#plan, failed);
    if (files.length > 0)
      this.#watch = new FileWatch(files, seen, { changed: () => host.renew(options), failed });
    if (options.ticketFile !== undefined)
      this.#tickets = setInterval(() => this.#checkTickets(failed), TICKETS_MS).unref();
  }

  get plan(): TlsPlan {
    return this.#plan.plan;
  }
  answer(message: ToCoordinator & { type: 'askName' }): Promise<ToLoop> {
    return this.#names.answer(message);
  }
  #checkTickets(failed: (error: Error) => void): void {
    const problem = native.tlsContextProblem(this.plan.context);
    if (problem === undefined) return;
    const text = `Session tickets go on with the keys that they have: ${problem}`;
    failed(new MultiloopError('ERR_TLS_CONFIG', text));
  }

  /** It is not replaced any more. */
  settle(): void {
    this.#watch?.close();
    clearInterval(this.#tickets);
  }
  /** Another one is in its place. Loops that do not know of that yet still open sessions by it. */
  retire(): void {
    this.settle();
    this.#names.close();
  }
  /** Nobody opens sessions by it any more. */
  free(): void {
    this.retire();
    native.tlsContextFree(this.plan.context);
  }
}
