// Filters that are Node's transforms, zlib's above all.

import { PassThrough, Transform } from 'node:stream';
import zlib from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  BufferEvent,
  Ev,
  EventBase,
  RateLimit,
  transformFilter,
  type ZlibFormat,
  zlibFilter,
} from '../../src/index.js';
import { asynchronous, behaviour, type Trial } from '../event/conformance.js';
import { codeOf, thrownBy } from '../event/support.js';
import { pairOf, socketsOf, Tape } from './tape.js';

const FORMATS: ZlibFormat[] = ['gzip', 'deflate', 'deflate-raw', 'brotli'];
const compressed = {
  gzip: zlib.gzipSync,
  deflate: zlib.deflateSync,
  'deflate-raw': zlib.deflateRawSync,
  brotli: zlib.brotliCompressSync,
};
const decompressed = {
  gzip: zlib.gunzipSync,
  deflate: zlib.inflateSync,
  'deflate-raw': zlib.inflateRawSync,
  brotli: zlib.brotliDecompressSync,
};

/** Text that compresses to about a third. */
function prose(bytes: number): string {
  let text = '';
  for (let i = 0; text.length < bytes; i++) text += `${(i * 7919) % 10_007} green bottles, `;
  return text.slice(0, bytes);
}

/** Runs the base until what is told there calls `stop`; nothing else keeps its loop. */
async function running(trial: Trial, base: EventBase, body: (stop: () => void) => void) {
  let loop: Promise<unknown> | undefined;
  await new Promise<void>((resolve, reject) => {
    body(resolve);
    // Until stopped: zlib's work alone has to keep the loop going.
    loop = trial.run(base);
    loop.then((how) => reject(new Error(`the loop ended: ${how}`)), reject);
  });
  base.loopBreak();
  await loop;
}

/** A tape that calls `onTold` when it has been told something. */
class Watched extends Tape {
  onTold: (tape: Watched) => void = () => undefined;
  override read(bev: BufferEvent): void {
    super.read(bev);
    this.onTold(this);
  }
  override event(...args: Parameters<Tape['event']>): void {
    super.event(...args);
    this.onTold(this);
  }
}

