// What both sides of a WebSocket agree on about permessage-deflate (RFC 7692 section 7.1), as the
// headers say it: a list of offers, of which the server answers one.

/** How this side of a connection compresses and inflates. It travels with one that moves. */
export interface DeflateAgreement {
  /** What was sent before is context of what is sent next; and the same of what comes. */
  sendContext: boolean;
  receiveContext: boolean;
  /** The windows, as powers of two of bytes: 8 to 15. */
  sendBits: number;
  receiveBits: number;
}

/** What this side wants. */
export interface DeflateWish {
  serverContext: boolean;
  clientContext: boolean;
  serverMaxWindowBits: number;
  clientMaxWindowBits: number;
}

/** RFC 1951's window, and the smallest one that zlib compresses with. */
export const BITS_MAX = 15;
export const SEND_BITS_MIN = 9;
/** Offers of one handshake that are looked at. */
const OFFERS_MAX = 16;
const NAME = 'permessage-deflate';
const SERVER_NO_CONTEXT = 'server_no_context_takeover';
const CLIENT_NO_CONTEXT = 'client_no_context_takeover';
const SERVER_BITS = 'server_max_window_bits';
const CLIENT_BITS = 'client_max_window_bits';

type Parameters = Map<string, string | undefined>;

/** The client: what it asks for. */
export function offerOf(wish: DeflateWish): string {
  const { serverMaxWindowBits: server, clientMaxWindowBits: client } = wish;
  const parts = [NAME];
  if (!wish.serverContext) parts.push(SERVER_NO_CONTEXT);
  if (!wish.clientContext) parts.push(CLIENT_NO_CONTEXT);
  if (server < BITS_MAX) parts.push(`${SERVER_BITS}=${server}`);
  // Without a value it says that the server may set one.
  parts.push(client < BITS_MAX ? `${CLIENT_BITS}=${client}` : CLIENT_BITS);
  return parts.join('; ');
}

/** The server: the first of the client's offers that can be met, and the answer to it. */
export function answerTo(
  header: string,
  wish: DeflateWish,
): { answer: string; agreed: DeflateAgreement } | undefined {
  for (const offer of header.split(',', OFFERS_MAX)) {
    const parameters = parametersOf(offer);
    if (parameters === undefined) continue;
    const sendBits = Math.min(wish.serverMaxWindowBits, bitsOf(parameters, SERVER_BITS));
    if (sendBits < SEND_BITS_MIN) continue;
    // Who does not know the parameter cannot be told a smaller window, but to keep none.
    const limits = parameters.has(CLIENT_BITS);
    const receiveBits = limits
      ? Math.min(wish.clientMaxWindowBits, bitsOf(parameters, CLIENT_BITS))
      : BITS_MAX;
    const agreed: DeflateAgreement = {
      sendContext: wish.serverContext && !parameters.has(SERVER_NO_CONTEXT),
      receiveContext:
        wish.clientContext &&
        !parameters.has(CLIENT_NO_CONTEXT) &&
        receiveBits <= wish.clientMaxWindowBits,
      sendBits,
      receiveBits,
    };
    const parts = [NAME];
    if (!agreed.sendContext) parts.push(SERVER_NO_CONTEXT);
    if (!agreed.receiveContext) parts.push(CLIENT_NO_CONTEXT);
    if (sendBits < BITS_MAX || parameters.has(SERVER_BITS))
      parts.push(`${SERVER_BITS}=${sendBits}`);
    if (receiveBits < BITS_MAX) parts.push(`${CLIENT_BITS}=${receiveBits}`);
    return { answer: parts.join('; '), agreed };
  }
  return undefined;
}

/** The client: what the server's answer says; undefined, it is none to what was offered. */
export function agreementOf(header: string, wish: DeflateWish): DeflateAgreement | undefined {
  const parameters = parametersOf(header);
  if (parameters === undefined) return undefined;
  // In an answer a window has a size (section 7.1.2.2).
  if (parameters.has(CLIENT_BITS) && parameters.get(CLIENT_BITS) === undefined) return undefined;
  const receiveBits = bitsOf(parameters, SERVER_BITS);
  const sendBits = bitsOf(parameters, CLIENT_BITS);
  if (receiveBits > wish.serverMaxWindowBits) return undefined;
  if (parameters.has(CLIENT_BITS) && sendBits > wish.clientMaxWindowBits) return undefined;
  const serverForgets = parameters.has(SERVER_NO_CONTEXT);
  if (!wish.serverContext && !serverForgets) return undefined;
  return {
    sendContext: wish.clientContext && !parameters.has(CLIENT_NO_CONTEXT),
    receiveContext: !serverForgets,
    sendBits: Math.min(sendBits, wish.clientMaxWindowBits),
    receiveBits,
  };
}

function bitsOf(parameters: Parameters, name: string): number {
  return Number(parameters.get(name) ?? BITS_MAX);
}

const isBits = (value: string | undefined): boolean => /^([89]|1[0-5])$/.test(value ?? '');

/** Undefined: another extension, an unknown or malformed parameter, or one that comes twice. */
function parametersOf(offer: string): Parameters | undefined {
  const [name, ...rest] = offer.split(';').map((one) => one.trim());
  if (name.toLowerCase() !== NAME) return undefined;
  const parameters: Parameters = new Map();
  for (const one of rest) {
    const mark = one.indexOf('=');
    const key = (mark < 0 ? one : one.slice(0, mark)).trim().toLowerCase();
    const value =
      mark < 0
        ? undefined
        : one
            .slice(mark + 1)
            .trim()
            .replace(/^"(.*)"$/, '$1');
    if (parameters.has(key) || !isParameter(key, value)) return undefined;
    parameters.set(key, value);
  }
  return parameters;
}

function isParameter(key: string, value: string | undefined): boolean {
  if (key === SERVER_NO_CONTEXT || key === CLIENT_NO_CONTEXT) return value === undefined;
  if (key === SERVER_BITS) return isBits(value);
  return key === CLIENT_BITS && (value === undefined || isBits(value));
}
