// What the readers of a connection's first bytes have in common. They are pure functions of the
// bytes from the connection's beginning on, on any thread, and throw for no bytes at all.
//
// A reader never changes its mind as bytes are added: what it has read stays as it is, what is of
// another protocol stays of another, and a prefix that needs n bytes says nothing new before n.

/** So many bytes from the beginning on are needed to say more; or even more than that. */
export interface More {
  done: false;
  need: number;
}

/** What was read; what more it takes; or undefined: the bytes are not of this protocol. */
export type Head<Facts> = ({ done: true } & Facts) | More | undefined;

export const more = (need: number): More => ({ done: false, need });

/** Bytes as they are, one a character: what protocols that are written in ASCII are read from. */
export function latin1(bytes: Uint8Array, from = 0, to = bytes.length): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', from, to);
}