for (const format of FORMATS) {
  behaviour(
    `${format}: both directions between two streams, to the end`,
    async (trial) => {
      for (const ends of [pairOf, socketsOf]) {
        const { base, near, far } = ends(trial);
        const [mine, other] = [new Watched(), new Watched()];
        const top = BufferEvent.filter(near, zlibFilter(format), { handlers: mine });
        const peer = BufferEvent.filter(far, zlibFilter(format), { handlers: other });
        top.enable(Ev.READ);
        peer.enable(Ev.READ);
        // Brotli's default quality is made for files.
        const bytes = format === 'brotli' ? 30_000 : 300_000;
        const [there, back] = [prose(bytes), prose(30_000)];
        top.end(there);
        peer.write(back.slice(0, 100));
        peer.end(back.slice(100));
        await running(trial, base, (stop) => {
          const check = () => {
            if (mine.told.includes('eof read') && other.told.includes('eof read')) stop();
          };
          mine.onTold = other.onTold = check;
        });
        assert.ok(other.text === there && mine.text === back);
        assert.equal([top.bytesWritten, top.bytesRead], [bytes, 30_000]);
        assert.ok(near.bytesWritten < bytes / 2, `${near.bytesWritten}`);
        top.close();
        peer.close();
        base.close();
      }
    },
    asynchronous,
  );

  behaviour(
    `${format}: what one pass writes arrives, as anybody's zlib reads it`,
    async (trial) => {
      const { base, near, far } = socketsOf(trial);
      const other = new Watched();
      far.handlers = other;
      const top = BufferEvent.filter(near, zlibFilter(format));
      const peer = BufferEvent.filter(far, zlibFilter(format), { handlers: other });
      peer.enable(Ev.READ);
      let rounds = 0;
      top.write('message 0;');
      await running(trial, base, (stop) => {
        other.onTold = () => {
          rounds++;
          if (rounds === 5) stop();
          else top.write(`message ${rounds};`);
        };
      });
      assert.is(other.text, [0, 1, 2, 3, 4].map((i) => `message ${i};`).join(''));
      top.close();
      peer.close();
    },
    asynchronous,
  );

  behaviour(
    `${format}: ends too early, is not of the format, goes on after its end`,
    async (trial) => {
      const whole = compressed[format](prose(5000));
      const cases: [name: string, data: Buffer, expected: RegExp][] = [
        ['truncated', whole.subarray(0, -1), /^Z_BUF_ERROR read$/],
        ['cut in its middle', whole.subarray(0, whole.length >> 1), /^Z_BUF_ERROR read$/],
        ['nothing at all', whole.subarray(0, 0), /^eof read$/],
        [
          'followed by garbage',
          Buffer.concat([whole, Buffer.from('garbage')]),
          format === 'gzip' ? /^Z_DATA_ERROR read$/ : /^ERR_FILTER_TRAILING read$/,
        ],
      ];
      // Raw deflate has no header to be wrong; this is a block of the type that there is not.
      const wrong = Buffer.from(
        format === 'brotli' ? [0xff, 0xff, 0xff, 0xff] : [0x07, 0xff, 0xff],
      );
      cases.push(['not of the format', wrong, /^(Z_DATA_ERROR|ERR_\w+) read$/]);
      for (const [name, data, expected] of cases) {
        const { base, near, far } = socketsOf(trial);
        const mine = new Watched();
        const filter = BufferEvent.filter(near, zlibFilter(format), { handlers: mine });
        filter.enable(Ev.READ);
        if (data.length > 0) far.write(data);
        far.end();
        await running(trial, base, (stop) => {
          mine.onTold = ({ told }) => {
            if (told.some((one) => one.endsWith(' read'))) stop();
          };
        });
        assert.match(mine.told.at(-1) as string, expected, name);
        assert.is(filter.enabled & Ev.READ, 0);
        filter.close();
        far.close();
        base.close();
      }
    },
    { ...asynchronous, backends: ['epoll'] },
  );
}

behaviour(
  'what Node writes is read, in any pieces, and what is written Node reads',
  async (trial) => {
    for (const format of FORMATS) {
      const { base, near, far } = pairOf(trial);
      const text = prose(20_000);
      const data = compressed[format](text);
      const [mine, other] = [new Watched(), new Watched()];
      far.handlers = other;
      const top = BufferEvent.filter(near, zlibFilter(format), { handlers: mine }).enable(Ev.READ);
      for (let at = 0; at < data.length; at += 97) far.write(data.subarray(at, at + 97));
      far.end();
      top.end(text);
      await running(trial, base, (stop) => {
        mine.onTold = other.onTold = () => {
          if (mine.told.includes('eof read') && other.told.includes('eof read')) stop();
        };
      });
      assert.ok(mine.text === text);
      assert.ok(decompressed[format](Buffer.from(other.text, 'latin1')).toString() === text);
      top.close();
      far.close();
      base.close();
    }
  },
  asynchronous,
);

behaviour(
  'gzip: several members are one stream',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const mine = new Watched();
    const top = BufferEvent.filter(near, zlibFilter('gzip'), { handlers: mine }).enable(Ev.READ);
    far.write(zlib.gzipSync('one '));
    far.write(zlib.gzipSync('two'));
    far.end();
    await running(trial, base, (stop) => {
      mine.onTold = ({ told }) => told.includes('eof read') && stop();
    });
    assert.is(mine.text, 'one two');
    top.close();
    far.close();
  },
  asynchronous,
);

behaviour(
  'a bomb is an error when nobody takes what it gives',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const mine = new Watched();
    const filter = zlibFilter('gzip', { maxHeld: 1_000_000 });
    const top = BufferEvent.filter(near, filter);
    top.enable(Ev.READ);
    let most = 0;
    far.write(zlib.gzipSync(Buffer.alloc(50_000_000)));
    await running(trial, base, (stop) => {
      mine.onTold = () => stop();
      top.handlers = {
        read: (bev) => {
          most = Math.max(most, bev.inputLength);
        },
        event: (...args) => mine.event(...args),
      };
    });
    assert.equal(mine.told, ['ERR_FILTER_HELD read']);
    assert.ok(most <= 1_000_000 + 100_000, `${most}`);
    assert.ok(top.inputLength <= 1_000_000 + 100_000, `${top.inputLength}`);
    top.close();
    far.close();
  },
  asynchronous,
);

