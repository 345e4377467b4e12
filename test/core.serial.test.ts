// The core's own tests, plain and under ASan with UBSan; see core/variants.ts.

import { testCore } from './core/variants.js';

await testCore('plain', 'address-undefined');
