// What Duplexes are for: Node's http and tls, ws, pipelines and web streams over our streams, each
// with a real client or server of Node's at the other end.

import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { Duplex, Readable, Transform } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import tls from 'node:tls';
import { createGunzip, createGzip } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import WebSocket, { WebSocketServer } from 'ws';
import { BufferEvent, type DuplexAdapter } from '../../src/index.js';
import { openDescriptors, PATIENCE_MS, within } from '../event/support.js';
import {
  closed,
  drives,
  onEach,
  patterned,
  type Rig,
  randomNumbers,
  textOf,
  turns,
  until,
} from './rig.js';

const MIB = 1024 * 1024;
const nothing = () => undefined;

// ── http ────────────────────────────────────────────────────────────────────────────────────────

/** A server of Node's whose connections are ours, on that port. */
function httpServer(rig: Rig, onRequest: http.RequestListener) {
  const server = http.createServer(onRequest);
  const sockets: DuplexAdapter[] = [];
  const port = rig.listenDuplex((near) => {
    sockets.push(near);
    server.emit('connection', near);
  });
  rig.atEnd(() => server.close());
  return { server, sockets, port };
}

interface Answer {
  status: number | undefined;
  headers: http.IncomingHttpHeaders;
  body: string;
}
async function answerTo(request: http.ClientRequest): Promise<Answer> {
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  return {
    status: response.statusCode,
    headers: response.headers,
    body: await textOf(response as never),
  };
}

/** What the server below answers to a body. */
const echo: http.RequestListener = (request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () =>
    response.end(`${request.method} ${request.url} ${Buffer.concat(chunks)}`),
  );
};

onEach(drives, 'http: a hundred requests on one connection, one after the other', async (rig) => {
  const { port, sockets } = httpServer(rig, echo);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  rig.atEnd(() => agent.destroy());
  for (let i = 0; i < 100; i++) {
    const request = http.request({ port, host: '127.0.0.1', agent, path: `/${i}`, method: 'PUT' });
    request.end(`body ${i}`);
    assert.is((await answerTo(request)).body, `PUT /${i} body ${i}`);
  }
  assert.is(sockets.length, 1);
});

onEach(drives, 'http: a hundred requests in one piece', async (rig) => {
  const { port } = httpServer(rig, echo);
  const far = rig.own(net.connect(port, '127.0.0.1'));
  const requests = Array.from({ length: 100 }, (_, i) => {
    const last = i === 99 ? 'Connection: close\r\n' : '';
    return `GET /${i} HTTP/1.1\r\nHost: x\r\n${last}\r\n`;
  });
  far.write(requests.join(''));
  const answers = (await textOf(far)).match(/GET \/\d+ /g);
  assert.equal(
    answers,
    Array.from({ length: 100 }, (_, i) => `GET /${i} `),
  );
});

onEach(drives, 'http: chunks and trailers, both ways', async (rig) => {
  const { port } = httpServer(rig, async (request, response) => {
    response.setHeader('Trailer', 'X-Sum');
    let sum = 0;
    for await (const chunk of request) {
      sum += chunk.length;
      response.write(String(chunk).toUpperCase());
    }
    response.addTrailers({ 'X-Sum': String(sum) });
    response.end();
  });
  const request = http.request({ port, host: '127.0.0.1', method: 'POST', agent: false });
  const answered = once(request, 'response');
  for (let i = 0; i < 50; i++) {
    request.write(`chunk ${i} `);
    await turns(1);
  }
  request.end();
  const [response] = (await answered) as [http.IncomingMessage];
  const body = await textOf(response as never);
  assert.is(body, Array.from({ length: 50 }, (_, i) => `CHUNK ${i} `).join(''));
  assert.is(response.trailers['x-sum'], String(body.length));
});

