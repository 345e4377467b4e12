// What multiloop's loops do in the bench `http`.

import { httpWorker } from '../../src/http.js';
import { handlers } from './http_handlers.js';

export default httpWorker(handlers('request'));
