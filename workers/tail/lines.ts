// Cuts a stream of bytes into lines, whatever the pieces in which it comes.

/** A longer line goes out in pieces of at most this many bytes, each as a line of its own. */
export const LINE_BYTES_MAX = 16 * 1024;

const LF = 10;

/** Whole lines, each with its end. The memory is theirs alone, so it can be sent elsewhere. */
export interface Lines {
  bytes: Uint8Array;
  count: number;
}

export class LineCutter {
  #rest = Buffer.alloc(0);

  /** Bytes of the line that has no end yet. */
  get restBytes(): number {
    return this.#rest.length;
  }

  /** The lines that `bytes` complete; what follows the last of them is kept. */
  push(bytes: Buffer): Lines {
    const input = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const pieces: Buffer[] = [];
    let count = 0;
    let at = 0; // where the next line begins
    let begin = 0; // of the next piece, which is a run of lines that nothing has to be added to
    for (;;) {
      const end = input.indexOf(LF, at);
      if ((end < 0 ? input.length : end) - at > LINE_BYTES_MAX) {
        at = cutBefore(input, at + LINE_BYTES_MAX);
        pieces.push(input.subarray(begin, at), LINE_END);
        begin = at;
      } else if (end < 0) break;
      else at = end + 1;
      count++;
    }
    pieces.push(input.subarray(begin, at));
    // Copied, since both the reader's buffer and the input are used again or much larger.
    this.#rest = Buffer.from(input.subarray(at));
    return { bytes: join(pieces), count };
  }

  /** The line that has no end and will get none. */
  finish(): Lines {
    const rest = this.#rest;
    this.#rest = Buffer.alloc(0);
    return rest.length === 0
      ? { bytes: rest, count: 0 }
      : { bytes: join([rest, LINE_END]), count: 1 };
  }
}

const LINE_END = Buffer.from([LF]);

/** The last place up to `at` that is not inside a character of UTF-8. */
function cutBefore(input: Buffer, at: number): number {
  for (let back = 0; back < 4; back++) if ((input[at - back] & 0xc0) !== 0x80) return at - back;
  return at;
}

/** Buffer.concat() would take small ones from a pool, which a copy to another thread copies too. */
function join(pieces: Buffer[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
