// The grammar of the command line: flags, variables, lists, switches, and what was meant.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  flagSwitch,
  integer,
  listOf,
  nearest,
  oneOf,
  type Parsed,
  parse,
  parseCommand,
  text,
  UsageError,
  variableOf,
} from '../../src/cli/args.js';
import { Throttle } from '../../src/cli/events.js';
import { placeOf, syntaxPlace } from '../../src/cli/failure.js';

const command = {
  name: 'brew',
  arguments: '[tea ...]',
  flags: {
    cups: { value: 'N', help: '', read: integer(1, 9) },
    'milk-ml': { value: 'ML', help: '', read: integer(0, 500) },
    name: { value: 'NAME', help: '', read: text() },
    spice: { value: 'LIST', help: '', read: listOf(oneOf(['mint', 'ginger'])) },
    hot: { help: '', read: flagSwitch() },
  },
};
type Brew = Parsed<typeof command.flags>;

function given(args: string[], env: NodeJS.ProcessEnv = {}): Brew {
  return parse(command, args, env) as Brew;
}

function refused(args: string[], env: NodeJS.ProcessEnv = {}): string {
  try {
    parse(command, args, env);
  } catch (error) {
    assert.instance(error, UsageError);
    return (error as Error).message;
  }
  throw new Error(`accepted: ${args.join(' ')}`);
}

test('flags, their values in both spellings, lists and switches', () => {
  const args = ['green', '--cups=3', '--spice', 'mint, ginger', 'black', '--hot'];
  const { arguments: teas, flags } = given(args);
  assert.equal(teas, ['green', 'black']);
  assert.is(flags.cups?.value, 3);
  assert.equal(flags.spice?.value, ['mint', 'ginger']);
  assert.is(flags.hot?.value, true);
  assert.is(flags['milk-ml'], undefined);
});

test('the last of two equal flags counts', () => {
  assert.is(given(['--cups', '1', '--cups', '2']).flags.cups?.value, 2);
});

test('a variable stands in for a flag, and the flag wins', () => {
  const env = { MULTILOOP_CUPS: '4', MULTILOOP_MILK_ML: '20', MULTILOOP_HOT: '1' };
  const { flags } = given(['--cups', '2'], env);
  assert.is(flags.cups?.value, 2);
  assert.equal(flags['milk-ml'], { value: 20, source: 'MULTILOOP_MILK_ML', fromEnvironment: true });
  assert.is(flags.hot?.value, true);
  assert.is(variableOf('max-connections'), 'MULTILOOP_MAX_CONNECTIONS');
});

test('an empty variable is none, and a bad one that a flag overrides is not looked at', () => {
  assert.is(given([], { MULTILOOP_CUPS: '' }).flags.cups, undefined);
  assert.is(given(['--cups', '2'], { MULTILOOP_CUPS: 'x' }).flags.cups?.value, 2);
});

test('a bad value names its flag or its variable', () => {
  const wanted = 'must be a whole number from 1 to 9, not';
  for (const bad of ['0', '-1', 'x', '10', '1.5', '1e0', ' 1', '0x1', '9'.repeat(40)]) {
    assert.is(refused(['--cups', bad]), `--cups ${wanted} '${bad}'`);
    assert.is(refused([`--cups=${bad}`]), `--cups ${wanted} '${bad}'`);
    assert.is(refused([], { MULTILOOP_CUPS: bad }), `MULTILOOP_CUPS ${wanted} '${bad}'`);
  }
  assert.is(refused([], { MULTILOOP_HOT: 'yes' }), "MULTILOOP_HOT must be 1 or 0, not 'yes'");
  assert.match(refused(['--spice', 'mint,gingr']), "not 'gingr'; did you mean ginger?");
  assert.is(refused(['--name=']), '--name must not be empty');
});

test('a flag without its value, and a switch with one', () => {
  assert.is(refused(['--cups']), '--cups needs a value: --cups N');
  assert.is(refused(['--cups', '--hot']), '--cups needs a value: --cups N');
  assert.is(refused(['--hot=1']), '--hot is a switch and takes no value');
});

