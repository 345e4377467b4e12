// Keys of TLS 1.3 that change while data flows, between ourselves and against OpenSSL's own tools.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as assert from 'uvu/assert';
import { Ev, type SocketStream } from '../../src/index.js';
import { codeOf } from '../event/support.js';
import { patterned, until } from './rig.js';
import { client, type End, server, type TlsRig, tlsSuite } from './tls_rig.js';

const { test, run } = tlsSuite('key updates');
const MESSAGES = 400;
/** Numbered and of many lengths, some longer than a record. */
const message = (number: number) => `${number}:${'m'.repeat((number * 7_919) % 20_000)}\n`;

/** Each writes numbered messages as the other's come, and changes keys at some of them. */
async function talk(near: End, far: End): Promise<void> {
  const ends = [near, far].map((end, which) => {
    let heard = '';
    let expected = 0;
    let next = 0;
    const say = () => {
      if (next === MESSAGES) return;
      const number = next++;
      end.bev.write(message(number));
      if (number % 10 === which) end.bev.updateKeys({ peer: number % 20 === which });
      // Twice without anything between them, and after what is written.
      if (number % 50 === 25) end.bev.updateKeys();
    };
    end.bev.handlers = {
      read: (bev) => {
        heard += Buffer.from(bev.input.remove(bev.input.length)).toString('latin1');
        for (let at = heard.indexOf('\n'); at >= 0; at = heard.indexOf('\n')) {
          assert.is(heard.slice(0, at + 1), message(expected), `message ${expected}`);
          heard = heard.slice(at + 1);
          expected++;
          say();
        }
      },
      event: (bev, event) => end.event(bev, event),
    };
    return { say, done: () => expected === MESSAGES };
  });
  for (const { say } of ends) for (let i = 0; i < 5; i++) say();
  await until(() => ends.every(({ done }) => done()) || near.errors.length + far.errors.length > 0);
  assert.equal([...near.errors, ...far.errors], []);
}

for (const kind of ['pair', 'sockets', 'TLS over a socket'])
  test(`${kind}: numbered messages both ways`, async (rig) => {
    const { near, far } = await rig.open(kind);
    await talk(near, far);
    near.bev.end();
    far.bev.end();
    assert.is(await near.nth(1), 'eof read');
    assert.is(await far.nth(1), 'eof read');
  });

async function direct(rig: TlsRig): Promise<{ near: End; far: End }> {
  const { port, accepted } = rig.listenOne(server);
  const near = rig.connect(port);
  const far = await accepted;
  assert.is(await near.nth(), 'connected');
  assert.is(await far.nth(), 'connected');
  return { near, far };
}

test('directly on sockets: numbered messages both ways', async (rig) => {
  const { near, far } = await direct(rig);
  await talk(near, far);
});

test('on a socket that is full, keys are changed when it is not', async (rig) => {
  const { near, far } = await direct(rig);
  far.keeps = false;
  far.bev.disable(Ev.READ);
  const piece = patterned(100_000);
  let sent = 0;
  while (near.bev.outputLength === 0 || sent < 3_000_000) {
    near.bev.write(piece);
    sent += piece.length;
  }
  near.bev.updateKeys({ peer: true });
  near.bev.updateKeys();
  near.bev.end('last');
  far.bev.enable(Ev.READ);
  far.bev.write('answer with new keys');
  assert.is(await far.nth(1), 'eof read');
  assert.is(far.bytes, sent + 4);
  await until(() => near.text === 'answer with new keys');
  far.bev.end();
  assert.is(await near.nth(1), 'eof read');
});

test('a peer that asks for keys and reads no answers is read no further', async (rig) => {
  const { near, far, under } = await rig.open('pair');
  // What this side answers piles up below it.
  under[0].disable(Ev.READ);
  const asks = 6_000;
  for (let i = 0; i < asks; i++) near.bev.updateKeys({ peer: true });
  near.bev.write('after all that');
  await until(() => under[1].outputLength > 64 * 1024);
  assert.ok(under[1].outputLength < 128 * 1024, `${under[1].outputLength}`);
  assert.is(far.text, '');
  under[0].enable(Ev.READ);
  await until(() => far.text !== '');
  assert.is(far.text, 'after all that');
  far.bev.write('and back');
  await until(() => near.text === 'and back');
});

