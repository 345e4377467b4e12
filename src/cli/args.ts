// The command line's grammar: flags with a value each, a variable of the environment for every
// flag, and an error that says what would have been right. Node's parser finds the tokens; what
// they mean is decided here.

import { parseArgs } from 'node:util';

/** The user's mistake; its message is all that is printed, and the exit code is 2. */
export class UsageError extends Error {}

/** What a flag was given, as a value. Throws a BadValue when it is not one. */
export type Read<T> = (text: string) => T;

/** The end of a sentence that begins with the name of the flag: `must be …`. */
export class BadValue extends Error {}

export interface Flag<T = unknown> {
  /** What stands for the value in the help. A flag without one is a switch. */
  value?: string;
  help: string;
  read: Read<T>;
}

export type Flags = Record<string, Flag>;

export interface Command {
  name: string;
  /** What follows the name in the usage line; without it the command takes no argument. */
  arguments?: string;
  flags: Flags;
}

/** A value, and what it came from for errors that are found later: `--host`, `MULTILOOP_HOST`. */
export interface Given<T> {
  value: T;
  source: string;
  fromEnvironment: boolean;
}

export type GivenFlags<F extends Flags> = {
  [K in keyof F]?: Given<F[K] extends Flag<infer T> ? T : never>;
};

export interface Parsed<F extends Flags = Flags> {
  arguments: string[];
  flags: GivenFlags<F>;
}

/** `--help` and `--version` exist at every level and win over everything else. */
export type Asked = 'help' | 'version';

const ALWAYS = ['help', 'version'] as const;

// ── tokens ──

interface Token {
  kind: 'flag' | 'argument';
  /** Of a flag, without dashes. */
  name: string;
  /** As it was written. */
  raw: string;
  value: string | undefined;
  inline: boolean;
}

function tokensOf(args: string[], flags: Flags): Token[] {
  const options: Record<string, { type: 'string' | 'boolean'; short?: string }> = {
    help: { type: 'boolean', short: 'h' },
    version: { type: 'boolean' },
  };
  for (const [name, flag] of Object.entries(flags))
    options[name] = { type: flag.value === undefined ? 'boolean' : 'string' };
  // Not strict: the parser's own errors name neither the command nor what would be right.
  const { tokens } = parseArgs({
    args,
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const found: Token[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional')
      found.push({
        kind: 'argument',
        name: '',
        raw: token.value,
        value: undefined,
        inline: false,
      });
    else if (token.kind === 'option')
      found.push({
        kind: 'flag',
        name: token.name,
        raw: token.rawName,
        value: token.value,
        inline: token.inlineValue === true,
      });
  }
  return found;
}

// ── a command's arguments ──

export function parse<F extends Flags>(
  command: Command & { flags: F },
  args: string[],
  env: NodeJS.ProcessEnv,
): Asked | Parsed<F> {
  const tokens = tokensOf(args, command.flags);
  const asked = tokens.find((token) => isAlways(token.name));
  if (asked !== undefined) return asked.name as Asked;
  const given: Record<string, Given<unknown>> = {};
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'flag') given[token.name] = fromFlag(command, token);
    else if (command.arguments === undefined)
      throw new UsageError(`${command.name} takes no argument; '${token.raw}' is one`);
    else words.push(token.raw);
  }
  for (const [name, flag] of Object.entries(command.flags)) {
    const found = given[name] ?? fromEnvironment(name, flag, env);
    if (found !== undefined) given[name] = found;
  }
  return { arguments: words, flags: given as GivenFlags<F> };
}

function isAlways(name: string): name is Asked {
  return (ALWAYS as readonly string[]).includes(name);
}

function fromFlag(command: Command, token: Token): Given<unknown> {
  const flag = Object.hasOwn(command.flags, token.name) ? command.flags[token.name] : undefined;
  if (flag === undefined) throw unknownFlag(command, token);
  if (flag.value === undefined && token.inline)
    throw new UsageError(`${token.raw} is a switch and takes no value`);
  const { value } = token;
  // A number may be negative, to be told so; two dashes are the next flag.
  const missing = value === undefined || (!token.inline && value.startsWith('--'));
  if (flag.value !== undefined && missing)
    throw new UsageError(`${token.raw} needs a value: ${token.raw} ${flag.value}`);
  return {
    value: read(token.raw, flag, value ?? 'true'),
    source: token.raw,
    fromEnvironment: false,
  };
}

