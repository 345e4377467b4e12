// npm run -s bench -- NAME [--quick] [--json]

import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Bench, type Case, line, machine } from './report.js';

const names = readdirSync(new URL('.', import.meta.url))
  .filter((file) => file.endsWith('.bench.js'))
  .map((file) => file.slice(0, -'.bench.js'.length))
  .sort();

function usage(problem: string): never {
  console.error(`bench: ${problem}\nusage: npm run -s bench -- NAME [--quick] [--json]`);
  console.error(`benches: ${names.join(', ')}`);
  process.exit(2);
}

function parse(): { name: string; quick: boolean; json: boolean } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { quick: { type: 'boolean' }, json: { type: 'boolean' } },
    });
    const [name, ...more] = positionals;
    if (name === undefined) usage('which one?');
    if (more.length > 0) usage('one at a time');
    if (!names.includes(name)) usage(`there is no bench '${name}'`);
    return { name, quick: values.quick === true, json: values.json === true };
  } catch (error) {
    return usage((error as Error).message);
  }
}

const { name, quick, json } = parse();
const { default: bench } = (await import(`./${name}.bench.js`)) as { default: Bench };
const cases: Case[] = [];
for await (const one of bench({ quick })) {
  cases.push(one);
  console.error(line(one));
}
if (json) console.log(JSON.stringify({ bench: name, machine: machine(), cases }));
