// What is published in a group, on one of its loops: the log that all of them share is read from
// this loop's place on, and written to its own subscribers. native/core/topic_log.h has the log.
//
//   publish() ─► log, one copy ─► the loops that are interested are woken, each once
//   a loop's turn ─► one read for all that is new ─► encoded once ─► every subscriber's output
//
// A connection that moves takes along up to where this loop had read when it left; there it is
// written what is between that and what the other loop has read by then.

import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import {
  checkTopic,
  Published,
  type TopicLimits,
  type TopicSettings,
  TopicTable,
  topicSettings,
} from '../stream/topic_table.js';
import { checkInteger, checkObject, invalidType, outOfRange } from '../validate.js';
import type { Directory } from './directory.js';

export interface TopicOptions extends TopicLimits {
  /**
   * Bytes, and messages, that may wait for the slowest loop that has subscribers: 16 MiB and
   * 65,536. What would be more is published to nobody, and ERR_INBOX_FULL names the loops.
   */
  backlogBytes?: number;
  backlogMax?: number;
  /**
   * Bytes, and messages, that are kept of what all loops have read: 1 MiB and 4,096. While a
   * connection is on its way from one loop to another it is up to the backlog's limits, so what it
   * may miss is what was published beyond those meanwhile.
   */
  keptBytes?: number;
  keptMax?: number;
}

export interface GroupTopicSettings extends TopicSettings {
  backlogBytes: number;
  backlogMax: number;
  keptBytes: number;
  keptMax: number;
}

export function checkTopicOptions(options: TopicOptions = {}): GroupTopicSettings {
  checkObject('options.topics', options);
  const integer = (key: 'backlogBytes' | 'backlogMax' | 'keptBytes' | 'keptMax', most: number) =>
    checkInteger(`options.topics.${key}`, options[key] ?? DEFAULTS[key], 0, most);
  return {
    ...topicSettings('options.topics', options),
    backlogBytes: integer('backlogBytes', 2 ** 32),
    backlogMax: integer('backlogMax', 2 ** 24),
    keptBytes: integer('keptBytes', 2 ** 32),
    keptMax: integer('keptMax', 2 ** 24),
  };
}

const MIB = 1024 * 1024;
const DEFAULTS = {
  backlogBytes: 16 * MIB,
  backlogMax: 65_536,
  keptBytes: MIB,
  keptMax: 4_096,
} as const;

