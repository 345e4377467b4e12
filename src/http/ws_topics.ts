// Topics of WebSockets: on each thread a message is framed once, and compressed once for all who
// have agreed on that without context between messages. Under serve() topics are the group's;
// without it, the server's own.

import { checkTopic, Published, TopicTable, topicSettings } from '../stream/topic_table.js';
import type { WebSocket } from './websocket.js';
import type { Deflate } from './ws_deflate.js';
import { FIN, frameOf, Opcode, RSV1 } from './ws_frames.js';

/** Who knows which WebSockets have subscribed to what. */
export interface TopicHub {
  subscribe(ws: WebSocket, topic: string): boolean;
  unsubscribe(ws: WebSocket, topic: string): boolean;
  publish(topic: string, data: string | Uint8Array, except: WebSocket | undefined): void;
  topicsOf(ws: WebSocket): string[];
  /** It is over. Under serve() its connection is, which says so itself. */
  gone?(ws: WebSocket): void;
}

/**
 * The bytes of a message as a server sends it: plain if that is shorter. Compressed without context
 * between messages it is the same for all with one size of window; with it, each one's own.
 */
export function framed(published: Published, deflate: Deflate | undefined): Buffer {
  if (deflate === undefined) {
    published.frame ??= frameOf(FIN | opcodeOf(published), published.bytes);
    return published.frame;
  }
  const bits = deflate.sharedBits;
  const made = published.deflated?.get(bits);
  if (made !== undefined) return made;
  const packed = deflate.pack(published.bytes);
  const frame =
    packed === undefined
      ? framed(published, undefined)
      : frameOf(FIN | RSV1 | opcodeOf(published), packed);
  if (bits > 0) {
    published.deflated ??= new Map();
    published.deflated.set(bits, frame);
  }
  return frame;
}
const opcodeOf = ({ text }: Published): number => (text ? Opcode.TEXT : Opcode.BINARY);

/** Of a server that is not under serve(): its own WebSockets, on its own thread. */
export class OwnTopics implements TopicHub {
  readonly #table = new TopicTable(topicSettings('topics'));

  subscribe(ws: WebSocket, topic: string): boolean {
    checkTopic(topic);
    const { stream } = ws;
    if (stream.closed || this.#table.includes(stream, topic)) return false;
    this.#table.checkRoom(stream);
    this.#table.add(stream, topic);
    return true;
  }
  unsubscribe({ stream }: WebSocket, topic: string): boolean {
    const there = this.#table.includes(stream, topic);
    this.#table.remove(stream, topic);
    return there;
  }
  publish(topic: string, data: string | Uint8Array, except: WebSocket | undefined): void {
    checkTopic(topic);
    this.#table.deliver(topic, Published.of(data), except?.stream);
    this.#table.endSlow();
  }
  topicsOf({ stream }: WebSocket): string[] {
    return this.#table.topicsOf(stream);
  }
  gone({ stream }: WebSocket): void {
    for (const topic of this.#table.topicsOf(stream)) this.#table.remove(stream, topic);
  }
}
