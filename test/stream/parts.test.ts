// Small parts of a stream: what its settings answer, and how it moves to another base.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BufferEvent, Ev, EventBase } from '../../src/index.js';
import { behaviour } from '../event/conformance.js';
import { codeOf } from '../event/support.js';
import { until } from './streams.js';
import { Tape } from './tape.js';

test('getWatermark answers what was set', () => {
  const base = new EventBase();
  const [bev] = BufferEvent.pair(base);
  assert.equal(bev.getWatermark('read'), { low: 0, high: 0 });
  assert.equal(bev.getWatermark('write'), { low: 0, high: 65_536 });
  bev.setWatermark(Ev.READ, 5, 10).setWatermark(Ev.WRITE, 7, 70);
  assert.equal(bev.getWatermark('read'), { low: 5, high: 10 });
  assert.equal(bev.getWatermark('write'), { low: 7, high: 70 });
  bev.setWatermark(Ev.READ | Ev.WRITE, 6);
  assert.equal(bev.getWatermark('read'), { low: 6, high: 10 });
  assert.equal(bev.getWatermark('write'), { low: 6, high: 70 });
  assert.is(
    codeOf(() => bev.setWatermark(Ev.READ, 11)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => bev.getWatermark('both' as 'read')),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.equal(bev.getWatermark('read'), { low: 6, high: 10 });
  base.close();
});

behaviour('maxWrite: no write is longer', async (trial) => {
  const base = trial.base();
  const [fd, other] = trial.pair();
  trial.disown(fd);
  const bev = BufferEvent.socket(base, fd);
  bev.maxWrite = 100;
  assert.is(bev.maxWrite, 100);
  bev.write('x'.repeat(2500));
  // A few writes, and then others are to have their turn.
  const { bytesWritten } = bev;
  assert.ok(bytesWritten > 0 && bytesWritten < 2500 && bytesWritten % 100 === 0, `${bytesWritten}`);
  await until(trial, base, () => bev.outputLength === 0);
  let text = '';
  while (text.length < 2500) text += trial.read(other);
  assert.is(text, 'x'.repeat(2500));
  assert.is(
    codeOf(() => (bev.maxWrite = 0)),
    'ERR_OUT_OF_RANGE',
  );
  bev.maxWrite = Infinity;
  bev.close();
});

behaviour('a stream moves to another base by being made anew there', async (trial) => {
  const base = trial.base();
  const other = trial.base();
  const [fd, end] = trial.pair();
  const first = BufferEvent.socket(base, fd, { closeFd: false });
  first.write('one ');
  first.close();
  const mine = new Tape();
  const second = BufferEvent.socket(other, fd, { handlers: mine }).enable(Ev.READ);
  trial.disown(fd);
  second.write('two');
  assert.is(trial.read(end), 'one two');
  trial.write(end, 'back');
  await until(trial, other, () => mine.text === 'back');
  assert.is(second.base, other);
  second.close();
  assert.is(await trial.run(base), 'empty');
});

test.run();
