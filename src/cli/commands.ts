// The commands, their flags and their help: all that can be said without loading the addon.

import { WAKER_NAMES } from '../event/ev.js';
import { ACCEPT_MODES } from '../runtime/accept_mode.js';
import { POLICY_NAMES } from '../runtime/policy.js';
import {
  type Command,
  type Flags,
  flagSwitch,
  integer,
  listOf,
  oneOf,
  text,
  variableOf,
} from './args.js';
import { readyMadeUsages } from './ready_made.js';
import { styled } from './terminal.js';

const serveFlags = {
  port: {
    value: 'PORT',
    help: 'where to listen; 0 lets the kernel choose (8080)',
    read: integer(0, 65_535),
  },
  host: { value: 'HOST', help: 'an address or a name (127.0.0.1)', read: text() },
  path: { value: 'PATH', help: 'a unix socket instead of a port', read: text() },
  'tls-cert': {
    value: 'FILE',
    help: 'TLS with this certificate and its chain, PEM; SIGHUP reads it anew',
    read: text(),
  },
  'tls-key': { value: 'FILE', help: 'the private key of that certificate, PEM', read: text() },
  'tls-watch': { help: 'read those files anew whenever they change', read: flagSwitch() },
  loops: { value: 'N', help: 'how many loops (one a core)', read: integer(1, 512) },
  backend: {
    value: 'LIST',
    help: 'backends, dealt out to the loops: epoll,poll,select (the best there is)',
    read: listOf(text()),
  },
  waker: {
    value: 'LIST',
    help: 'wakers, dealt out to the loops: eventfd,pipe (the best there is)',
    read: listOf(oneOf(WAKER_NAMES)),
  },
  policy: {
    value: 'NAME',
    help: 'for new connections: round-robin, least-connections, two-index, least-lag, sticky',
    read: oneOf(POLICY_NAMES),
  },
  accept: {
    value: 'MODE',
    help: 'who accepts: handoff, reuseport, shared (handoff)',
    read: oneOf(ACCEPT_MODES),
  },
  'drain-ms': {
    value: 'MS',
    help: 'how long a stop waits for what is going on (10000)',
    read: integer(0, 2 ** 31 - 1),
  },
  'watchdog-ms': {
    value: 'MS',
    help: 'a loop that is blocked for longer is ended and replaced (0: never)',
    read: integer(0, 2 ** 31 - 1),
  },
  'kill-ms': {
    value: 'MS',
    help: 'when a thread that does not end is given up for lost (5000)',
    read: integer(1, 2 ** 31 - 1),
  },
  'max-connections': {
    value: 'N',
    help: 'over all loops; what is beyond is closed at once (65536)',
    read: integer(1, 2 ** 20),
  },
  'access-log': {
    value: 'FILE',
    help: 'http: a line for every request, appended; - prints it. SIGHUP opens FILE anew',
    read: text(),
  },
  stats: { help: 'print a line a second: connections, bytes, lag', read: flagSwitch() },
  rebalance: { help: 'move idle connections from loops that have too many', read: flagSwitch() },
  pin: { help: 'bind each loop to a processor', read: flagSwitch() },
} satisfies Flags;

const doctorFlags = {
  json: { help: 'print one JSON object', read: flagSwitch() },
} satisfies Flags;

export const commands = {
  serve: { name: 'serve', arguments: '[worker] [argument ...]', flags: serveFlags },
  doctor: { name: 'doctor', flags: doctorFlags },
} satisfies Record<string, Command>;

export type CommandName = keyof typeof commands;
export type ServeFlags = typeof serveFlags;
export type DoctorFlags = typeof doctorFlags;

const summaries: Record<CommandName, string> = {
  serve: 'run a worker on every core and hand it connections',
  doctor: 'say what this machine offers, and why not more',
};

/** A table of two columns, indented. */
function rows(pairs: [string, string][]): string {
  const width = Math.max(...pairs.map(([left]) => left.length)) + 3;
  return pairs.map(([left, right]) => `  ${left.padEnd(width)}${right}`).join('\n');
}

const always: [string, string][] = [
  ['-h, --help', 'show this help'],
  ['    --version', 'show the version'],
];

function usageOf(command: Command): string {
  return command.arguments === undefined ? command.name : `${command.name} ${command.arguments}`;
}

export function help(version: string): string {
  const names = Object.entries(summaries) as [CommandName, string][];
  const list = names.map(([name, summary]): [string, string] => {
    return [usageOf(commands[name]), summary];
  });
  return [
    `${styled('bold', `multiloop ${version}`)}  libevent for Node.js, on all cores`,
    '',
    'Usage: multiloop <command> [options]',
    '',
    rows(list),
    '',
    rows(always),
    '',
    'multiloop <command> --help explains a command.',
  ].join('\n');
}

export function commandHelp(command: Command): string {
  const flags = Object.entries(command.flags).map(([name, flag]): [string, string] => [
    `    --${name}${flag.value === undefined ? '' : ` ${flag.value}`}`,
    flag.help,
  ]);
  const [example = ''] = Object.keys(command.flags);
  return [
    `Usage: multiloop ${usageOf(command)} [options]`,
    '',
    ...(command.name === 'serve' ? aboutServe() : ['Says what this machine offers.']),
    '',
    rows([...flags, ...always]),
    '',
    `Every option can be set in the environment too: ${variableOf(example)} for --${example}. An`,
    'option wins over its variable. After -- nothing is an option.',
  ].join('\n');
}

function aboutServe(): string[] {
  return [
    'Starts the loops, listens, and hands each new connection to one of them. The worker is the',
    `path of a module whose default export is one, or a ready-made one: ${readyMadeUsages()}.`,
    'Without a worker it is http. The arguments are for the worker; a module finds them in',
    'loop.workerData.arguments. Ctrl-C stops, SIGTERM lets what is under way be finished before; a',
    'second one does not wait.',
    '',
    'http FOLDER serves the files of a folder, with ranges, conditional requests and what is there',
    'as FILE.br, FILE.zst or FILE.gz; without a folder it shows what its loops do. Beside that it',
    'has /status.json (every loop), /loop.json (the one that answers), /events (an event stream of',
    'the same, once a second) and /echo (a WebSocket); a file of such a name goes before.',
  ];
}
