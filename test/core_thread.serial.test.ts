// The core's own tests under TSan, which takes as long again; see core/variants.ts.

import { testCore } from './core/variants.js';

await testCore('thread');
