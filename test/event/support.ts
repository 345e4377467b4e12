// What the tests of the event layer share besides the matrix: errors and their codes, patience,
// descriptors counted. Every worker loads it, so it stays small.

import { readdirSync, readlinkSync } from 'node:fs';

/** How long anything may take before a test gives up on it. Nothing waits for it to pass. */
export const PATIENCE_MS = 20_000;

/** What `body` throws. */
export function thrownBy(body: () => unknown): NodeJS.ErrnoException {
  try {
    body();
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error('nothing was thrown');
}

export function codeOf(body: () => unknown): string | undefined {
  return thrownBy(body).code;
}

/** What `promise` rejects with. */
export async function rejectionOf(promise: Promise<unknown>): Promise<NodeJS.ErrnoException> {
  const rejected = await promise.then(
    () => undefined,
    (error) => ({ error }),
  );
  if (rejected !== undefined) return rejected.error;
  throw new Error('nothing was rejected');
}

/** The promise's outcome, or a failure that names what is still waiting. */
export async function within<T>(ms: number, promise: T | Promise<T>, what = 'it'): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not end within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** `body` and then `end`, whatever becomes of it. What fails first is what the test fails with. */
export async function ended(
  body: () => Promise<void> | void,
  end: () => Promise<void> | void,
): Promise<void> {
  let failure: unknown;
  for (const [part, name] of [
    [body, ''],
    [end, '\nand then, at the end: '],
  ] as const) {
    try {
      await part();
    } catch (error) {
      if (failure instanceof Error) failure.message += `${name}${error}`;
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
}

/** Runs `body`, which is given what nobody catches meanwhile; without this it ends the process. */
export async function gatheringUncaught(body: (caught: unknown[]) => unknown): Promise<void> {
  const caught: unknown[] = [];
  const gather = (error: unknown) => caught.push(error);
  process.on('uncaughtException', gather);
  try {
    await body(caught);
  } finally {
    process.off('uncaughtException', gather);
  }
}

/** The descriptors of this process that are open, with what each one is. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      return []; // the one that has read the folder
    }
  });
}

export function assertNoneLeft(before: readonly string[], now = openDescriptors()): void {
  if (now.length === before.length) return;
  const added = now.filter((one) => !before.includes(one));
  const gone = before.filter((one) => !now.includes(one));
  throw new Error(`${before.length} descriptors became ${now.length}: new ${added}; gone ${gone}`);
}

/** Keeps this thread busy. */
export function spin(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}
