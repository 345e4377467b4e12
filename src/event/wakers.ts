// The wakers there are, preferred first.

import type { WakerName } from './ev.js';

export const WAKER_NAMES: readonly WakerName[] = ['eventfd', 'pipe'];
