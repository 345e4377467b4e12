// The project's own rules, read from its sources: which layer may use which, how long a file may
// be, what must not be left in one. The rules are data, and a violation names file:line and rule.

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

// ── the rules ───────────────────────────────────────────────────────────────────────────────────

/** Low to high. A file uses its own layer and those below it; a name without .ts is a folder. */
const layers = [
  ['src/errors.ts', 'src/guard.ts', 'src/validate.ts', 'src/version.ts'],
  ['src/native.ts'],
  ['src/event'],
  ['src/buffer'],
  ['src/stream'],
  ['src/http', 'src/dns', 'src/rpc'],
  ['src/runtime'],
  ['src/index.ts', 'src/http.ts'],
  ['src/cli'],
];

/** What may be used besides Node itself, and where. */
const packageUsers: Record<string, string> = { piscina: 'src/runtime' };

/** Where the imports begin that keep a file of src alive; the package's exports are added. */
const entries = ['src/index.ts', 'src/cli/main.ts', 'src/runtime/loop_main.ts'];

/** What the native code of a folder must not include. */
const includeRules = [
  {
    within: 'native/core',
    rule: 'core-without-node',
    header: /^(node|uv|v8|napi|js_native_api)\b|^(node|uv|v8|cppgc|libplatform)[-_/.]/,
    why: 'the core knows no header of Node, libuv or V8',
  },
  {
    within: 'native/core',
    rule: 'core-below-binding',
    header: /^native\/binding\/|^(\.\.\/)*binding\//,
    why: 'the core is below the binding',
  },
  {
    within: 'native/core/backend',
    rule: 'backend-on-core',
    header: /^native\/(?!core\/)/,
    why: 'a backend includes headers of the core only',
  },
];

const maxLines = 600;
const maxColumns = 100;
const sized = ['src', 'native', 'workers'];
const everywhere = ['src', 'native', 'workers', 'test', 'bench'];

