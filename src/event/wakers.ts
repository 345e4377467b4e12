// Which waker a base or a loop gets, with a reason for every one that cannot be had.

import { constants } from 'node:os';
import { errnoName, MultiloopError } from '../errors.js';
import { native } from '../native.js';
import { checkOneOf } from '../validate.js';
import { type BackendName, WAKER_NAMES, type WakerName } from './ev.js';

const { ENOSYS } = constants.errno;

export interface WakerReport {
  name: WakerName;
  available: boolean;
  /** The only backend that it is for. */
  backend?: BackendName;
  /** Why it is not available. */
  reason?: string;
}

let reports: WakerReport[] | undefined;

/** Preferred first. Probed once a process thread. */
export function wakerReports(): readonly WakerReport[] {
  reports ??= WAKER_NAMES.map((name) => {
    const [, status, only] = native.wakers().find((row) => row[0] === name) ?? [name, -ENOSYS, ''];
    const backend = only === '' ? {} : { backend: only as BackendName };
    return status === 0
      ? { name, available: true, ...backend }
      : { name, available: false, ...backend, reason: reasonFor(name, status) };
  });
  return reports;
}

function reasonFor(name: WakerName, status: number): string {
  if (name === 'evfilt_user' && process.platform === 'linux')
    return `for kqueue on macOS and the BSDs; this is ${process.platform}`;
  if (status !== -ENOSYS) return `the kernel refuses it: ${errnoName(status)}`;
  if (native.portable()) return 'left out of this build (ML_PORTABLE)';
  return `not on this kernel; this is ${process.platform}`;
}

/** The one that is asked for, else the first that there is; or ERR_WAKER_UNAVAILABLE. */
export function chooseWaker(waker: WakerName | undefined, backend: BackendName): WakerName {
  if (waker !== undefined) checkOneOf('options.waker', waker, WAKER_NAMES);
  const asked = wakerReports().filter(({ name }) => (waker ?? name) === name);
  const fits = (report: WakerReport) => refusalOf(report, backend) === undefined;
  const chosen = asked.find(fits);
  if (chosen !== undefined) return chosen.name;
  const refusals = asked.map((report) => `${report.name} (${refusalOf(report, backend)})`);
  const here = wakerReports()
    .filter(fits)
    .map(({ name }) => name);
  throw new MultiloopError(
    'ERR_WAKER_UNAVAILABLE',
    `No usable waker: ${refusals.join('; ')}. Available for ${backend}: ${here.join(', ')}`,
  );
}

function refusalOf(report: WakerReport, backend: BackendName): string | undefined {
  if (!report.available) return report.reason;
  if (report.backend === undefined || report.backend === backend) return undefined;
  return `for ${report.backend} only; this base has ${backend}`;
}
