// `multiloop doctor`: what this machine offers to multiloop, and why not more. It says what it can
// also where the addon does not load, since that is when somebody needs a doctor.

import { readFileSync } from 'node:fs';
import { availableParallelism, release, type } from 'node:os';
import type { BackendReport } from '../event/ev.js';
import type { WakerReport } from '../event/wakers.js';
import type { Parsed } from './args.js';
import type { DoctorFlags } from './commands.js';
import { describe } from './failure.js';
import { complain, print, styled } from './terminal.js';

interface Report {
  version: string;
  node: string;
  libuv: string;
  kernel: string;
  arch: string;
  /** The file that was loaded, or null. */
  addon: string | null;
  /** Whether it was built with ML_PORTABLE: without what only this kernel has. */
  portable: boolean;
  /** Why the addon was not loaded. */
  error?: string;
  /** The backend that a loop gets if nobody chooses. */
  backend: string | null;
  backends: BackendReport[];
  wakers: readonly WakerReport[];
  limits: {
    cores: number;
    /** Null where the system does not tell, or where there is no limit. */
    openFilesSoft: number | null;
    openFilesHard: number | null;
    somaxconn: number | null;
  };
}

/** False when multiloop cannot run here. */
export async function doctorCommand(
  { flags }: Parsed<DoctorFlags>,
  version: string,
): Promise<boolean> {
  const report: Report = {
    version,
    node: process.version,
    libuv: process.versions.uv,
    kernel: `${type()} ${release()}`,
    arch: process.arch,
    addon: null,
    portable: false,
    backend: null,
    backends: [],
    wakers: [],
    limits: { cores: availableParallelism(), ...openFiles(), somaxconn: somaxconn() },
  };
  try {
    Object.assign(report, await fromAddon());
  } catch (error) {
    report.error = describe(error);
  }
  print(flags.json?.value === true ? JSON.stringify(report) : table(report));
  if (report.error !== undefined) complain(report.error);
  return report.error === undefined;
}

async function fromAddon(): Promise<Partial<Report>> {
  const { addonPath, native } = await import('../native.js');
  const { backendReports, chooseBackend } = await import('../event/backends.js');
  const { wakerReports } = await import('../event/wakers.js');
  const backends = backendReports();
  return {
    addon: addonPath,
    portable: native.portable(),
    backends,
    backend: chooseBackend({}).name,
    wakers: wakerReports(),
  };
}

// ── limits ──

function fileOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function openFiles(): { openFilesSoft: number | null; openFilesHard: number | null } {
  const found = fileOrEmpty('/proc/self/limits').match(/^Max open files\s+(\S+)\s+(\S+)/m);
  const limit = (text = '') => (/^\d+$/.test(text) ? Number(text) : null);
  return { openFilesSoft: limit(found?.[1]), openFilesHard: limit(found?.[2]) };
}

function somaxconn(): number | null {
  return Number.parseInt(fileOrEmpty('/proc/sys/net/core/somaxconn'), 10) || null;
}

// ── for people ──

function table(report: Report): string {
  const { limits } = report;
  const sections: [string, [string, string][]][] = [
    [
      `multiloop ${report.version}`,
      [
        ['node', `${report.node}, libuv ${report.libuv}`],
        ['kernel', `${report.kernel}, ${report.arch}`],
        ['addon', addonText(report)],
      ],
    ],
    ['backends', report.backends.map((one) => [one.name, backendText(one, report.backend)])],
    ['wakers', report.wakers.map((one) => [one.name, yesOrNo(one)])],
    [
      'limits',
      [
        ['cores', String(limits.cores)],
        ['open files', openFilesText(limits)],
        ['somaxconn', limits.somaxconn === null ? 'not known' : String(limits.somaxconn)],
      ],
    ],
  ];
  const shown = sections.filter(([, rows]) => rows.length > 0);
  const width = Math.max(...shown.flatMap(([, rows]) => rows.map(([name]) => name.length))) + 3;
  return shown
    .map(([title, rows]) => {
      const lines = rows.map(([name, text]) => `  ${name.padEnd(width)}${text}`);
      return [styled('bold', title), ...lines].join('\n');
    })
    .join('\n\n');
}

function addonText({ addon, portable }: Report): string {
  if (addon === null) return styled('red', 'not loaded');
  return portable ? `${addon}, portable (ML_PORTABLE)` : addon;
}

function yesOrNo({ available, reason }: { available: boolean; reason?: string }): string {
  return available ? styled('green', 'yes') : `${styled('yellow', 'no')}    ${reason}`;
}

function backendText(report: BackendReport, byDefault: string | null): string {
  if (!report.available) return yesOrNo(report);
  const features = report.features.length === 0 ? '' : report.features.join(', ');
  const text = `${yesOrNo(report)}   ${features}`;
  return report.name === byDefault ? `${text}${features && '; '}the default` : text.trimEnd();
}

function openFilesText({ openFilesSoft, openFilesHard }: Report['limits']): string {
  if (openFilesSoft === null && openFilesHard === null) return 'not known';
  const hard = openFilesHard === null ? 'no hard limit' : `hard limit ${openFilesHard}`;
  return `${openFilesSoft ?? 'unlimited'}, ${hard}; each connection needs one`;
}
