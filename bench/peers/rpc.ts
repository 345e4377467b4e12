// What a program of this folder does for the bench that started it: it answers calls over the
// channel that Node puts between a process and its child, and ends when the bench does. Imports
// nothing of multiloop, so that any version of Node can run the peers.

export interface Call {
  id: number;
  name: string;
  argument: unknown;
}
export interface Answer {
  id: number;
  value?: unknown;
  error?: string;
}

// biome-ignore lint/suspicious/noExplicitAny: what a call carries is between bench and program
export type Calls = Record<string, (argument: any) => unknown>;

/** `ended` runs before the process ends, if the bench ends first. */
export function answerCalls(calls: Calls, ended?: () => Promise<void>): void {
  process.on('message', async ({ id, name, argument }: Call) => {
    const answer: Answer = { id };
    try {
      answer.value = await calls[name](argument);
    } catch (error) {
      answer.error = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
    process.send?.(answer);
  });
  process.on('disconnect', async () => {
    await ended?.();
    process.exit(0);
  });
}

/** The clock that all processes of a machine share, in milliseconds. */
export const millis = (): number => Number(process.hrtime.bigint()) / 1e6;

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Of a sorted or unsorted list; 0.5 is the median. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('there is nothing to take a quantile of');
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** Numbers below 1, the same in every run: a congruential generator. */
export function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
