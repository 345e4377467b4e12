// The addresses of a datagram socket's peers, as users write them and as the kernel does. Nearly
// every message is from or to somebody that was met before, so both forms are kept.

import { constants } from 'node:os';
import { native } from '../native.js';
import { checkInteger, invalidType, invalidValue } from '../validate.js';
import { type Address, checkUnixPath, toAddress } from './address.js';

/** As the native side numbers them; 1 is a unix socket. */
export type Family = 1 | 4 | 6;

/** Peers that are kept each way; beyond that all are forgotten and met anew. */
const PEERS_MAX = 4_096;
/** sizeof(struct sockaddr_storage). */
export const NAME_BYTES = 128;
/** sizeof(struct sockaddr_in): its first eight bytes are family, port and address. */
const IPV4_NAME_BYTES = 16;

const { EAFNOSUPPORT, ENAMETOOLONG } = constants.errno;

/** A peer without a name: a unix socket that is bound to none. */
const unnamed: Address = Object.freeze({ path: '' });

export class AddressBook {
  readonly family: Family;
  // From the kernel: IPv4 by port and address in one number, others by their bytes as text.
  readonly #fromV4 = new Map<number, Address>();
  readonly #fromOthers = new Map<string, Address>();
  // To the kernel: by the objects that were given out, which cannot change, and by text.
  readonly #ofObjects = new WeakMap<Address, Uint8Array>();
  readonly #ofTexts = new Map<string, Uint8Array>();

  constructor(family: Family) {
    this.family = family;
  }

  /** The kernel's form of an address; throws for what is none, or of another family. */
  pack(name: string, address: Address, minPort = 1): Uint8Array {
    const known = this.#ofObjects.get(address);
    if (known !== undefined) return known;
    if (typeof address !== 'object' || address === null)
      throw invalidType(name, 'of type object', address);
    const { host, port, path } = address as { host?: unknown; port?: unknown; path?: unknown };
    if (path !== undefined) {
      if (typeof path !== 'string') throw invalidType(`${name}.path`, 'of type string', path);
      return this.#packText(name, path, 0, address);
    }
    if (typeof host !== 'string') throw invalidType(`${name}.host`, 'of type string', host);
    return this.#packText(name, host, checkInteger(`${name}.port`, port, minPort, 65_535), address);
  }

  /**
   * The address at `at` in `names`, of which `words` is another view: frozen, and the same object
   * for the same peer while it is remembered.
   */
  at(names: Buffer, words: Int32Array, at: number, length: number): Address {
    if (this.family === 4 && length === IPV4_NAME_BYTES) {
      const [first, address] = [words[at >> 2], words[(at >> 2) + 1]];
      // One half of the first word is the family, always the same, and the other one the port.
      const key = (address >>> 0) * 0x1_0000 + ((first ^ (first >>> 16)) & 0xffff);
      return this.#fromV4.get(key) ?? this.#meet(this.#fromV4, key, names, at, length);
    }
    if (length <= 2) return unnamed;
    const key = names.toString('latin1', at, at + length);
    return this.#fromOthers.get(key) ?? this.#meet(this.#fromOthers, key, names, at, length);
  }

  #meet<Key>(all: Map<Key, Address>, key: Key, names: Buffer, at: number, length: number): Address {
    const address = Object.freeze(toAddress(native.datagramName(names, at, length)) ?? unnamed);
    if (all.size >= PEERS_MAX) all.clear();
    all.set(key, address);
    if (address !== unnamed)
      this.#ofObjects.set(address, new Uint8Array(names.subarray(at, at + length)));
    return address;
  }

  #packText(name: string, text: string, port: number, given: Address): Uint8Array {
    const isPath = 'path' in given && given.path !== undefined;
    const key = isPath ? text : `${port} ${text}`;
    const known = this.#ofTexts.get(key);
    if (known !== undefined) return known;
    if (isPath !== (this.family === 1)) throw this.#otherFamily(name, given);
    if (isPath) checkUnixPath(`${name}.path`, text);
    const bytes = new Uint8Array(NAME_BYTES);
    const length = native.datagramPack(this.family, text, port, bytes);
    if (length === -EAFNOSUPPORT) throw this.#otherFamily(name, given);
    if (length === -ENAMETOOLONG)
      throw invalidValue(`${name}.path`, 'is too long for a unix socket', text);
    if (length < 0 && isPath) throw invalidValue(`${name}.path`, 'is no path of a socket', text);
    if (length < 0 || (!isPath && text.includes('\0')))
      throw invalidValue(`${name}.host`, 'must be an IP address: look names up first', text);
    const packed = bytes.slice(0, length);
    if (this.#ofTexts.size >= PEERS_MAX) this.#ofTexts.clear();
    this.#ofTexts.set(key, packed);
    return packed;
  }

  #otherFamily(name: string, given: Address): Error {
    const own = this.family === 1 ? 'a unix socket' : `an IPv${this.family} socket`;
    return invalidValue(name, `is not an address for ${own}`, given);
  }
}
