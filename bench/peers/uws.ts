// uWebSockets for Node, as npm's package `uwebsockets` has it: prebuilt for a number of systems and
// versions of Node, and nothing is run to install it.

import { createRequire } from 'node:module';
import { fromNpm } from './from_npm.js';

const VERSION = '3.0.6';

/** As much of it as the bench needs; strings come and go as ArrayBuffers too. */
export interface UwsResponse {
  writeHeader(name: string, value: string): UwsResponse;
  end(body: string | Uint8Array): UwsResponse;
  onData(callback: (chunk: ArrayBuffer, isLast: boolean) => void): UwsResponse;
  onAborted(callback: () => void): UwsResponse;
}
export interface UwsSocket {
  send(message: ArrayBuffer, isBinary: boolean): number;
  subscribe(topic: string): boolean;
}
export interface UwsApp {
  get(path: string, handler: (response: UwsResponse) => void): UwsApp;
  post(path: string, handler: (response: UwsResponse) => void): UwsApp;
  ws(
    path: string,
    behavior: { message(ws: UwsSocket, message: ArrayBuffer, isBinary: boolean): void },
  ): UwsApp;
  publish(topic: string, message: ArrayBuffer, isBinary: boolean): boolean;
  listen(host: string, port: number, listening: (socket: object | false) => void): UwsApp;
}
export interface Uws {
  App(): UwsApp;
  SSLApp(options: { cert_file_name: string; key_file_name: string }): UwsApp;
  us_socket_local_port(socket: object): number;
}

/** The package's folder, or why there is none that this Node can load. */
export function findUws(fetch: boolean): { path: string } | { missing: string } {
  const found = fromNpm('uwebsockets', VERSION, 'peers-uws', fetch);
  if ('missing' in found) return found;
  try {
    loadUws(found.path);
    return found;
  } catch (error) {
    return { missing: `it does not load here: ${(error as Error).message.replaceAll('\n', ' ')}` };
  }
}

export function loadUws(path: string): Uws {
  return createRequire(import.meta.url)(path) as Uws;
}
