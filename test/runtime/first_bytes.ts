// First bytes of connections, made by hand: what no client would send too.

import { spawnSync } from 'node:child_process';

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

/** With its length in front, in so many bytes. */
function vector(size: 1 | 2 | 3, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(size);
  length.writeUIntBE(body.length, 0, size);
  return Buffer.concat([length, body]);
}

interface Hello {
  sni?: string;
  /** Several names of a host in one list, which is forbidden. */
  names?: string[];
  alpn?: string[];
  versions?: number[];
  extra?: [type: number, data: Buffer][];
  /** Behind the extensions. */
  behind?: Buffer;
  /** No extensions at all, as before TLS 1.2. */
  bare?: boolean;
  /** Bytes of the message that are left. */
  cut?: number;
}

export function clientHello(hello: Hello): Buffer {
  const text = (value: string) => Buffer.from(value, 'latin1');
  const names = hello.names ?? (hello.sni === undefined ? undefined : [hello.sni]);
  const extensions: [number, Buffer][] = [];
  if (names !== undefined) {
    const list = names.map((name) => Buffer.concat([Buffer.from([0]), vector(2, text(name))]));
    extensions.push([0, vector(2, ...list)]);
  }
  if (hello.alpn !== undefined)
    extensions.push([16, vector(2, ...hello.alpn.map((name) => vector(1, text(name))))]);
  if (hello.versions !== undefined) {
    const list = hello.versions.map((version) => Buffer.from([version >> 8, version & 0xff]));
    extensions.push([43, vector(1, ...list)]);
  }
  extensions.push([0xfa_fa, Buffer.alloc(3)], ...(hello.extra ?? []));
  const encoded = extensions.map(([type, data]) =>
    Buffer.concat([Buffer.from([type >> 8, type & 0xff]), vector(2, data)]),
  );
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32, 7),
    vector(1, Buffer.alloc(32, 8)),
    vector(2, Buffer.from([0x13, 1])),
    vector(1, Buffer.alloc(1)),
    ...(hello.bare === true ? [] : [vector(2, ...encoded)]),
    hello.behind ?? Buffer.alloc(0),
  ]).subarray(0, hello.cut);
  return record(Buffer.concat([Buffer.from([1]), vector(3, body)]));
}

const record = (payload: Uint8Array) =>
  Buffer.concat([Buffer.from([22, 3, 1]), vector(2, payload)]);

/** A ClientHello of one record, in records of `size` bytes. */
export function fragmented(hello: Uint8Array, size: number): Buffer {
  const records: Buffer[] = [];
  for (let at = 5; at < hello.length; at += size)
    records.push(record(hello.subarray(at, at + size)));
  return Buffer.concat(records);
}

export const proxyV1 = (line: string): Buffer => Buffer.from(`PROXY ${line}\r\n`, 'latin1');

export function proxyV2(command: number, family: number, rest: Buffer): Buffer {
  const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
  return Buffer.concat([signature, Buffer.from([0x20 | command, family]), vector(2, rest)]);
}