function unknownFlag(command: Command, token: Token): UsageError {
  const names = [...Object.keys(command.flags), ...ALWAYS];
  const near = nearest(token.name, names);
  const advice =
    near === undefined
      ? `multiloop ${command.name} --help lists what there is`
      : `did you mean --${near}?`;
  return new UsageError(`${command.name} has no option ${token.raw}; ${advice}`);
}

/** MULTILOOP_DRAIN_MS for --drain-ms. */
export function variableOf(name: string): string {
  return `MULTILOOP_${name.toUpperCase().replaceAll('-', '_')}`;
}

function fromEnvironment(
  name: string,
  flag: Flag,
  env: NodeJS.ProcessEnv,
): Given<unknown> | undefined {
  const source = variableOf(name);
  const text = env[source];
  // An empty variable is how a shell or a service file unsets one.
  if (text === undefined || text === '') return undefined;
  return { value: read(source, flag, text), source, fromEnvironment: true };
}

function read(source: string, flag: Flag, text: string): unknown {
  try {
    return flag.read(text);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    throw new UsageError(`${source} ${error.message}`);
  }
}

// ── the name of a command ──

/** Splits `--help`, `--version` or the name of a command off the front. */
export function parseCommand(args: string[], names: readonly string[]): Asked | [string, string[]] {
  const at = args[0] === '--' ? 1 : 0;
  const first = args[at];
  if (first === undefined)
    throw new UsageError(
      `a command is missing: ${names.join(' or ')}; multiloop --help explains them`,
    );
  if (at === 0 && first.startsWith('-')) {
    const [token] = tokensOf([first], {});
    if (token !== undefined && isAlways(token.name)) return token.name;
    const near = nearest(token?.name ?? '', ALWAYS);
    const advice = near === undefined ? 'options follow the command' : `did you mean --${near}?`;
    throw new UsageError(`there is no option ${token?.raw ?? first} before a command; ${advice}`);
  }
  if (names.includes(first)) return [first, args.slice(at + 1)];
  const near = nearest(first, names);
  const advice =
    near === undefined ? `the commands are ${names.join(' and ')}` : `did you mean ${near}?`;
  throw new UsageError(`there is no command '${first}'; ${advice}`);
}

// ── values ──

export function integer(min: number, max: number): Read<number> {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new BadValue(`must be a whole number from ${min} to ${max}, not '${text}'`);
  };
}

export function text(): Read<string> {
  return (given) => {
    if (given === '') throw new BadValue('must not be empty');
    return given;
  };
}

export function oneOf<T extends string>(all: readonly T[]): Read<T> {
  return (given) => {
    if ((all as readonly string[]).includes(given)) return given as T;
    const near = nearest(given, all);
    const advice = near === undefined ? '' : `; did you mean ${near}?`;
    throw new BadValue(`must be ${all.join(' or ')}, not '${given}'${advice}`);
  };
}

/** Comma-separated. */
export function listOf<T>(one: Read<T>): Read<T[]> {
  return (given) => given.split(',').map((part) => one(part.trim()));
}

export function flagSwitch(): Read<boolean> {
  return (given) => {
    if (given === '1' || given === 'true') return true;
    if (given === '0' || given === 'false') return false;
    throw new BadValue(`must be 1 or 0, not '${given}'`);
  };
}

// ── what was meant ──

/** Mistakes that a name may have and still be recognised, for its length. */
const mistakesMax = (length: number) => Math.max(1, Math.floor(length / 3));

/** The name that was most likely meant: one that begins like it, or is a few mistakes away. */
export function nearest(given: string, names: readonly string[]): string | undefined {
  const begins = names.find((name) => given !== '' && name.startsWith(given));
  let best: string | undefined;
  let least = mistakesMax(given.length) + 1;
  for (const name of names) {
    const count = distance(given, name);
    if (count < least) [best, least] = [name, count];
  }
  return best ?? begins;
}

/** Letters added, left out, changed, or swapped with the next one, to get from `a` to `b`. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next[j] = Math.min(change, row[j] + 1, next[j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    [before, row] = [row, next];
  }
  return row[b.length];
}
