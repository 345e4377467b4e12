// The CPU that a process has used, and all that it has started: a cluster is many processes.

import { readdirSync, readFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100; // sysconf(_SC_CLK_TCK) on every Linux of today

/** Seconds, user and system, of those processes and threads that live. */
export function cpuOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const own = nanoseconds(pid, threads) / 1e9 || inTicks(pid);
  return childrenOf(pid, threads).reduce((sum, child) => sum + cpuOf(child), own);
}

/** To the nanosecond, where the kernel has CONFIG_SCHED_INFO; else 0. */
function nanoseconds(pid: number, threads: string[]): number {
  try {
    return threads.reduce((sum, thread) => {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8');
      return sum + Number(stat.split(' ')[0]);
    }, 0);
  } catch {
    return 0;
  }
}

function inTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(') ') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** proc_pid_task(5): `children` of each thread, which is there with CONFIG_PROC_CHILDREN. */
function childrenOf(pid: number, threads: string[]): number[] {
  return threads.flatMap((thread) => {
    const list = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim();
    return list === '' ? [] : list.split(' ').map(Number);
  });
}
