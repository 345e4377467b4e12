// Which handler a request finds, and what it is told when it finds none.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type RequestHandler, Router } from '../../src/http.js';
import { codeOf } from '../event/support.js';
import { nothing, useRig } from './rig.js';

const rig = useRig();

const named =
  (name: string): RequestHandler =>
  (request, response) =>
    response.send(`${name} ${JSON.stringify(request.params)}`);

const router = new Router()
  .get('/', named('root'))
  .get('/user/me', named('me'))
  .get('/user/:id', named('user'))
  .put('/user/:id', named('put'))
  .delete('/user/:name', named('delete'))
  .post('/user', named('post'))
  .get('/user/:id/post/:post', named('post of'))
  .get('/files/*', named('files'))
  .get('/a/:b/c', named('deep'))
  .get('/a/*', named('rest'))
  .on('REPORT', '/report', named('report'))
  .host('other.example', new Router().get('/', named('other')))
  .host('*.example', named('below'))
  .host('*.x.example', named('below x'));
const { port, errors } = rig.serve({ request: router.handler });

async function ask(line: string, host = 'a') {
  const client = await rig.connect(port);
  client.send(`${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  const answer = await client.answer(line.startsWith('HEAD'));
  client.socket.destroy();
  return answer;
}
const bodyOf = async (line: string, host?: string) => (await ask(line, host)).body;

test('paths with parameters, literals first', async () => {
  const expected: Record<string, string> = {
    'GET /': 'root {}',
    'GET /?a=b': 'root {}',
    'GET /user/me': 'me {}',
    'GET /user/7': 'user {"id":"7"}',
    'GET /user/a%2Fb%20c': 'user {"id":"a/b c"}',
    'DELETE /user/7': 'delete {"name":"7"}',
    'GET /user/me/post/2': 'post of {"id":"me","post":"2"}',
    'GET /files/a/b': 'files {"*":"a/b"}',
    'GET /files/': 'files {"*":""}',
    'GET /a/b/c': 'deep {"b":"b"}',
    'GET /a/b/d': 'rest {"*":"b/d"}',
    'REPORT /report': 'report {}',
    'GET http://x/user/%37': 'user {"id":"7"}',
  };
  for (const [line, body] of Object.entries(expected)) assert.is(await bodyOf(line), body, line);
});

test('what is not there: 404, 405 with Allow, 400', async () => {
  for (const line of ['GET /none', 'GET /user/', 'GET /user/7/', 'GET /files', 'GET //user/me'])
    assert.is((await ask(line)).status, 404, line);
  assert.is((await ask('OPTIONS *')).status, 204);
  const refused = await ask('POST /user/7');
  assert.equal([refused.status, refused.headers.allow], [405, 'GET, PUT, DELETE, HEAD, OPTIONS']);
  assert.is((await ask('get /')).status, 405);
  const options = await ask('OPTIONS /user');
  assert.equal([options.status, options.headers.allow], [204, 'POST, OPTIONS']);
  assert.is((await ask('GET /user/%')).status, 400);
  assert.is((await ask('GET /user/%ff')).status, 400);
  const head = await ask('HEAD /user/7');
  assert.equal([head.status, head.headers['content-length']], [200, '15']);
  assert.equal(errors, []);
});

test('virtual hosts', async () => {
  assert.is(await bodyOf('GET /', 'other.example'), 'other {}');
  assert.is(await bodyOf('GET /', 'OTHER.example:8080'), 'other {}');
  assert.is((await ask('GET /user/me', 'other.example')).status, 404);
  assert.is(await bodyOf('GET /', 'a.example'), 'below {}');
  assert.is(await bodyOf('GET /', 'a.x.example'), 'below x {}');
  assert.is(await bodyOf('GET /', 'example'), 'root {}');
  assert.is(await bodyOf('GET http://other.example/', 'a'), 'other {}');
});

test('off() leaves nothing of a pattern, nor of one that never was, and all of the others', async () => {
  const one = new Router().get('/a', named('a')).get('/a/:b/c', named('c')).get('/a/*', named('*'));
  const { port } = rig.serve({ request: one.handler });
  const ask = async (path: string) => {
    const client = await rig.connect(port);
    client.send(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const { status, body } = await client.answer();
    client.socket.destroy();
    return status === 200 ? body : status;
  };
  for (const never of ['/', '/*', '/x', '/:x', '/a/b', '/a/:b', '/a/:b/*', '/a/:b/c/d', '/a/:b/:c'])
    assert.is(one.off(never, 'GET'), false, never);
  assert.is(one.off('/a/:b/c', 'PUT'), false);
  assert.is(one.off('/a/:other/c', 'GET'), true);
  assert.equal([await ask('/a/x/c'), await ask('/a')], ['* {"*":"x/c"}', 'a {}']);
  assert.is(one.off('/a', 'GET'), true);
  assert.equal([await ask('/a/x'), await ask('/a')], ['* {"*":"x"}', 404]);
  assert.is(one.off('/a/*', 'GET'), true);
  assert.is(await ask('/a/x'), 404);
  one.get('/a/:b/c', named('again'));
  assert.is(await ask('/a/x/c'), 'again {"b":"x"}');

  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const used = () => {
    gc();
    return process.memoryUsage().heapUsed;
  };
  const before = used();
  for (let n = 0; n < 20_000; n++) {
    one.off(`/never/${n}/:id/x`);
    one.any(`/once/${n}/:id/x`, nothing).off(`/once/${n}/:id/x`);
  }
  // A segment has a Map, so that either would have left more than ten times as much.
  const left = used() - before;
  assert.ok(left < 2_000_000, `${left} bytes are left`);
});

test('patterns and hosts are checked', () => {
  const one = new Router();
  for (const pattern of ['', 'a', '/:', '/a*', '/*/a', '/:a/:a', '/a?b', '/%41', '/a'.repeat(65)])
    assert.is(
      codeOf(() => one.get(pattern, nothing)),
      'ERR_INVALID_ARG_VALUE',
      pattern,
    );
  assert.is(
    codeOf(() => one.on('A B', '/', nothing)),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(
    codeOf(() => one.get('/', 5 as never)),
    'ERR_INVALID_ARG_TYPE',
  );
  for (const host of ['', 'a b', 'a/b', '*', 'a.*'])
    assert.is(
      codeOf(() => one.host(host, nothing)),
      'ERR_INVALID_ARG_VALUE',
      host,
    );
});

test.run();
