// Which backend a base gets: libevent's rules (event.c, event_base_new_with_config), with a reason
// for every one that was passed over.

import { errnoName, MultiloopError } from '../errors.js';
import { native } from '../native.js';
import { checkListOf, checkOneOf } from '../validate.js';
import type { BackendName, BackendReport, Feature } from './ev.js';

/** Every backend there is, preferred first, with the kernels that have it. */
const ALL: readonly { name: BackendName; kernels: string }[] = [
  { name: 'evport', kernels: 'Solaris and illumos' },
  { name: 'kqueue', kernels: 'macOS and the BSDs' },
  { name: 'epoll', kernels: 'Linux' },
  { name: 'devpoll', kernels: 'Solaris and illumos' },
  { name: 'poll', kernels: 'POSIX systems' },
  { name: 'select', kernels: 'POSIX systems' },
  { name: 'io_uring', kernels: 'Linux' },
];

const FEATURES: readonly [bit: number, name: Feature][] = [
  [1, 'et'],
  [2, 'o1'],
  [4, 'fds'],
  [8, 'early-close'],
];

/** Those with a descriptor of their own, for another loop to wait for. */
const NESTABLE: ReadonlySet<BackendName> = new Set(['evport', 'kqueue', 'epoll', 'io_uring']);

export const BACKEND_NAMES: readonly BackendName[] = ALL.map((one) => one.name);
const FEATURE_NAMES: readonly Feature[] = FEATURES.map(([, name]) => name);

let reports: BackendReport[] | undefined;
/** Of an addon that was built for tests: other kernels' backends, taken when asked for by name. */
const emulated = new Set<string>();

/** Preferred first. Probed once a process thread: kernels do not change under it. */
export function backendReports(): BackendReport[] {
  reports ??= probe();
  return reports.map((report) => ({ ...report, features: [...report.features] }));
}

function probe(): BackendReport[] {
  const built = new Map(native.backends().map((row) => [row[0], row]));
  for (const row of built.values()) if (row[3]) emulated.add(row[0]);
  return ALL.map(({ name, kernels }) => {
    const row = built.get(name);
    if (row === undefined)
      return { name, available: false, reason: reasonNotBuilt(kernels), features: [] };
    if (row[2] !== 0)
      return { name, available: false, reason: reasonRefused(name, row[2]), features: [] };
    const features = FEATURES.filter(([bit]) => row[1] & bit).map(([, feature]) => feature);
    return { name, available: true, features };
  });
}

function reasonRefused(name: BackendName, status: number): string {
  const code = errnoName(status);
  const cause = name === 'io_uring' ? IO_URING_CAUSES[code] : undefined;
  return `the kernel refuses it: ${code}${cause === undefined ? '' : ` (${cause})`}`;
}

/** What each error of io_uring_setup(2) means here. */
const IO_URING_CAUSES: Record<string, string> = {
  EPERM: 'the sysctl kernel.io_uring_disabled forbids it, or a sandbox does',
  ENOSYS: 'it takes Linux 5.17 and CONFIG_IO_URING, or a sandbox hides it',
  ENOMEM: 'out of memory that may be locked; see ulimit -l',
  EMFILE: 'out of descriptors',
};

function reasonNotBuilt(kernels: string): string {
  const isThisKernels = process.platform === 'linux' && kernels === 'Linux';
  if (native.portable() && isThisKernels) return 'left out of this build (ML_PORTABLE)';
  return `for ${kernels}; this is ${process.platform}`;
}

/** The error of a base that can neither drive its thread nor nest in the one that does. */
export function driveTaken(backend: BackendName): MultiloopError {
  const second = backendReports().find(({ name, available }) => available && NESTABLE.has(name));
  const advice = second === undefined ? '' : `use ${second.name} for the second base, or `;
  return new MultiloopError(
    'ERR_DRIVE_TAKEN',
    `Another base drives this thread, and ${backend} has no descriptor to nest by; ` +
      `${advice}close the first`,
  );
}

export interface BackendChoice {
  backend?: BackendName;
  avoid?: BackendName[];
  require?: Feature[];
  ignoreEnv?: boolean;
}

/** The first backend that nothing speaks against, or ERR_BACKEND_UNAVAILABLE with every reason. */
export function chooseBackend(choice: BackendChoice): BackendReport {
  const { backend, avoid, require } = choice;
  if (backend !== undefined) checkOneOf('options.backend', backend, BACKEND_NAMES);
  if (avoid !== undefined) checkListOf('options.avoid', avoid, BACKEND_NAMES);
  if (require !== undefined) checkListOf('options.require', require, FEATURE_NAMES);
  const refusals: string[] = [];
  for (const report of backendReports()) {
    if (choice.backend !== undefined && report.name !== choice.backend) continue;
    const reason = refusal(report, choice);
    if (reason === undefined) return report;
    refusals.push(`${report.name} (${reason})`);
  }
  const { ignoreEnv } = choice;
  const usable = backendReports().filter((report) => refusal(report, { ignoreEnv }) === undefined);
  throw new MultiloopError(
    'ERR_BACKEND_UNAVAILABLE',
    `No usable backend: ${refusals.join('; ')}. ` +
      `Available here: ${usable.map((report) => report.name).join(', ')}`,
  );
}

function refusal(report: BackendReport, choice: BackendChoice): string | undefined {
  if (!report.available) return report.reason;
  if (choice.backend === undefined && emulated.has(report.name)) return 'emulated: by name only';
  if (choice.avoid?.includes(report.name)) return 'in options.avoid';
  const missing = choice.require?.filter((feature) => !report.features.includes(feature)) ?? [];
  if (missing.length > 0) return `lacks ${missing.join(', ')}`;
  const variable = `EVENT_NO${report.name.toUpperCase()}`;
  if (choice.ignoreEnv !== true && process.env[variable] !== undefined) return `${variable} is set`;
  return undefined;
}