onEach(
  drives,
  'http: a large upload to a slow handler, and its large answer to a slow client',
  async (rig) => {
    const bytes = patterned(12 * MIB);
    const { port, sockets } = httpServer(rig, (request, response) => {
      let at = 0;
      // Slower than its client, so that back-pressure reaches the socket.
      const slow = new Transform({
        transform(chunk, _, done) {
          const [near] = sockets;
          const held = near.bufferEvent.inputLength + near.readableLength;
          assert.ok(held <= near.readableHighWaterMark + 128 * 1024, `${held} bytes are held`);
          assert.ok(chunk.equals(bytes.subarray(at, at + chunk.length)));
          at += chunk.length;
          setImmediate(done, null, chunk);
        },
      });
      pipeline(request, slow, response).catch(nothing);
    });
    const request = http.request({ port, host: '127.0.0.1', method: 'POST', agent: false });
    request.end(bytes);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    let at = 0;
    for await (const chunk of response) {
      assert.ok(chunk.equals(bytes.subarray(at, at + chunk.length)));
      at += chunk.length;
      const { writableLength, bufferEvent } = sockets[0];
      const held = writableLength + bufferEvent.outputLength;
      assert.ok(held <= MIB, `${held} bytes are held`);
      await turns(1);
    }
    assert.is(at, bytes.length);
  },
);

onEach(drives, 'http: Expect: 100-continue, and an answer to what is no request', async (rig) => {
  const { port } = httpServer(rig, echo);
  const request = http.request({
    port,
    host: '127.0.0.1',
    method: 'POST',
    agent: false,
    headers: { Expect: '100-continue' },
  });
  request.flushHeaders();
  await once(request, 'continue');
  request.end('now');
  assert.is((await answerTo(request)).body, 'POST / now');

  const far = rig.own(net.connect(port, '127.0.0.1'));
  far.write('no request\r\n\r\n');
  assert.match(await textOf(far), /^HTTP\/1\.1 400 Bad Request/);
});

onEach(drives, 'http: the client goes away in the middle', async (rig) => {
  const { port, sockets } = httpServer(rig, (request, response) => {
    request.resume();
    // For ever, until it is closed.
    const more = () => {
      while (!response.destroyed && response.write(patterned(20_000)));
      if (!response.destroyed) response.once('drain', more);
    };
    more();
  });
  for (const leave of ['destroy', 'resetAndDestroy'] as const) {
    const far = rig.own(net.connect(port, '127.0.0.1').on('error', nothing));
    far.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(far, 'data');
    const near = sockets.at(-1) as DuplexAdapter;
    near.on('error', nothing);
    far[leave]();
    await closed(near);
  }
});

onEach(drives, 'http: keep-alive ends with its timeout', async (rig) => {
  const { server, port, sockets } = httpServer(rig, echo);
  server.keepAliveTimeout = 20;
  const far = rig.own(net.connect(port, '127.0.0.1'));
  far.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.match(await textOf(far), /^HTTP\/1\.1 200 OK/);
  await closed(sockets[0]);
});

/** How a client of Node's gets a connection of ours to `port`. */
const clients: Record<string, (rig: Rig, port: number) => Duplex> = {
  'BufferEvent.connect()': ({ base }, port) =>
    BufferEvent.connect(base, { host: '127.0.0.1', port }).toDuplex(),
  'a net.Socket that became a stream that became a Duplex': ({ base }, port) =>
    BufferEvent.fromDuplex(base, net.connect(port, '127.0.0.1')).toDuplex(),
};

