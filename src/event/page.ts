// The page that a base shares with TypeScript: native/core/base.h, struct Page, in index form.
// test/event/page.test.ts compares the two.

const RING_RECORDS = 4_096;
const MESSAGES_PER_TURN = 64;
/** Doubles in a message's record. */
export const MESSAGE_NUMBERS = 4;

const WORDS = 16; // of 32 bits
const NUMBERS = 4; // doubles
const RING_BYTES = RING_RECORDS * 8;

/** Index of each 32-bit word. */
export const Word = {
  ACTIVE: 0,
  ACTIVE_MAX: 1,
  ADDED: 2,
  ADDED_MAX: 3,
  NO_EXIT: 4,
  NONBLOCK: 5,
  WATCHING: 6,
  REASON: 7,
  READY: 8,
  MESSAGES: 9,
  ERROR: 10,
  VIRTUAL: 11,
  VIRTUAL_MAX: 12,
  TIME_CACHED: 13,
  UNSETTLED: 14,
  /** {event, what} records from here on. */
  RING: WORDS + NUMBERS * 2,
} as const;

/** Index of each double, in microseconds; the messages are {kind, from, id, fd} records. */
export const Num = {
  NOW: WORDS / 2,
  IDLE: WORDS / 2 + 1,
  TURNS: WORDS / 2 + 2,
  TIMEOUT: WORDS / 2 + 3,
  INBOX: WORDS / 2 + NUMBERS + RING_BYTES / 8,
} as const;

export const PAGE_BYTES =
  WORDS * 4 + NUMBERS * 8 + RING_BYTES + MESSAGES_PER_TURN * MESSAGE_NUMBERS * 8;

/** Why the dispatcher is called. */
export const Reason = { PASS: 0, EMPTY: 1, ERROR: 2, PREPARE: 3 } as const;

/** Bits of Word.WATCHING. */
export const Watching = { PREPARE: 1, CHECK: 2 } as const;

/** In a record's `what`, the bits above the mask: how often a signal has come. */
export const CALLS_SHIFT = 8;

/** What basePoll found. */
export const Found = { WORK: 1, EXTERNAL: 2, ERROR: 4 } as const;

/** What a message is: native/core/inbox.h, MessageKind. */
export const MessageKind = {
  HANDOFF: 1,
  RETURNED: 2,
  POST: 3,
  RELEASED: 4,
  MOVE: 5,
  RESCUED: 6,
  NEWS: 7,
} as const;
