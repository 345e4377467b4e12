// The connections of a group, from the ledger and the shared memory of its loops: nobody is asked,
// so it also tells of loops that are blocked.

import { native } from '../native.js';
import { type Address, toAddress } from '../stream/address.js';

export interface ConnectionInfo {
  id: number;
  /**
   * The loop that serves it or that it is under way to; -1: the coordinator has it, because no loop
   * serves now or because it is being looked at.
   */
  loop: number;
  /** Missing for a unix socket's peer. */
  remote?: Address;
  /** The name of its listener, or what that listens on. */
  listener: string;
  /** Since it was accepted, by whichever loop it is served now. */
  ageMs: number;
  /** In all its life, moves and rescues included. */
  bytesRead: number;
  bytesWritten: number;
  /** Not at a boundary: see Connection.busy. What has yet to be opened is busy, too. */
  busy: boolean;
}

// What ledgerList answers for each.
const COLUMNS = 7;

/**
 * `owners`: loops by inbox. `listeners`: names by number; what the coordinator has for the
 * listeners of other groups is left out.
 */
export function listConnections(
  owners: ReadonlyMap<number, number>,
  listeners: ReadonlyMap<number, string>,
): ConnectionInfo[] {
  const rows = native.ledgerList(Float64Array.from(owners.keys()));
  const list: ConnectionInfo[] = [];
  for (let at = 0; at < rows.length; at += COLUMNS) {
    const [id, owner, number, age, bytesRead, bytesWritten, busy] = rows.subarray(at, at + COLUMNS);
    const listener = listeners.get(number);
    const loop = owners.get(owner);
    if (listener === undefined || loop === undefined) continue;
    const remote = toAddress(native.ledgerPeer(id));
    list.push({
      id,
      loop,
      ...(remote === undefined ? {} : { remote }),
      listener,
      ageMs: Math.max(0, age / 1000),
      bytesRead,
      bytesWritten,
      busy: busy !== 0,
    });
  }
  return list.sort((a, b) => a.id - b.id);
}