for (const [name, connect] of Object.entries(clients))
  onEach(drives, `http: an agent of Node’s over ${name}`, async (rig) => {
    const server = http.createServer(echo).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    rig.atEnd(() => new Promise((resolve) => server.close(resolve)));
    const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
    rig.atEnd(() => agent.destroy());
    let made = 0;
    (agent as never as { createConnection: unknown }).createConnection = () => {
      made++;
      return rig.own(connect(rig, port));
    };
    const all = Array.from({ length: 20 }, async (_, i) => {
      const request = http.request({ agent, path: `/${i}`, method: 'POST', host: 'x' });
      request.end('x'.repeat(i * 10_000));
      return (await answerTo(request)).body.length;
    });
    assert.equal(
      await Promise.all(all),
      Array.from({ length: 20 }, (_, i) => `POST /${i} `.length + i * 10_000),
    );
    assert.is(made, 2);
    // What the server closes leaves the agent's pool.
    server.closeAllConnections();
    await until(() => Object.keys(agent.freeSockets).length === 0);
    const request = http.request({ agent, path: '/again', method: 'POST', host: 'x' });
    request.end();
    assert.is((await answerTo(request)).body, 'POST /again ');
    assert.is(made, 3);
  });

onEach(drives, 'http: a connection that is refused is the request’s error', async (rig) => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  const near = rig.own(BufferEvent.connect(rig.base, { host: '127.0.0.1', port }).toDuplex());
  assert.ok(near.connecting);
  const request = http.get({ createConnection: () => near as never as net.Socket, host: 'x' });
  const [error] = await once(request, 'error');
  assert.is(error.code, 'ECONNREFUSED');
  await closed(near);
});

for (const kind of ['sockets', 'pair'] as const) {
  onEach(drives, `http: client and server are ours, over a ${kind}`, async (rig) => {
    const server = http.createServer(echo);
    rig.atEnd(() => server.close());
    const agent = new http.Agent({ keepAlive: true });
    rig.atEnd(() => agent.destroy());
    let made = 0;
    (agent as never as { createConnection: unknown }).createConnection = () => {
      const [near, far] = rig[kind]();
      made++;
      server.emit('connection', far);
      return near;
    };
    for (let i = 0; i < 10; i++) {
      const request = http.request({ agent, method: 'POST', host: 'x' });
      request.end('y'.repeat(300_000));
      assert.is((await answerTo(request)).body.length, 300_007);
    }
    assert.is(made, 1);
  });
}

