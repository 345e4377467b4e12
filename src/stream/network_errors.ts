// Which errors of a datagram socket are the network's.

import { constants } from 'node:os';

const { errno } = constants;
/** Linux's; Node has no name for it. */
const EHOSTDOWN = 112;

/** What ICMP, the routing and firewalls say (ip(7), icmp(7), udp(7)). */
const ofTheNetwork = new Set([
  errno.ECONNREFUSED,
  errno.ECONNRESET,
  errno.EHOSTUNREACH,
  EHOSTDOWN,
  errno.ENETUNREACH,
  errno.ENETDOWN,
  errno.ENOPROTOOPT,
  errno.EPROTO,
  errno.EACCES,
  errno.EPERM,
  errno.EMSGSIZE,
  errno.ETIMEDOUT,
  errno.EOPNOTSUPP,
]);

/** Told once each, by the kernel too: the socket is as sound as before. */
export function isOfTheNetwork(number: number): boolean {
  return ofTheNetwork.has(number);
}