behaviour(
  'with a high watermark it waits instead, and goes on when it is drained',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const total = 5_000_000;
    const filter = zlibFilter('deflate', { maxHeld: 1_000_000 });
    const top = BufferEvent.filter(near, filter).setWatermark(Ev.READ, 0, 100_000);
    top.enable(Ev.READ);
    let most = 0;
    let got = 0;
    far.write(zlib.deflateSync(Buffer.alloc(total)));
    far.end();
    await running(trial, base, (stop) => {
      top.handlers = {
        read: (bev) => {
          most = Math.max(most, bev.inputLength);
          got += bev.inputLength;
          const { length } = bev.input;
          // Not inside the callback, so that it does stop in between.
          base.once(-1, Ev.TIMEOUT, () => bev.input.drain(length), 0);
        },
        event: (_, { eof }) => eof === true && stop(),
      };
    });
    assert.ok(most <= 100_000 + 70_000, `${most}`);
    assert.ok(got >= total, `${got}`);
    assert.is(top.bytesRead, total);
    top.close();
    far.close();
  },
  asynchronous,
);

behaviour(
  'a slow stream below holds the compressor',
  async (trial) => {
    const { base, near, far, tape } = socketsOf(trial);
    near.setWatermark(Ev.WRITE, 0, 10_000);
    near.setRateLimit(new RateLimit({ write: 4_000_000, tick: 5 }));
    const stored = zlibFilter('deflate', { compress: { level: 0 } });
    const top = BufferEvent.filter(near, stored);
    const text = prose(400_000);
    let most = 0;
    let sent = 0;
    const chunk = 10_000;
    const feed = () => {
      most = Math.max(most, near.outputLength + top.outputLength);
      while (sent < text.length) {
        const more = top.write(text.slice(sent, sent + chunk));
        sent += chunk;
        if (!more) return;
      }
      top.end();
    };
    top.handlers = { write: feed };
    await running(trial, base, (stop) => {
      const { event } = tape;
      tape.event = (...args) => {
        event.apply(tape, args);
        stop();
      };
      feed();
    });
    const all = zlib.inflateSync(Buffer.from(tape.text, 'latin1')).toString();
    assert.ok(all === text);
    assert.ok(most <= 300_000, `${most}`);
    top.close();
    far.close();
  },
  asynchronous,
);

behaviour(
  'without autoFlush only flush() and end() bring it out',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const other = new Watched();
    const peer = BufferEvent.filter(far, zlibFilter('gzip'), { handlers: other }).enable(Ev.READ);
    const top = BufferEvent.filter(near, zlibFilter('gzip', { autoFlush: false }));
    top.write('held back');
    assert.is(await trial.run(base), 'empty', 'the loop ends when zlib has nothing to do');
    assert.is(other.text, '');
    top.flush(Ev.WRITE, 'flush');
    await running(trial, base, (stop) => {
      other.onTold = () => stop();
    });
    assert.is(other.text, 'held back');
    top.flush(Ev.WRITE, 'finished');
    await running(trial, base, (stop) => {
      other.onTold = () => stop();
    });
    assert.equal(other.told.at(-1), 'eof read');
    top.close();
    peer.close();
  },
  asynchronous,
);

behaviour(
  'any transform will do, and a direction may be left out',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const other = new Watched();
    far.handlers = other;
    const doubling = new Transform({
      transform(chunk, _, done) {
        setImmediate(() => done(null, `${chunk}${chunk}`));
      },
      flush(done) {
        done(null, '!');
      },
    });
    const mine = new Watched();
    const filter = transformFilter({ output: doubling });
    const top = BufferEvent.filter(near, filter, { handlers: mine }).enable(Ev.READ);
    far.write('plain');
    top.end('ab');
    await running(trial, base, (stop) => {
      other.onTold = ({ told }) => told.includes('eof read') && stop();
    });
    assert.is(other.text, 'abab!');
    assert.is(mine.text, 'plain');
    top.close();
    assert.ok(doubling.destroyed);
    far.close();
  },
  asynchronous,
);