onEach(drives, 'http: each request has its own async context', async (rig) => {
  const where = new AsyncLocalStorage<string>();
  const { port } = httpServer(rig, (request, response) => {
    assert.is(where.getStore(), undefined);
    where.run(String(request.url), async () => {
      request.resume();
      await once(request, 'end');
      await turns(3);
      response.end(where.getStore());
    });
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
  rig.atEnd(() => agent.destroy());
  const bodies = await Promise.all(
    Array.from({ length: 12 }, async (_, i) => {
      const request = http.request({
        agent,
        port,
        host: '127.0.0.1',
        path: `/${i}`,
        method: 'POST',
      });
      request.end('z'.repeat(100_000));
      return (await answerTo(request)).body;
    }),
  );
  assert.equal(
    bodies,
    Array.from({ length: 12 }, (_, i) => `/${i}`),
  );
});

// ── tls ─────────────────────────────────────────────────────────────────────────────────────────

// A key for tests alone, and its certificate of localhost, valid from 2020 to 2120.
const fixture = (name: string) =>
  readFileSync(new URL(`../../../test/stream/fixtures/${name}`, import.meta.url));
const key = fixture('key.pem');
const cert = fixture('cert.pem');

const serverOver = (socket: Duplex) =>
  new tls.TLSSocket(socket as net.Socket, {
    isServer: true,
    secureContext: tls.createSecureContext({ key, cert }),
  });

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  onEach(drives, `tls: ${version}, the server is ours`, async (rig) => {
    const bytes = patterned(3 * MIB);
    const secured: Duplex[] = [];
    const port = rig.listenDuplex(
      (near) => {
        const socket = rig.own(serverOver(near));
        secured.push(socket);
        socket.pipe(socket);
        // What is still to be answered when the client has ended.
      },
      { allowHalfOpen: true },
    );
    const far = rig.own(tls.connect({ port, host: 'localhost', ca: cert, maxVersion: version }));
    await once(far, 'secureConnect');
    assert.is(far.getProtocol(), version);
    assert.ok(far.authorized);
    const text = textOf(far);
    far.end(bytes);
    assert.ok((await text) === bytes.toString('latin1'));
    await Promise.all([closed(far), closed(secured[0])]);
  });

  onEach(drives, `tls: ${version}, both ends are ours`, async (rig) => {
    const bytes = patterned(3 * MIB);
    const [one, other] = rig.pair();
    const server = rig.own(serverOver(other));
    const client = rig.own(
      tls.connect({
        socket: one as never as net.Socket,
        ca: cert,
        servername: 'localhost',
        maxVersion: version,
      }),
    );
    await once(client, 'secureConnect');
    assert.ok(client.authorized);
    const received = textOf(server);
    client.end(bytes);
    assert.ok((await received) === bytes.toString('latin1'));
    server.end();
    client.resume();
    await Promise.all([closed(client), closed(server), closed(one), closed(other)]);
  });
}

onEach(drives, 'tls: what is no handshake, and a peer that goes away in one', async (rig) => {
  const errors: string[] = [];
  const secured: Duplex[] = [];
  const port = rig.listenDuplex((near) => {
    near.on('error', nothing);
    const socket = rig.own(serverOver(near));
    secured.push(socket);
    socket.on('error', (error: NodeJS.ErrnoException) => errors.push(String(error.code)));
  });
  const far = rig.own(net.connect(port, '127.0.0.1').on('error', nothing));
  far.resume().write('this is not TLS at all\r\n\r\n');
  await closed(far);
  assert.match(errors[0], /^ERR_SSL/);

  for (const leave of ['destroy', 'resetAndDestroy'] as const) {
    const leaving = rig.own(net.connect(port, '127.0.0.1').on('error', nothing));
    await once(leaving, 'connect');
    leaving[leave]();
  }
  await until(() => secured.length === 3);
  await Promise.all(secured.map(closed));
});

onEach(drives, 'https: a server of Node’s with our connections', async (rig) => {
  const server = http.createServer(echo);
  rig.atEnd(() => server.close());
  const port = rig.listenDuplex((near) => {
    const socket = rig.own(serverOver(near));
    socket.on('error', nothing);
    server.emit('connection', socket);
  });
  const { request: ask } = await import('node:https');
  for (let i = 0; i < 3; i++) {
    const request = ask({ port, host: 'localhost', ca: cert, method: 'POST', agent: false });
    request.end('w'.repeat(500_000));
    assert.is((await answerTo(request)).body.length, 500_007);
  }
});

// ── ws ──────────────────────────────────────────────────────────────────────────────────────────

onEach(drives, 'ws: server and client, both ways, small and large', async (rig) => {
  const { server, port } = httpServer(rig, echo);
  const sockets = new WebSocketServer({ server });
  rig.atEnd(() => sockets.close());
  sockets.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  // Node's client to our server, then our client to our server over a pair.
  const direct = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: true });
  const paired = new WebSocket('ws://x', {
    createConnection: () => {
      const [near, far] = rig.pair();
      server.emit('connection', far);
      return near as never as net.Socket;
    },
  });
  for (const client of [direct, paired]) {
    if (client.readyState !== client.OPEN) await once(client, 'open');
    const large = patterned(2 * MIB);
    client.send(large);
    assert.ok(((await once(client, 'message'))[0] as Buffer).equals(large));
    let next = 0;
    const all = new Promise<void>((resolve) => {
      client.on('message', (data) => {
        assert.is(String(data), `message ${next++}`);
        if (next === 200) resolve();
      });
    });
    for (let i = 0; i < 200; i++) client.send(`message ${i}`);
    await all;
    client.ping();
    await once(client, 'pong');
    client.close(4_000, 'done');
    const [code, reason] = await once(client, 'close');
    assert.equal([code, String(reason)], [4_000, 'done']);
  }
});

