// The core's own tests as they are shipped, without a sanitizer; see core/variants.ts.

import { testCore } from './core/variants.js';

await testCore('plain');