behaviour(
  'a transform that fails or is destroyed fails its direction',
  async (trial) => {
    for (const how of ['throws', 'fails', 'destroyed'] as const) {
      const { base, near, far } = pairOf(trial);
      const mine = new Watched();
      const failing = new Transform({
        transform(_chunk, _encoding, done) {
          if (how === 'throws') throw new Error('thrown');
          if (how === 'fails') done(new Error('failed'));
          else failing.destroy();
        },
      });
      const output = new PassThrough();
      const top = BufferEvent.filter(near, transformFilter({ input: failing, output }), {
        handlers: mine,
      }).enable(Ev.READ);
      far.write('x');
      await running(trial, base, (stop) => {
        mine.onTold = () => stop();
      });
      const expected = {
        throws: 'thrown read',
        fails: 'failed read',
        destroyed: 'ERR_FILTER_FAILED read',
      };
      assert.equal(mine.told, [expected[how]]);
      assert.is(top.enabled, Ev.WRITE);
      top.close();
      assert.ok(output.destroyed && failing.destroyed);
      far.close();
      base.close();
    }
  },
  asynchronous,
);

behaviour(
  'closing while zlib works leaves nothing behind',
  async (trial) => {
    for (const how of ['close', 'destroy'] as const) {
      const { base, near, far } = socketsOf(trial);
      const mine = new Watched();
      const top = BufferEvent.filter(near, zlibFilter('gzip'), { handlers: mine }).enable(Ev.READ);
      far.write(zlib.gzipSync(Buffer.alloc(3_000_000)));
      top.write(prose(500_000));
      await running(trial, base, (stop) => {
        mine.onTold = () => stop();
      });
      top[how]();
      far.close();
      assert.is(await trial.run(base), 'empty');
      assert.is([...base.events()].length, 0);
      base.close();
    }
  },
  asynchronous,
);

test('a reset is told as what it is, not as the truncation that it causes', async () => {
  const base = new EventBase({ drive: 'libuv' });
  const [near, far] = BufferEvent.pair(base);
  const mine = new Watched();
  const top = BufferEvent.filter(near, zlibFilter('gzip'), { handlers: mine }).enable(Ev.READ);
  far.write(zlib.gzipSync(prose(1000)).subarray(0, 100));
  far.destroy(new Error('cut'));
  const told = new Promise<void>((resolve) => {
    mine.onTold = ({ told }) => told.at(-1)?.endsWith(' read') && resolve();
  });
  const loop = base.loop();
  await told;
  await loop;
  assert.is(mine.told.at(-1), 'ERR_PARTNER_GONE read');
  top.close();
  base.close();
});

test('bad input', () => {
  const base = new EventBase();
  const [near, far] = BufferEvent.pair(base);
  assert.is(
    codeOf(() => zlibFilter('zip' as 'gzip')),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(
    codeOf(() => zlibFilter('gzip', { maxHeld: 0 })),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => zlibFilter('gzip', { autoFlush: 1 as never })),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => zlibFilter('gzip', { compress: { level: 99 } })),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => transformFilter(undefined as never)),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => transformFilter({ input: {} as never })),
    'ERR_INVALID_ARG_TYPE',
  );
  const objects = new PassThrough({ objectMode: true });
  assert.is(
    codeOf(() => transformFilter({ input: objects })),
    'ERR_INVALID_ARG_VALUE',
  );
  const filter = zlibFilter('gzip');
  const top = BufferEvent.filter(near, filter);
  assert.match(thrownBy(() => BufferEvent.filter(far, filter)).message, /another stream/);
  assert.is(far.closed, false);
  BufferEvent.filter(far, {}).close();
  top.close();
  base.close();
});

test.run();