// ── pipelines and web streams ───────────────────────────────────────────────────────────────────

onEach(drives, 'pipeline: through gzip to the other end, and back', async (rig) => {
  const bytes = Buffer.from('text that packs well, '.repeat(200_000));
  const { near, far } = await rig.tcp();
  const back: Buffer[] = [];
  await Promise.all([
    pipeline(far, createGunzip(), createGzip({ level: 1 }), far),
    pipeline(
      Readable.from(chunksOf(bytes, 10_000)),
      createGzip(),
      near,
      createGunzip(),
      async (source) => {
        for await (const chunk of source) back.push(chunk);
      },
    ),
  ]);
  assert.ok(Buffer.concat(back).equals(bytes));
  await Promise.all([closed(near), closed(far)]);
});

function* chunksOf(bytes: Buffer, length: number) {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

onEach(drives, 'web streams: both directions, with back-pressure, and an abort', async (rig) => {
  const bytes = patterned(4 * MIB);
  const { near, far } = await rig.tcp();
  const { readable, writable } = Duplex.toWeb(near) as {
    readable: ReadableStream<Uint8Array>;
    writable: WritableStream;
  };
  const sent = textOf(far);
  const writer = writable.getWriter();
  for (const chunk of chunksOf(bytes, 50_000)) {
    await writer.ready;
    writer.write(chunk).catch(nothing);
    assert.ok(near.writableLength <= 200_000, `${near.writableLength}`);
  }
  // Node's settles when the whole Duplex is finished, the other direction too.
  const finish = writer.close();
  assert.ok((await sent) === bytes.toString('latin1'));
  far.end(bytes);
  const parts: Uint8Array[] = [];
  const reader = readable.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read())
    parts.push(next.value);
  assert.ok(Buffer.concat(parts).equals(bytes));
  await finish;
  await closed(near);

  const other = await rig.tcp();
  const web = Duplex.toWeb(other.near) as { readable: ReadableStream; writable: WritableStream };
  other.near.on('error', nothing);
  other.far.resume();
  web.readable.cancel('enough').catch(nothing);
  web.writable.abort(new Error('enough')).catch(nothing);
  await closed(other.near);
  await closed(other.far);
});

// ── many ────────────────────────────────────────────────────────────────────────────────────────

onEach(
  drives,
  '200 connections that come, talk and break at random leave nothing behind',
  async (rig) => {
    const below = randomNumbers(7);
    const port = rig.listenDuplex((near) => {
      near.on('error', nothing);
      near.pipe(near, { end: true });
      const fate = below(8);
      if (fate === 0) setImmediate(() => near.destroy());
      if (fate === 1) setImmediate(() => near.destroy(new Error('broken')));
      if (fate === 2) near.once('data', () => near.resetAndDestroy());
      if (fate === 3) near.once('data', () => near.destroySoon());
      if (fate === 4) setImmediate(() => near.bufferEvent.close());
    });
    const before = openDescriptors().length;
    const one = async () => {
      const far = net.connect({ port, host: '127.0.0.1', allowHalfOpen: below(2) === 0 });
      far.on('error', nothing);
      far.on('end', () => far.end());
      const done = finished(far).catch(nothing);
      for (let i = below(4); i >= 0 && far.writable; i--) {
        far.write(patterned(1 + below(100_000)));
        await turns(1 + below(3));
      }
      const fate = below(4);
      if (fate === 0) far.destroy();
      else if (fate === 1 && !far.destroyed) far.resetAndDestroy();
      else {
        far.end();
        far.resume();
      }
      await done;
    };
    const lane = async () => {
      for (let i = 0; i < 10; i++) await one();
    };
    await within(PATIENCE_MS, Promise.all(Array.from({ length: 20 }, lane)), 'all of them');
    // A server's end may be noticed a little later than the client's.
    await until(() => openDescriptors().length <= before);
  },
);

test.run();