test('there is no key update without TLS 1.3, or before the handshake is done', async (rig) => {
  const { near, far } = await rig.open('pair', server, { ...client, maxVersion: 'TLSv1.2' });
  assert.is(
    codeOf(() => near.bev.updateKeys()),
    'ERR_TLS_CONFIG',
  );
  far.bev.close();
  far.bev.updateKeys();
  const early = rig.both('pair');
  assert.is(
    codeOf(() => early.near.bev.updateKeys()),
    'ERR_TLS_CONFIG',
  );
  assert.is(await early.near.nth(), 'connected');
  assert.is(
    codeOf(() => early.near.bev.updateKeys({ peer: 1 as unknown as boolean })),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => early.near.bev.updateKeys(5 as unknown as object)),
    'ERR_INVALID_ARG_TYPE',
  );
  for (const one of rig.pairs.sockets() as unknown[] as SocketStream[]) {
    rig.own(one);
    assert.is(
      codeOf(() => one.updateKeys()),
      'ERR_TLS_CONFIG',
    );
  }
});

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
if (!hasOpenssl) console.log('Skipped: openssl s_client: there is no openssl here');
else {
  const tool = (rig: TlsRig, args: string[]) => {
    const child = spawn('openssl', args, { stdio: 'pipe' });
    const heard = { out: '', log: '' };
    child.stdout.on('data', (data) => {
      heard.out += data;
    });
    child.stderr.on('data', (data) => {
      heard.log += data;
    });
    child.stdin.on('error', () => undefined);
    rig.atEnd(async () => {
      child.kill();
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
    });
    return { child, heard };
  };
  const times = (text: string, part: string) => text.split(part).length - 1;

  test('openssl s_client changes its keys, and asks for ours', async (rig) => {
    const { port, accepted } = rig.listenOne(server);
    const { child, heard } = tool(rig, ['s_client', '-connect', `127.0.0.1:${port}`, '-tls1_3']);
    const near = await accepted;
    assert.is(await near.nth(), 'connected');
    await until(() => heard.out.includes('---'));
    let expected = '';
    for (let i = 0; i < 20; i++) {
      child.stdin.write(i % 2 === 0 ? 'K\n' : 'k\n');
      await until(() => times(heard.log, 'KEYUPDATE') === i + 1);
      child.stdin.write(`line ${i}\n`);
      expected += `line ${i}\n`;
      await until(() => near.text === expected || near.errors.length > 0);
      assert.equal(near.errors, []);
      near.bev.write(`answer ${i};`);
      await until(() => heard.out.includes(`answer ${i};`));
      near.bev.updateKeys({ peer: i % 3 === 0 });
    }
    near.bev.close();
  });

  test('openssl s_server changes its keys, and asks for ours', async (rig) => {
    const files = ['-cert', 'test/tls/localhost.pem', '-key', 'test/tls/localhost-key.pem'];
    const { child, heard } = tool(rig, ['s_server', '-accept', '127.0.0.1:0', '-tls1_3', ...files]);
    const listening = () => /ACCEPT [^\n]*:(\d+)\n/.exec(heard.out)?.[1];
    await until(() => listening() !== undefined || child.exitCode !== null);
    const near = rig.connect(Number(listening()));
    assert.is(await near.nth(), 'connected');
    let expected = '';
    for (let i = 0; i < 20; i++) {
      near.bev.updateKeys({ peer: i % 3 === 0 });
      near.bev.write(`question ${i};\n`);
      await until(() => heard.out.includes(`question ${i};`));
      child.stdin.write(i % 2 === 0 ? 'K\n' : 'k\n');
      // It looks at its input before it looks at us.
      near.bev.write(`mark ${i};\n`);
      await until(() => heard.out.includes(`mark ${i};`));
      child.stdin.write(`line ${i}\n`);
      expected += `line ${i}\n`;
      await until(() => near.text === expected || near.errors.length > 0);
      assert.equal(near.errors, []);
    }
    near.bev.close();
    await until(() => times(heard.out, 'SSL_do_handshake -> 1') === 20);
  });
}

run();
