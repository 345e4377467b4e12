// Who accepts the connections of a group: see listeners.ts.

import { checkOneOf, invalidValue } from '../validate.js';

export type AcceptMode = 'handoff' | 'reuseport' | 'shared';
export const ACCEPT_MODES: readonly AcceptMode[] = ['handoff', 'reuseport', 'shared'];

export interface AcceptOptions {
  accept?: AcceptMode;
  policy?: unknown;
  listen?: unknown;
}

/** Throws for what the mode cannot do: ERR_INVALID_ARG_VALUE. */
export function checkAccept({ accept = 'handoff', policy, listen }: AcceptOptions): AcceptMode {
  checkOneOf('options.accept', accept, ACCEPT_MODES);
  if (accept === 'handoff') return accept;
  if (policy !== undefined)
    throw invalidValue(
      'options.policy',
      `goes with accept: 'handoff'; with '${accept}' the kernel picks the loop`,
      policy,
    );
  const list = (Array.isArray(listen) ? listen : [listen]) as ({ path?: unknown } | undefined)[];
  for (const options of accept === 'reuseport' ? list : []) checkOwnQueues(options);
  return accept;
}

/** Whether each loop can have a socket of its own there. */
function checkOwnQueues(options: { path?: unknown; fd?: unknown } | undefined): void {
  for (const key of ['path', 'fd'] as const)
    if (options?.[key] !== undefined)
      throw invalidValue(
        `listen.${key}`,
        "is one queue, and accept: 'reuseport' needs a port to open one for each loop; " +
          "use 'shared' or 'handoff'",
        options[key],
      );
}
