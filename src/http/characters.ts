// Which bytes may stand where in a request (RFC 9110 section 5.6, RFC 9112 section 3, RFC 3986),
// as a bit of each: one look-up a byte is all that the common path does.

/** A character of a token: methods and names of headers. */
export const TOKEN = 1;
/** Of a header's value: visible, a space, a tab, or obs-text. */
export const FIELD = 2;
/** Of a request's target: visible ASCII without `#` and what no URI may have. */
export const TARGET = 4;
/** Of a Host header's value: of a host with a port. */
export const HOST = 8;
export const DIGIT = 16;
export const HEX = 32;

export const TAB = 9;
export const LF = 10;
export const CR = 13;
export const SPACE = 32;
export const COLON = 58;
export const SEMICOLON = 59;

const ALPHA_DIGIT = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

export const CLASS = new Uint8Array(256);
function put(text: string, bit: number): void {
  for (let i = 0; i < text.length; i++) CLASS[text.charCodeAt(i)] |= bit;
}
put(`!#$%&'*+-.^_\`|~${ALPHA_DIGIT}`, TOKEN);
put(`-._~%!$&'()*+,;=:[]${ALPHA_DIGIT}`, HOST);
put('0123456789', DIGIT);
put('0123456789abcdefABCDEF', HEX);
for (let byte = 0; byte < 256; byte++) {
  if (byte === TAB || (byte >= SPACE && byte !== 0x7f)) CLASS[byte] |= FIELD;
  // Browsers leave some characters as they are that RFC 3986 wants escaped; no delimiter is
  // among them. A fragment is never sent (RFC 9112 section 3.2).
  if (byte > SPACE && byte < 0x7f && byte !== 0x23) CLASS[byte] |= TARGET;
}

/** The value of a hexadecimal digit. */
export function hexValue(byte: number): number {
  return byte <= 57 ? byte - 48 : (byte | 0x20) - 87;
}

const NOT_TOKEN = /[^!#$%&'*+\-.^_`|~\w]/;
const NOT_FIELD = /[^\t\x20-\x7e\x80-\xff]/;

export const isToken = (text: string): boolean => text !== '' && !NOT_TOKEN.test(text);
export const isFieldValue = (text: string): boolean => !NOT_FIELD.test(text);
