#!/usr/bin/env node
// The command line: finds the command, runs it, and turns every failure into one line on stderr
// and an exit code: 0 for success, 1 for a failure, 2 for a mistake on the command line.
//
// The commands are imported when they run, so that help and version need no addon.

import { readFileSync } from 'node:fs';
import { type Asked, parse, parseCommand, UsageError } from './args.js';
import { type CommandName, commandHelp, commands, help } from './commands.js';
import { codeOf, describe } from './failure.js';
import { complain, ignoreBrokenOutput, note, print } from './terminal.js';

const OK = 0;
const FAILED = 1;
const MISUSED = 2;

function version(): string {
  const file = new URL('../../../package.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')).version;
}

function answer(asked: Asked, helpText: () => string): number {
  print(asked === 'version' ? version() : helpText());
  return OK;
}

async function run(args: string[]): Promise<number> {
  const first = parseCommand(args, Object.keys(commands));
  if (typeof first === 'string') return answer(first, () => help(version()));
  const [name, rest] = first as [CommandName, string[]];
  if (name === 'serve') {
    const parsed = parse(commands.serve, rest, process.env);
    if (typeof parsed === 'string') return answer(parsed, () => commandHelp(commands.serve));
    const { serveCommand } = await import('./serve.js');
    await serveCommand(parsed, version());
    return OK;
  }
  const parsed = parse(commands.doctor, rest, process.env);
  if (typeof parsed === 'string') return answer(parsed, () => commandHelp(commands.doctor));
  const { doctorCommand } = await import('./doctor.js');
  return (await doctorCommand(parsed, version())) ? OK : FAILED;
}

function fail(error: unknown): number {
  complain(describe(error));
  if (process.env.MULTILOOP_DEBUG === '1' && error instanceof Error) note(error.stack ?? '');
  const isMisuse =
    error instanceof UsageError || /^ERR_(BACKEND|WAKER)_UNAVAILABLE$/.test(codeOf(error) ?? '');
  return isMisuse ? MISUSED : FAILED;
}

ignoreBrokenOutput();
// Not process.exit(): what was written to a pipe may still be on its way.
run(process.argv.slice(2))
  .catch(fail)
  .then((code) => {
    process.exitCode = code;
  });
