// The event bits and loop flags, with libevent's values.

/** Joined with `|` into a mask. */
export const Ev = {
  TIMEOUT: 0x01,
  READ: 0x02,
  WRITE: 0x04,
  SIGNAL: 0x08,
  PERSIST: 0x10,
  ET: 0x20,
  FINALIZE: 0x40,
  CLOSED: 0x80,
} as const;
export type EvMask = number;

export const LoopFlag = { ONCE: 1, NONBLOCK: 2, NO_EXIT_ON_EMPTY: 4 } as const;

/**
 * Why a loop ended. stopped: exit or break was asked; passed: ONCE or NONBLOCK did its pass;
 * empty: nothing was left to wait for.
 */
export type LoopResult = 'stopped' | 'passed' | 'empty';

export type BackendName =
  | 'io_uring'
  | 'epoll'
  | 'kqueue'
  | 'evport'
  | 'devpoll'
  | 'poll'
  | 'select';
export type Feature = 'et' | 'o1' | 'fds' | 'early-close';
/** evfilt_user is kqueue's own and wakes a base on kqueue only. */
export type WakerName = 'eventfd' | 'evfilt_user' | 'pipe';
/** Preferred first. Which of them this machine has is wakers.ts's to say. */
export const WAKER_NAMES: readonly WakerName[] = ['eventfd', 'evfilt_user', 'pipe'];

export interface BackendReport {
  name: BackendName;
  available: boolean;
  /** Why it is not available. */
  reason?: string;
  features: Feature[];
}