test('an unknown option is told with the nearest', () => {
  assert.is(refused(['--cpus', '2']), 'brew has no option --cpus; did you mean --cups?');
  assert.is(refused(['--milk=2']), 'brew has no option --milk; did you mean --milk-ml?');
  assert.is(refused(['-c', '2']), 'brew has no option -c; did you mean --cups?');
  assert.match(refused(['--toString']), 'brew has no option --toString; multiloop brew --help');
  assert.match(refused(['--__proto__=1']), 'brew has no option --__proto__');
});

test('after -- nothing is an option', () => {
  assert.equal(given(['--hot', '--', '--cups']).arguments, ['--cups']);
  assert.equal(given(['a', '--', '-b', '--hot']).arguments, ['a', '-b', '--hot']);
});

test('a command without arguments refuses one', () => {
  const bare = { name: 'rinse', flags: {} };
  assert.throws(() => parse(bare, ['cup'], {}), /^rinse takes no argument; 'cup' is one$/);
  assert.equal(parse(bare, [], {}), { arguments: [], flags: {} });
});

test('help and version win over mistakes', () => {
  assert.is(parse(command, ['--nonsense', '-h'], {}), 'help');
  assert.is(parse(command, ['--cups', '99', '--version'], {}), 'version');
  assert.is(parse(command, [], { MULTILOOP_HELP: '1' }) instanceof Object, true);
});

test('the command comes first', () => {
  const names = ['brew', 'pour'];
  assert.equal(parseCommand(['brew', '--hot'], names), ['brew', ['--hot']]);
  assert.equal(parseCommand(['--', 'brew'], names), ['brew', []]);
  assert.is(parseCommand(['--help', 'brew'], names), 'help');
  assert.is(parseCommand(['-h'], names), 'help');
  assert.throws(() => parseCommand([], names), /a command is missing: brew or pour/);
  assert.throws(() => parseCommand(['berw'], names), /no command 'berw'; did you mean brew\?/);
  assert.throws(() => parseCommand(['--vresion'], names), /did you mean --version\?/);
});

test('what was meant: mistakes in proportion to the length, or the beginning', () => {
  const names = ['port', 'path', 'policy', 'max-connections'];
  assert.is(nearest('prot', names), 'port');
  assert.is(nearest('pth', names), 'path');
  assert.is(nearest('max', names), 'max-connections');
  assert.is(nearest('max-conections', names), 'max-connections');
  assert.is(nearest('zebra', names), undefined);
  assert.is(nearest('', names), undefined);
});

test('the place of an error is where the user can mend it', () => {
  const stack = [
    'MultiloopError: the worker threw',
    '    at loadFailure (file:///app/load.js:1:1)',
    '  [cause]: TypeError: no',
    '    at JSON.parse (<anonymous>)',
    '    at async node:internal/x:1:2',
    '    at new Thing (file:///my%20app/worker.mjs:12:3)',
    '    at file:///my%20app/worker.mjs:20:1',
  ].join('\n');
  assert.is(placeOf(stack), '/my app/worker.mjs:12:3');
  assert.is(placeOf('Error: x\n    at async file:///a.mjs:2:7'), '/a.mjs:2:7');
  assert.is(placeOf('Error: x\n    at f (/b/c.cjs:3:9)'), '/b/c.cjs:3:9');
  assert.is(placeOf('Error: x\n    at node:internal/y:1:1'), undefined);
  assert.is(syntaxPlace('file:///a.mjs:3\n  f(x;\n     ^\n\nSyntaxError: y'), '/a.mjs:3:6');
});

test('a flood of messages is counted', () => {
  const lines: string[] = [];
  const throttle = new Throttle(
    2,
    (held) => `${held} more`,
    (line) => lines.push(line),
  );
  for (let i = 0; i < 5; i++) throttle.say(() => `line ${i}`, 10);
  throttle.flush();
  throttle.flush();
  throttle.say(() => 'again');
  assert.equal(lines, ['line 0', 'line 1', '30 more', 'again']);
  throttle.flush();
});

test.run();
