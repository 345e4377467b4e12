// The core's own tests under ASan with UBSan; see core/variants.ts.

import { testCore } from './core/variants.js';

await testCore('address-undefined');
