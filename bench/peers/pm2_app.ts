// What PM2 starts: a server of Node's that answers frames. PM2 says SIGINT to an old one when the
// new one listens; this one stops accepting then, and ends when its connections have, or is killed.

import { renameSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { serveFrames } from './frames.js';

const number = Number(process.env.NODE_APP_INSTANCE);
const file = process.env.BENCH_PORT_FILE as string;

const server = net.createServer({ noDelay: true }, (socket) => serveFrames(socket, number));
server.listen(0, '127.0.0.1', () => {
  writeFileSync(`${file}.${process.pid}`, `${(server.address() as AddressInfo).port}`);
  renameSync(`${file}.${process.pid}`, file);
});
process.on('SIGINT', () => server.close(() => process.exit(0)));
