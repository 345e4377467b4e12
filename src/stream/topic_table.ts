// Who of one thread has subscribed to what, and how a message gets to them: it is encoded once for
// each way in which subscribers want it, and what is long is written by reference. Which messages
// there are, and who else is told, is the business of whoever has the table.

import { MultiloopError } from '../errors.js';
import { checkInteger, checkObject, checkOneOf, invalidType, invalidValue } from '../validate.js';
import type { BevHandlers } from './bev_options.js';
import type { BufferEvent } from './buffer_event.js';

/** Bytes of a topic's name in UTF-8. */
export const TOPIC_BYTES_MAX = 255;

export interface TopicLimits {
  /**
   * Bytes that may wait for a subscriber when there is a message for it: 1 MiB. With more it is
   * slow.
   */
  outputMax?: number;
  /**
   * What becomes of a slow one: 'drop', it misses the message, or 'close', it is cut off. A
   * WebSocket is sent a Close frame of status 1008 if no more than its own `outputMax` waits, and
   * is cut off when the peer has not taken that in closeTimeout.
   */
  slow?: 'drop' | 'close';
  /** Topics of one connection: 1,024; one more is refused with ERR_OUT_OF_RANGE. */
  topicsMax?: number;
}

export type TopicSettings = Required<TopicLimits>;

export function topicSettings(name: string, limits: TopicLimits = {}): TopicSettings {
  checkObject(name, limits);
  const { outputMax = 1024 * 1024, slow = 'drop', topicsMax = 1_024 } = limits;
  checkInteger(`${name}.outputMax`, outputMax, 0);
  checkOneOf(`${name}.slow`, slow, ['drop', 'close']);
  checkInteger(`${name}.topicsMax`, topicsMax, 1, 2 ** 20);
  return { outputMax, slow, topicsMax };
}

/** A message, and what has been made of it for those who want it in another form. */
export class Published {
  /** A string's UTF-8, or bytes. Not to be changed: several streams may refer to them. */
  readonly bytes: Buffer;
  readonly text: boolean;
  /** As a WebSocket's frame, and compressed by the window's bits; made when one needs it. */
  frame: Buffer | undefined = undefined;
  deflated: Map<number, Buffer> | undefined = undefined;

  constructor(bytes: Buffer, text: boolean) {
    this.bytes = bytes;
    this.text = text;
  }
  static of(data: string | Uint8Array): Published {
    if (typeof data === 'string') return new Published(Buffer.from(data), true);
    // The caller may change its own.
    return new Published(Buffer.from(data), false);
  }
}

/** Handlers that write a message in their own form have this. */
export const PUBLISHED = Symbol('multiloop.published');
/** And this, if they end in their own form when they are too slow for what is published. */
export const TOO_SLOW = Symbol('multiloop.tooSlow');
export interface PublishedHandlers extends BevHandlers {
  [PUBLISHED]?(published: Published): void;
  [TOO_SLOW]?(error: MultiloopError): void;
}

/** Lone surrogates have no UTF-8 of their own, and a 0 ends a name in native memory. */
const NOT_A_TOPIC = /[\0\p{Surrogate}]/u;

export function checkTopic(topic: unknown): string {
  if (typeof topic !== 'string') throw invalidType('topic', 'of type string', topic);
  const { length } = topic;
  const long = length > TOPIC_BYTES_MAX / 3 && Buffer.byteLength(topic) > TOPIC_BYTES_MAX;
  if (length === 0 || long || NOT_A_TOPIC.test(topic))
    throw invalidValue(
      'topic',
      `must be 1 to ${TOPIC_BYTES_MAX} bytes of UTF-8 without a 0`,
      topic,
    );
  return topic;
}

/** Belongs to its thread. Topics are those that checkTopic() lets pass. */
export class TopicTable {
  readonly settings: TopicSettings;
  /** Messages written to subscribers, and those that slow ones missed. */
  delivered = 0;
  missed = 0;
  readonly #topics = new Map<string, Set<BufferEvent>>();
  readonly #streams = new Map<BufferEvent, Set<string>>();
  #slow: BufferEvent[] = [];

  constructor(settings: TopicSettings) {
    this.settings = settings;
  }

  /** How many streams have subscribed to anything. */
  get size(): number {
    return this.#streams.size;
  }
  has(topic: string): boolean {
    return this.#topics.has(topic);
  }
  includes(stream: BufferEvent, topic: string): boolean {
    return this.#topics.get(topic)?.has(stream) === true;
  }
  topicsOf(stream: BufferEvent): string[] {
    return [...(this.#streams.get(stream) ?? [])];
  }

  checkRoom(stream: BufferEvent): void {
    const { topicsMax } = this.settings;
    const count = (this.#streams.get(stream)?.size ?? 0) + 1;
    checkInteger('number of topics', count, 1, topicsMax);
  }

  /** Whether it is the topic's first. */
  add(stream: BufferEvent, topic: string): boolean {
    const mine = this.#streams.get(stream);
    if (mine === undefined) this.#streams.set(stream, new Set([topic]));
    else mine.add(topic);
    const all = this.#topics.get(topic);
    if (all !== undefined) {
      all.add(stream);
      return false;
    }
    this.#topics.set(topic, new Set([stream]));
    return true;
  }

  /** Whether it was the topic's last. */
  remove(stream: BufferEvent, topic: string): boolean {
    const mine = this.#streams.get(stream);
    const all = this.#topics.get(topic);
    if (mine?.delete(topic) !== true || all === undefined) return false;
    if (mine.size === 0) this.#streams.delete(stream);
    all.delete(stream);
    if (all.size > 0) return false;
    this.#topics.delete(topic);
    return true;
  }

  /** To every subscriber but `except`. Nothing of the user's runs in here but filters. */
  deliver(topic: string, published: Published, except?: BufferEvent): void {
    const all = this.#topics.get(topic);
    if (all === undefined) return;
    for (const stream of all) if (stream !== except) this.deliverTo(stream, published);
  }

  deliverTo(stream: BufferEvent, published: Published): void {
    if (stream.closed || stream.ended) return;
    const { outputMax, slow } = this.settings;
    if (stream.outputLength > outputMax) {
      this.missed++;
      if (slow === 'close') this.#slow.push(stream);
      return;
    }
    this.delivered++;
    const handlers = stream.handlers as PublishedHandlers;
    if (handlers[PUBLISHED] === undefined) stream.write(published.bytes);
    else handlers[PUBLISHED](published);
  }

  /** Cuts slow ones off. By itself, because their ends are told to handlers. */
  endSlow(): void {
    if (this.#slow.length === 0) return;
    const slow = new Set(this.#slow);
    this.#slow = [];
    for (const stream of slow) {
      const { outputMax } = this.settings;
      const error = new MultiloopError(
        'ERR_SUBSCRIBER_SLOW',
        `${stream._name} took what is published too slowly: more than ${outputMax} bytes waited`,
      );
      const handlers = stream.handlers as PublishedHandlers;
      if (handlers[TOO_SLOW] === undefined) stream.destroy(error);
      else handlers[TOO_SLOW](error);
    }
  }
}
