// npm run -s bench -- NAME [--quick] [--json] [--peer-cmd PATH] [--accept LIST]

import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Bench, type BenchOptions, type Case, line, machine } from './report.js';

const names = readdirSync(new URL('.', import.meta.url))
  .filter((file) => file.endsWith('.bench.js'))
  .map((file) => file.slice(0, -'.bench.js'.length))
  .sort();

function usage(problem: string): never {
  console.error(`bench: ${problem}`);
  console.error(
    'usage: npm run -s bench -- NAME [--quick] [--json] [--peer-cmd PATH] [--accept LIST]',
  );
  console.error(`benches: ${names.join(', ')}`);
  process.exit(2);
}

function parse(): BenchOptions & { name: string; json: boolean } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: 'boolean' },
        json: { type: 'boolean' },
        'peer-cmd': { type: 'string' },
        accept: { type: 'string' },
      },
    });
    const [name, ...more] = positionals;
    if (name === undefined) usage('which one?');
    if (more.length > 0) usage('one at a time');
    if (!names.includes(name)) usage(`there is no bench '${name}'`);
    const command = values['peer-cmd'];
    if (command !== undefined && !existsSync(command)) usage(`there is no program '${command}'`);
    return {
      name,
      quick: values.quick === true,
      json: values.json === true,
      peerCmd: command === undefined ? undefined : resolve(command),
      accept: values.accept?.split(','),
    };
  } catch (error) {
    return usage((error as Error).message);
  }
}

const { name, json, ...options } = parse();
const { default: bench } = (await import(`./${name}.bench.js`)) as { default: Bench };
const cases: Case[] = [];
for await (const one of bench(options)) {
  cases.push(one);
  console.error(line(one));
}
if (json) console.log(JSON.stringify({ bench: name, machine: machine(), cases }));