/** Looked for in every line. The patterns are spelt so that they do not match themselves. */
const banned = [
  { rule: 'only', pattern: /\.only\(/, why: 'it silences all other tests' },
  { rule: 'todo', pattern: /\b(TO[D]O|FIX[M]E)\b/, why: 'finish it or open an issue' },
];

/** What is done around tests, as far as it is registered with uvu's own function. */
const hookPattern = /\b\w+\.(before|after)(\.each)?\(/;

/** What loads the addon: its file name, its folder, or the call that maps it. */
const addonPattern = /\.node['"`]|build\/Release|process\.dlopen/;

// ── the checker ─────────────────────────────────────────────────────────────────────────────────

interface SourceFile {
  path: string;
  text: string;
  lines: string[];
}
interface Import {
  line: number;
  specifier: string;
  /** The file in the tree, for a relative specifier. */
  target?: string;
}
type Tree = Map<string, SourceFile>;
type Complain = (file: string, line: number, rule: string, what: string) => void;

function readTree(root: string): Tree {
  const tree: Tree = new Map();
  for (const folder of everywhere.filter((name) => existsSync(join(root, name)))) {
    const found = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
    for (const entry of found) {
      if (!entry.isFile() || !/\.(ts|mjs|js|cc|c|h)$/.test(entry.name)) continue;
      const full = join(entry.parentPath ?? entry.path, entry.name);
      const path = full.slice(join(root, '/').length);
      const text = readFileSync(full, 'utf8');
      tree.set(path, { path, text, lines: text.split('\n') });
    }
  }
  return tree;
}

const isIn = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);
const layerOf = (path: string) => layers.findIndex((names) => names.some((n) => isIn(path, n)));

/** Static, dynamic and type imports, and `new URL('./x.js', import.meta.url)`, which starts one. */
function importsOf(file: SourceFile): Import[] {
  const lineAt = (position: number) => file.text.slice(0, position).split('\n').length;
  const found = ts.preProcessFile(file.text).importedFiles.map((imported) => ({
    line: lineAt(imported.pos),
    specifier: imported.fileName,
  }));
  for (const match of file.text.matchAll(/new URL\(\s*'(\.[^']*)',\s*import\.meta\.url/g)) {
    const specifier = match[1] ?? '';
    if (specifier.endsWith('.js')) found.push({ line: lineAt(match.index), specifier });
  }
  return found.map((one) => {
    if (!one.specifier.startsWith('.')) return one;
    const target = posix.join(posix.dirname(file.path), one.specifier).replace(/\.js$/, '.ts');
    return { ...one, target };
  });
}

/** The sources behind the package's exports, which are what a worker may import. */
function publicEntries(root: string): string[] {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const targets = Object.values(exports as Record<string, { default?: string }>);
  const modules = targets.flatMap((target) => target.default ?? []);
  return modules
    .filter((module) => module.startsWith('./dist/src/') && !module.includes('*'))
    .map((module) => module.replace('./dist/', '').replace(/\.js$/, '.ts'));
}

function checkImport(file: SourceFile, one: Import, api: string[], complain: Complain) {
  const { path } = file;
  const { line, specifier, target } = one;
  if (target === undefined) {
    if (specifier.startsWith('node:')) return;
    const name = specifier.split('/')[0] ?? '';
    const user = packageUsers[name];
    if (user === undefined || !isIn(path, user)) {
      complain(path, line, 'packages', `'${specifier}' may be used in ${user ?? 'no source'} only`);
    }
    return;
  }
  if (isIn(path, 'workers')) {
    if (isIn(target, 'workers') || api.includes(target)) return;
    complain(path, line, 'workers-public', `'${specifier}' is not public; use ${api.join(', ')}`);
    return;
  }
  const [from, to] = [layerOf(path), layerOf(target)];
  if (isIn(target, 'src') && to <= from) return;
  const where = isIn(target, 'src') ? 'above' : 'outside src';
  complain(
    path,
    line,
    'layers',
    `${layers[from]?.join(', ')} may not use ${target}, which is ${where}`,
  );
}

function checkTypeScript(tree: Tree, api: string[], complain: Complain) {
  const reachable = new Set<string>();
  const visit = (path: string) => {
    const file = tree.get(path);
    if (!file || reachable.has(path)) return;
    reachable.add(path);
    for (const { target } of importsOf(file)) if (target) visit(target);
  };
  for (const entry of [...entries, ...api]) visit(entry);

  for (const file of tree.values()) {
    const { path } = file;
    if (!path.endsWith('.ts') || !(isIn(path, 'src') || isIn(path, 'workers'))) continue;
    if (isIn(path, 'src') && layerOf(path) < 0) {
      complain(
        path,
        1,
        'unknown-layer',
        'it is in none of the layers; give it a place in the list',
      );
      continue;
    }
    for (const one of importsOf(file)) checkImport(file, one, api, complain);
    if (path !== 'src/native.ts') {
      file.lines.forEach((text, index) => {
        if (!addonPattern.test(text)) return;
        complain(path, index + 1, 'one-loader', 'src/native.ts alone loads the addon');
      });
    }
    if (isIn(path, 'src') && !reachable.has(path)) {
      complain(path, 1, 'dead-file', `no import leads to it from ${entries.join(', ')}`);
    }
  }
}

/** A quoted include is resolved against its own folder, then against the include directory. */
function resolveInclude(tree: Tree, from: string, name: string): string {
  const beside = posix.join(posix.dirname(from), name);
  const below = posix.join('native', name);
  return [beside, below].find((path) => tree.has(path)) ?? name;
}

function checkNative(tree: Tree, complain: Complain) {
  for (const file of tree.values()) {
    if (!isIn(file.path, 'native')) continue;
    file.lines.forEach((text, index) => {
      const match = text.match(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/);
      if (!match?.[2]) return;
      const header = match[1] === '"' ? resolveInclude(tree, file.path, match[2]) : match[2];
      for (const { within, rule, header: pattern, why } of includeRules) {
        if (!isIn(file.path, within) || !pattern.test(header)) continue;
        complain(file.path, index + 1, rule, `it includes ${header}, but ${why}`);
      }
    });
  }
}

function checkTests(tree: Tree, complain: Complain) {
  for (const file of tree.values()) {
    if (!isIn(file.path, 'test') || !file.lines.some((text) => hookPattern.test(text))) continue;
    for (const { line, specifier } of importsOf(file)) {
      if (specifier !== 'uvu' || file.path === 'test/hooks.ts') continue;
      complain(file.path, line, 'hooks', 'uvu loses what a hook throws: import from test/hooks.ts');
    }
  }
}

function checkText(tree: Tree, complain: Complain) {
  for (const { path, text, lines } of tree.values()) {
    if (text.includes('\r')) {
      const line = lines.findIndex((one) => one.includes('\r')) + 1;
      complain(path, line, 'line-endings', 'lines end with LF alone');
    }
    if (text !== '' && !text.endsWith('\n')) {
      complain(path, lines.length, 'final-newline', 'the last line has no end');
    }
    lines.forEach((line, index) => {
      for (const { rule, pattern, why } of banned) {
        if (pattern.test(line)) complain(path, index + 1, rule, why);
      }
    });
    if (!sized.some((folder) => isIn(path, folder))) continue;
    const count = lines.length - 1;
    if (count > maxLines)
      complain(path, maxLines + 1, 'lines', `${count} lines, at most ${maxLines}`);
    lines.forEach((line, index) => {
      const columns = [...line].length;
      if (columns <= maxColumns) return;
      complain(path, index + 1, 'columns', `${columns} columns, at most ${maxColumns}`);
    });
  }
}

function check(root: string): string[] {
  const violations: string[] = [];
  const complain: Complain = (file, line, rule, what) => {
    violations.push(`${file}:${line}  ${rule}: ${what}`);
  };
  const tree = readTree(root);
  checkTypeScript(tree, publicEntries(root), complain);
  checkNative(tree, complain);
  checkTests(tree, complain);
  checkText(tree, complain);
  return violations.sort();
}

// ── the tests ───────────────────────────────────────────────────────────────────────────────────

const project = fileURLToPath(new URL('../../', import.meta.url));

test('the project keeps its rules', () => {
  assert.equal(check(project), []);
});

const long = '/'.repeat(101);

/** One small tree in which every rule is broken, and what the checker has to say about each file. */
const badTree: Record<string, { text: string; fires: string[] }> = {
  'src/index.ts': {
    text: "export * from './event/base.js';\nexport * from './stream/tls.js';\nimport './odd.js';\n",
    fires: [],
  },
  'src/event/base.ts': {
    text: [
      "// A comment that says: import { x } from '../cli/main.js'",
      "import { a } from '../native.js';",
      "import type { Stream } from '../stream/tls.js';",
      "export { serve } from '../runtime/serve.js';",
      "import Piscina from 'piscina';",
      "const lazy = () => import('../cli/main.js');",
      '',
    ].join('\n'),
    fires: ['3 layers', '4 layers', '5 packages', '6 layers'],
  },
  'src/native.ts': {
    text: "import './errors.js';\nrequire('../build/Release/multiloop.node');\n",
    fires: [],
  },
  'src/errors.ts': {
    text: "import { a } from './native.js';\n",
    fires: ['1 layers'],
  },
  'src/stream/tls.ts': {
    text: "process.dlopen(module, '/x');\nimport ws from 'ws';\nimport '../../test/helper.js';\n",
    fires: ['1 one-loader', '2 packages', '3 layers'],
  },
  'src/runtime/serve.ts': {
    text: "import Piscina from 'piscina';\nnew URL('./loop_main.js', import.meta.url);\n",
    fires: [],
  },
  'src/runtime/loop_main.ts': { text: "import { base } from '../event/base.js';\n", fires: [] },
  'src/runtime/unused.ts': { text: 'export const x = 1;\n', fires: ['1 dead-file'] },
  'src/cli/main.ts': {
    text: "import { serve } from '../index.js';\r\n",
    fires: ['1 line-endings'],
  },
  'src/odd.ts': { text: 'export {};\n', fires: ['1 unknown-layer'] },
  'workers/echo.ts': {
    text: [
      "import { defineWorker } from '../src/index.js';",
      "import { EvBuffer } from '../src/buffer/evbuffer.js';",
      "import { createHash } from 'node:crypto';",
      "import './shared.js';",
      '',
    ].join('\n'),
    fires: ['2 workers-public'],
  },
  'native/core/loop.cc': {
    text: '#include "loop.h"\n#include <uv.h>\n#include <node_api.h>\n#include "../binding/b.h"\n',
    fires: ['2 core-without-node', '3 core-without-node', '4 core-below-binding'],
  },
  'native/core/loop.h': { text: '#include <sys/epoll.h>\n#include <poll.h>\n', fires: [] },
  'native/core/backend/epoll.cc': {
    text: '#include "../loop.h"\n#include "core/loop.h"\n#include "tools/t.h"\n',
    fires: ['3 backend-on-core'],
  },
  'native/tools/t.h': { text: '', fires: [] },
  'native/binding/b.h': { text: '#include <napi.h>\n#include <uv.h>', fires: ['2 final-newline'] },
  'native/binding/long.cc': { text: 'int x;\n'.repeat(601), fires: ['601 lines'] },
  'native/binding/wide.cc': { text: `${long}\n${'─'.repeat(100)}\n`, fires: ['1 columns'] },
  'test/x.test.ts': {
    text: `test.${'only'}('x', f);\n// ${'TO'}${'DO'}: later\n// ${'FIX'}${'ME'}\n${long}\n`,
    fires: ['1 only', '2 todo', '3 todo'],
  },
  'test/y.test.ts': {
    text: `import 'node:fs';\nimport { test } from 'uvu';\ntest.${'after'}.each(() => {});\n`,
    fires: ['2 hooks'],
  },
  'test/z.test.ts': {
    text: `import { test } from './hooks.js';\ntest.${'before'}(() => {});\n`,
    fires: [],
  },
};

test('every rule fires on a tree that breaks it, at the file and line that do', () => {
  const root = mkdtempSync(join(tmpdir(), 'multiloop-tidy-'));
  try {
    const exports = { '.': { default: './dist/src/index.js' } };
    writeFileSync(join(root, 'package.json'), JSON.stringify({ exports }));
    const expected: string[] = [];
    for (const [path, { text, fires }] of Object.entries(badTree)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
      expected.push(...fires.map((fire) => `${path}:${fire.replace(' ', '  ')}`));
    }
    const found = check(root).map((violation) => violation.split(': ')[0] ?? '');
    assert.equal(found, expected.sort());
  } finally {
    rmSync(root, { recursive: true });
  }
});

test.run();
