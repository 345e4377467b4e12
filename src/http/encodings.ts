// The Accept-Encoding header (RFC 9110 section 12.5.3).

/** What may be beside a file, and what its name ends with; of equals, the first is taken. */
export const ENCODINGS = { br: '.br', zstd: '.zst', gzip: '.gz' } as const;
export type Encoding = keyof typeof ENCODINGS;
export const ENCODING_NAMES = Object.keys(ENCODINGS) as Encoding[];

/** Elements of the header that are looked at: a real one has a handful. */
const ELEMENTS_MAX = 32;
/** RFC 9110 section 12.4.2. */
const ELEMENT = /^([\w!#$%&'*+.^`|~-]+)(?:[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?$/i;

/**
 * Those of `names` that the client takes, the most welcome first; none that it likes less than the
 * bytes as they are. Without the header nothing is known of it, and nothing is encoded.
 */
export function acceptedEncodings(
  header: string | undefined,
  names: readonly Encoding[],
): Encoding[] {
  if (header === undefined) return [];
  const weights = new Map<string, number>();
  for (const element of header.split(',', ELEMENTS_MAX)) {
    const match = ELEMENT.exec(element.trim());
    if (match === null) continue;
    const name = match[1].toLowerCase();
    weights.set(name === 'x-gzip' ? 'gzip' : name, match[2] === undefined ? 1 : Number(match[2]));
  }
  const others = weights.get('*') ?? 0;
  const identity = weights.get('identity') ?? 0;
  const weightOf = (name: Encoding) => weights.get(name) ?? others;
  return names
    .filter((name) => weightOf(name) > 0 && weightOf(name) >= identity)
    .sort((one, other) => weightOf(other) - weightOf(one));
}
