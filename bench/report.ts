// What every bench prints: paired runs of ours and a peer, their medians, and with --json one
// object as the last line.

import { cpus, release } from 'node:os';

export interface Case {
  name: string;
  ours: number;
  /** Null, as peerName and ratio are, where there is no peer. */
  peer: number | null;
  peerName: string | null;
  unit: string;
  /** ours / peer, the median over the pairs; less is better. */
  ratio: number | null;
  runs: { ours: number[]; peer: number[] };
}

export interface BenchOptions {
  quick: boolean;
  /** A program that takes the place of the bench's peer: same arguments, same output. */
  peerCmd?: string;
  /** The accept modes that are measured; all that serve() knows by default. */
  accept?: string[];
}

/** A bench: measures its cases one after another. */
export type Bench = (options: BenchOptions) => AsyncIterable<Case>;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs the programs in turn, so that a machine that drifts drifts for all, and answers what each
 * of them said. Who goes first alternates as well.
 */
export async function inTurn<Name extends string, Value>(
  rounds: number,
  programs: Partial<Record<Name, () => Promise<Value>>>,
): Promise<Record<Name, Value[]>> {
  const all = Object.entries(programs) as [Name, () => Promise<Value>][];
  const runs = {} as Record<Name, Value[]>;
  for (const [name] of all) runs[name] = [];
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < all.length; i++) {
      const [name, run] = all[(round + i) % all.length];
      runs[name].push(await run());
    }
  }
  return runs;
}

/** A case of runs that were taken in turn. */
export function caseOf(
  name: string,
  unit: string,
  ours: number[],
  peer?: { name: string; runs: number[] },
): Case {
  const runs = { ours, peer: peer?.runs ?? [] };
  if (peer === undefined)
    return { name, ours: median(ours), peer: null, peerName: null, unit, ratio: null, runs };
  // Of counts that are both none, neither is less.
  const ratio = median(ours.map((value, i) => (value === runs.peer[i] ? 1 : value / runs.peer[i])));
  const [a, b] = [median(ours), median(runs.peer)];
  return { name, ours: a, peer: b, peerName: peer.name, unit, ratio, runs };
}

/** Ours and a peer that each answer one number. */
export async function paired(
  name: string,
  unit: string,
  pairs: number,
  ours: () => Promise<number>,
  peer?: { name: string; run: () => Promise<number> },
): Promise<Case> {
  const programs = peer === undefined ? { ours } : { ours, peer: peer.run };
  const runs = await inTurn<'ours' | 'peer', number>(pairs, programs);
  return caseOf(name, unit, runs.ours, peer && { name: peer.name, runs: runs.peer });
}

export function machine(): string {
  const all = cpus();
  const system = `${process.platform} ${release()}, Node ${process.version}`;
  return `${all.length} × ${all[0]?.model ?? 'unknown'}, ${system}`;
}

const round = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value.toPrecision(3);

export function line(one: Case): string {
  const ours = `${round(one.ours)} ${one.unit}`.padStart(18);
  const name = one.name.padEnd(52);
  if (one.peer === null || one.ratio === null) return `${name}${ours}${'no peer'.padStart(22)}`;
  const peer = `${round(one.peer)} (${one.peerName})`.padStart(22);
  return `${name}${ours}${peer}   ratio ${one.ratio.toFixed(2)}`;
}
