// The core's own tests under ASan with UBSan, or plain where these are missing; see
// core/variants.ts.

import { testCore } from './core/variants.js';

await testCore('plain', 'address-undefined');
