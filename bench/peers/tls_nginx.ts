// nginx with TLS and one file of BYTES bytes, run as this program's child in a folder of its own;
// prints the port when it is there.
//
//   PROGRAM NGINX KEY ROLE BYTES

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pause } from './rpc.js';
import { filesOf, taskOf } from './tls_options.js';

/** Tries to reach it, 20 ms apart. */
const TRIES = 250;

const [nginx, ...rest] = process.argv.slice(2);
const { key, bytes } = taskOf(rest);
const [certificate, secret] = filesOf(key);
const port = await freePort();
const folder = mkdtempSync(join(tmpdir(), 'multiloop-nginx-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

writeFileSync(join(folder, 'small'), 'x');
writeFileSync(join(folder, 'big'), '');
truncateSync(join(folder, 'big'), bytes);
const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
  (name) => `${name}_temp_path ${folder}/${name};`,
);
writeFileSync(
  join(folder, 'nginx.conf'),
  `daemon off; master_process off; worker_processes 1; pid ${folder}/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off; ${temporary.join(' ')}
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${certificate}; ssl_certificate_key ${secret};
    ssl_protocols TLSv1.2 TLSv1.3;
    root ${folder};
  }
}
`,
);
const child = spawn(nginx, ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', 'stderr'], {
  stdio: ['ignore', 'ignore', 'inherit'],
});
child.on('exit', (code) => process.exit(code ?? 0));
process.on('SIGTERM', () => child.kill('SIGTERM'));
for (let i = 0; i < TRIES && !(await reached()); i++) await pause(20);
console.log(port);

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: free } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return free;
}

function reached(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
