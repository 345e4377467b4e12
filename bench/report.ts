// What every bench prints: paired runs of ours and a peer, their medians, and with --json one
// object as the last line.

import { cpus, release } from 'node:os';

export interface Case {
  name: string;
  ours: number;
  peer: number;
  peerName: string;
  unit: string;
  /** ours / peer, the median over the pairs; less is better. */
  ratio: number;
  runs: { ours: number[]; peer: number[] };
}

export interface BenchOptions {
  quick: boolean;
}

/** A bench: measures its cases one after another. */
export type Bench = (options: BenchOptions) => AsyncIterable<Case>;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Runs ours and the peer in turn, so that a machine that drifts drifts for both. */
export async function paired(
  name: string,
  unit: string,
  pairs: number,
  ours: () => Promise<number>,
  peer: { name: string; run: () => Promise<number> },
): Promise<Case> {
  const runs = { ours: [] as number[], peer: [] as number[] };
  for (let i = 0; i < pairs; i++) {
    // Who goes first alternates as well.
    if (i % 2 === 0) runs.ours.push(await ours());
    runs.peer.push(await peer.run());
    if (i % 2 === 1) runs.ours.push(await ours());
  }
  const ratio = median(runs.ours.map((value, i) => value / runs.peer[i]));
  const [a, b] = [median(runs.ours), median(runs.peer)];
  return { name, ours: a, peer: b, peerName: peer.name, unit, ratio, runs };
}

export function machine(): string {
  const all = cpus();
  return `${all.length} × ${all[0]?.model ?? 'unknown'}, ${process.platform} ${release()}, Node ${process.version}`;
}

const round = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value.toPrecision(3);

export function line(one: Case): string {
  const ours = `${round(one.ours)} ${one.unit}`.padStart(18);
  const peer = `${round(one.peer)} (${one.peerName})`.padStart(24);
  return `${one.name.padEnd(36)}${ours}${peer}   ratio ${one.ratio.toFixed(2)}`;
}