/** Of the core (kTopicBuckets): topics of one bucket wake each other's loops. */
const BUCKETS = 1_024;
function bucketOf(topic: string): number {
  // FNV-1a, over UTF-16 units.
  let hash = 0x811c9dc5;
  for (let i = 0; i < topic.length; i++) hash = Math.imul(hash ^ topic.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % BUCKETS;
}

const TEXT = 1;
/** Bytes before each entry that the core answers: topic_binding.cc, kTopicHead. */
const HEAD_BYTES = 16;

/** What a group's log is, for its loops. */
export interface TopicTask extends GroupTopicSettings {
  log: number;
}

export function openLog(settings: GroupTopicSettings): TopicTask {
  const { backlogBytes, backlogMax, keptBytes, keptMax } = settings;
  const log = native.topicsNew(backlogBytes, backlogMax, keptBytes, keptMax);
  if (log < 0) throw systemError(log, 'topics_new');
  return { ...settings, log };
}

/** Puts a message into a group's log, from the thread of inbox `from`. */
export function append(
  task: TopicTask,
  directory: Directory,
  from: number,
  topic: string,
  data: string | Uint8Array,
  except = 0,
): void {
  checkTopic(topic);
  if (typeof data !== 'string' && !(data instanceof Uint8Array))
    throw invalidType('bytes', 'of type string or an instance of Uint8Array', data);
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  const most = task.backlogBytes - 255;
  if (bytes.length > most) throw outOfRange('bytes.length', `<= ${most}`, bytes.length);
  const flags = typeof data === 'string' ? TEXT : 0;
  const full = native.topicsAppend(task.log, from, bucketOf(topic), flags, except, topic, bytes);
  if (full === true) return;
  const names = (full as number[]).map((inbox) => {
    const loop = directory.loopOf(inbox);
    return loop < 0 ? 'one that retires' : loop;
  });
  throw new MultiloopError(
    'ERR_INBOX_FULL',
    `Nothing was published: what was before it has not been read by loop ${names.join(', ')}`,
  );
}

/** A connection that has come and is not a subscriber yet. */
interface Newcomer {
  from: number;
  topics: readonly string[];
}

/** What a loop's topics know of its connections. */
export interface TopicHost {
  readonly inbox: number;
  readonly directory: Directory;
  /** The connection with this id, if it is here. */
  connection(id: number): (BufferEvent & { readonly id: number }) | undefined;
  addPublished(published: number, delivered: number, missed: number): void;
}

type Subscriber = BufferEvent & { readonly id: number };

export class LoopTopics {
  readonly #task: TopicTask;
  readonly #host: TopicHost;
  readonly #table: TopicTable;
  /** Topics here by bucket, as the log has them for this loop. */
  readonly #buckets = new Map<number, number>();
  readonly #newcomers = new Map<Subscriber, Newcomer>();
  /** Up to here it has read, all written. */
  #place = 0;
  #reading = false;

  constructor(task: TopicTask, host: TopicHost) {
    this.#task = task;
    this.#host = host;
    this.#table = new TopicTable(task);
  }

  /** `except`: the connection that it does not go to. */
  publish(topic: string, data: string | Uint8Array, except = 0): void {
    const { inbox, directory } = this.#host;
    append(this.#task, directory, inbox, topic, data, except);
    this.#count(1);
    // Its own loop is not announced what it publishes.
    this.read();
  }

  subscribe(conn: Subscriber, topic: string): boolean {
    checkTopic(topic);
    if (this.#table.includes(conn, topic) || conn.closed) return false;
    this.#table.checkRoom(conn);
    native.topicsNote(this.#task.log, this.#host.inbox, conn.id, topic, true);
    this.#enter([topic]);
    // What was published before is not for it.
    this.read();
    if (this.#newcomers.has(conn)) this.settle(conn);
    // Of a topic that was there already, it is one more.
    if (!this.#table.add(conn, topic)) this.#exit([topic]);
    return true;
  }

  unsubscribe(conn: Subscriber, topic: string): boolean {
    if (this.#newcomers.has(conn)) this.settle(conn);
    if (!this.#table.includes(conn, topic)) return false;
    native.topicsNote(this.#task.log, this.#host.inbox, conn.id, topic, false);
    if (this.#table.remove(conn, topic)) this.#exit([topic]);
    return true;
  }

  topicsOf(conn: Subscriber): string[] {
    const newcomer = this.#newcomers.get(conn);
    return newcomer === undefined ? this.#table.topicsOf(conn) : [...newcomer.topics];
  }

  /** It is closed, or lives on another loop now. */
  gone(conn: Subscriber, closed: boolean): void {
    const newcomer = this.#newcomers.get(conn);
    const mine = newcomer?.topics ?? this.#table.topicsOf(conn);
    if (mine.length === 0) return;
    this.#newcomers.delete(conn);
    if (closed) native.topicsForget(this.#task.log, conn.id);
    this.#exit(mine.filter((topic) => newcomer !== undefined || this.#table.remove(conn, topic)));
  }

  // ── connections that come and go ──

  /** What a connection takes along: up to where it has everything; undefined: it has no topics. */
  pack(conn: Subscriber): number | undefined {
    const newcomer = this.#newcomers.get(conn);
    if (newcomer !== undefined) return newcomer.from;
    if (this.#table.topicsOf(conn).length === 0) return undefined;
    native.topicsUnderWay(this.#task.log, conn.id, true);
    return this.#place;
  }
  /** It could not leave. */
  stays(conn: Subscriber): void {
    if (this.#table.topicsOf(conn).length > 0)
      native.topicsUnderWay(this.#task.log, conn.id, false);
  }

  /** It comes from another loop; settle() follows when it can be written to. */
  arrive(conn: Subscriber, from: number | undefined, rescued: boolean): void {
    if (from === undefined && !rescued) return;
    const { log } = this.#task;
    const { inbox } = this.#host;
    // The log keeps the place until settle(): this thread may die before, and another goes on.
    const [position, topics] = native.topicsAdopt(log, inbox, conn.id, from ?? 0);
    if (topics.length === 0) return;
    this.#enter(topics);
    this.#newcomers.set(conn, { from: position, topics });
  }

  /** Writes it what has been published on its way here; from now on it is as all others. */
  settle(conn: Subscriber): void {
    if (!this.#newcomers.has(conn)) return;
    this.read();
    const newcomer = this.#newcomers.get(conn);
    if (newcomer === undefined) return;
    this.#newcomers.delete(conn);
    const topics = new Set(newcomer.topics);
    const before = [this.#table.delivered, this.#table.missed];
    for (let { from } = newcomer; from < this.#place; ) {
      const bytes = native.topicsReplay(this.#task.log, from, this.#place);
      this.#each(bytes, (topic, published, except) => {
        if (topics.has(topic) && except !== conn.id) this.#table.deliverTo(conn, published);
      });
      const next = bytes.readDoubleLE(0);
      if (next <= from) break;
      from = next;
    }
    native.topicsUnderWay(this.#task.log, conn.id, false);
    this.#exit(newcomer.topics.filter((topic) => !this.#table.add(conn, topic)));
    this.#counted(before);
    this.#table.endSlow();
  }

  // ── reading ──

  /** Writes what is new to those that are here. */
  read(): void {
    if (this.#reading || this.#buckets.size === 0) return;
    this.#reading = true;
    const { log } = this.#task;
    const { inbox } = this.#host;
    const before = [this.#table.delivered, this.#table.missed];
    try {
      for (;;) {
        const bytes = native.topicsRead(log, inbox, this.#place);
        if (typeof bytes === 'number') {
          this.#place = bytes;
          break;
        }
        this.#each(bytes, (topic, published, except) => {
          const self = except === 0 ? undefined : this.#host.connection(except);
          this.#table.deliver(topic, published, self);
        });
        this.#place = bytes.readDoubleLE(0);
      }
    } finally {
      this.#reading = false;
    }
    this.#counted(before);
    this.#table.endSlow();
  }

  #each(
    bytes: Buffer,
    deliver: (topic: string, published: Published, except: number) => void,
  ): void {
    for (let at = 8; at < bytes.length; ) {
      const length = bytes.readUInt32LE(at);
      const flags = bytes.readUInt16LE(at + 4);
      const name = bytes.readUInt16LE(at + 6);
      const except = bytes.readDoubleLE(at + 8);
      at += HEAD_BYTES;
      const topic = bytes.toString('utf8', at, at + name);
      at += name;
      const payload = bytes.subarray(at, at + length);
      at += length;
      deliver(topic, new Published(payload, (flags & TEXT) !== 0), except);
    }
  }

  // ── what the log knows of this loop ──

  #enter(topics: readonly string[]): void {
    const { log } = this.#task;
    const { inbox } = this.#host;
    if (this.#buckets.size === 0) native.topicsJoin(log, inbox, true);
    for (const topic of topics) {
      const bucket = bucketOf(topic);
      const count = this.#buckets.get(bucket) ?? 0;
      this.#buckets.set(bucket, count + 1);
      if (count === 0) native.topicsInterest(log, inbox, bucket, true);
    }
  }
  #exit(topics: readonly string[]): void {
    const { log } = this.#task;
    const { inbox } = this.#host;
    for (const topic of topics) {
      const bucket = bucketOf(topic);
      const count = (this.#buckets.get(bucket) ?? 0) - 1;
      if (count > 0) this.#buckets.set(bucket, count);
      else if (this.#buckets.delete(bucket)) native.topicsInterest(log, inbox, bucket, false);
    }
    if (topics.length > 0 && this.#buckets.size === 0) native.topicsJoin(log, inbox, false);
  }

  #counted([delivered, missed]: number[]): void {
    const table = this.#table;
    this.#host.addPublished(0, table.delivered - delivered, table.missed - missed);
  }
  #count(published: number): void {
    this.#host.addPublished(published, 0, 0);
  }
}
