// What multiloop's loops do in the bench `publish`: see publish_server.ts.

import { httpWorker } from '../../src/http.js';
import { publishing } from './publish_handlers.js';

export default httpWorker(publishing());
