// What the clients of benches send to a WebSocket server, as bytes (RFC 6455), and how long what it
// sends is.

export const HANDSHAKE = Buffer.from(
  'GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
);

/** A binary message of at most 125 bytes, masked as section 5.2 says. */
export function masked(payload: Uint8Array): Buffer {
  const mask = [1, 2, 3, 4];
  const head = [0x82, 0x80 | payload.length, ...mask];
  return Buffer.from([...head, ...payload.map((byte, i) => byte ^ mask[i & 3])]);
}

/** Of a server's, which is not masked: a head of two bytes. */
export const frameBytes = (payload: number): number => 2 + payload;
