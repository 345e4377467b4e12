// The checks at the public edge, with Node's codes and wording, so that nothing malformed reaches
// native code.

function described(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'function') return `function ${value.name}`;
  if (typeof value === 'object') return `an instance of ${value.constructor?.name ?? 'Object'}`;
  const text = typeof value === 'string' ? `'${value.slice(0, 25)}'` : String(value);
  return `type ${typeof value} (${text})`;
}

export function invalidType(name: string, expected: string, value: unknown): TypeError {
  const message = `The "${name}" argument must be ${expected}. Received ${described(value)}`;
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_TYPE' });
}

export function outOfRange(name: string, range: string, value: unknown): RangeError {
  const message = `The value of "${name}" is out of range. It must be ${range}. Received ${value}`;
  return Object.assign(new RangeError(message), { code: 'ERR_OUT_OF_RANGE' });
}

export function invalidValue(name: string, reason: string, value: unknown): TypeError {
  const message = `The argument "${name}" ${reason}. Received ${described(value)}`;
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_VALUE' });
}

export function checkInteger(
  name: string,
  value: unknown,
  min: number,
  max = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value)) throw outOfRange(name, 'an integer', value);
  if (value < min || value > max) throw outOfRange(name, `>= ${min} && <= ${max}`, value);
  return value;
}

/** Milliseconds, fractions allowed; the result is whole microseconds, rounded up. */
export function checkMillis(name: string, value: unknown): number {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!(value >= 0 && value <= MILLIS_MAX))
    throw outOfRange(name, `>= 0 && <= ${MILLIS_MAX}`, value);
  return Math.ceil(value * 1000);
}

/** About 285 years: the largest time in milliseconds whose microseconds are exact. */
export const MILLIS_MAX = 9_007_199_254_740;

export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') throw invalidType(name, 'of type function', value);
}

export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw invalidType(name, 'of type boolean', value);
  return value;
}

export function checkOneOf<T extends string>(name: string, value: unknown, all: readonly T[]): T {
  if (typeof value !== 'string') throw invalidType(name, 'of type string', value);
  if (!(all as readonly string[]).includes(value))
    throw invalidValue(name, `must be one of ${all.map((one) => `'${one}'`).join(', ')}`, value);
  return value as T;
}

export function checkListOf<T extends string>(
  name: string,
  value: unknown,
  all: readonly T[],
): T[] {
  if (!Array.isArray(value)) throw invalidType(name, 'an instance of Array', value);
  for (const [at, one] of value.entries()) checkOneOf(`${name}[${at}]`, one, all);
  return value;
}

export function checkObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) throw invalidType(name, 'of type object', value);
}

export function checkSignal(name: string, value: unknown): AbortSignal | undefined {
  if (value === undefined || value instanceof AbortSignal) return value;
  throw invalidType(name, 'an instance of AbortSignal', value);
}

export function checkBytes(name: string, value: unknown): Uint8Array {
  if (typeof value === 'string') return Buffer.from(value);
  if (value instanceof Uint8Array) return value;
  throw invalidType(name, 'of type string or an instance of Uint8Array', value);
}
