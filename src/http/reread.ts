// When a head that was not whole is looked at again, by a server and by a client.

/** A head that came in pieces is read again with every piece while it is short, */
const REREAD_MAX = 1_024;
/** and then when it has a new line or is so many times as long. */
const REREAD_GROWTH = 1.25;

/**
 * Whether a head of which `seen` bytes were read in vain is to be read again without a new line in
 * what has come since: doing so for every byte of it would take its length squared.
 */
export function isGrown(length: number, seen: number): boolean {
  return length < REREAD_MAX || length >= seen * REREAD_GROWTH;
}
