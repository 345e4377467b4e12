// Which waker a base or a loop gets, with a reason for every one that cannot be had.

import { constants } from 'node:os';
import { errnoName, MultiloopError } from '../errors.js';
import { native } from '../native.js';
import { checkOneOf } from '../validate.js';
import { WAKER_NAMES, type WakerName } from './ev.js';

const { ENOSYS } = constants.errno;

export interface WakerReport {
  name: WakerName;
  available: boolean;
  /** Why it is not available. */
  reason?: string;
}

let reports: WakerReport[] | undefined;

/** Preferred first. Probed once a process thread. */
export function wakerReports(): readonly WakerReport[] {
  reports ??= WAKER_NAMES.map((name) => {
    const status = native.wakers().find((row) => row[0] === name)?.[1] ?? -ENOSYS;
    return status === 0
      ? { name, available: true }
      : { name, available: false, reason: reasonFor(status) };
  });
  return reports;
}

function reasonFor(status: number): string {
  if (status !== -ENOSYS) return `the kernel refuses it: ${errnoName(status)}`;
  if (native.portable()) return 'left out of this build (ML_PORTABLE)';
  return `not on this kernel; this is ${process.platform}`;
}

/** The one that is asked for, else the first that there is; or ERR_WAKER_UNAVAILABLE. */
export function chooseWaker(waker?: WakerName): WakerName {
  if (waker !== undefined) checkOneOf('options.waker', waker, WAKER_NAMES);
  const all = wakerReports();
  const fits = all.find(({ name, available }) => available && (waker ?? name) === name);
  if (fits !== undefined) return fits.name;
  const refused = all.filter(({ name, available }) => !available && (waker ?? name) === name);
  const here = all.filter(({ available }) => available).map(({ name }) => name);
  throw new MultiloopError(
    'ERR_WAKER_UNAVAILABLE',
    `No usable waker: ${refused.map(({ name, reason }) => `${name} (${reason})`).join('; ')}. ` +
      `Available here: ${here.join(', ')}`,
  );
}
