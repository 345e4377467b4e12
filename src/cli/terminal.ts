// What the commands write: results to stdout, everything else to stderr, colours only where they
// are seen. NO_COLOR and FORCE_COLOR are honoured, as Node does it.

import { styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'cyan' | 'green' | 'red' | 'yellow';

export function styled(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout) {
  return styleText(style, text, { stream });
}

/** A result. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Anything else, in one line. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** `multiloop: …`, on stderr: an error, or an event that somebody should look at. */
export function complain(text: string): void {
  note(`${styled('red', 'multiloop:', process.stderr)} ${text}`);
}

/** A reader that goes away, as in `multiloop doctor | head -1`, is no reason to crash. */
export function ignoreBrokenOutput(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
}

/** Messages from elsewhere may have several lines; ours are one. */
export function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim();
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString('en-US')} ${number === 1 ? one : many}`;
}
