// The body of an answer that says that something is wrong.

import { invalidType } from '../validate.js';
import { isFieldValue } from './characters.js';
import { asError } from './http_errors.js';
import type { HttpRequest } from './http_request.js';
import type { HttpServer } from './http_server.js';
import { reasonOf } from './status.js';

const TEXT = 'text/plain; charset=utf-8';

/** The `errorBody` hook's, or a line of text if it has none to give, or fails. */
export function errorBodyOf(
  server: HttpServer,
  status: number,
  why: string,
  request: HttpRequest | undefined,
): { readonly type: string; readonly body: string } {
  const { errorBody } = server._settings;
  if (errorBody !== undefined) {
    try {
      const made = errorBody(status, why, request);
      if (typeof made === 'string') return { type: TEXT, body: made };
      if (made !== undefined) {
        const { type, body } = made;
        if (typeof type === 'string' && isFieldValue(type) && typeof body === 'string') return made;
        throw invalidType('errorBody()', 'text, or an object of type and body', made);
      }
    } catch (error) {
      server._failed(asError(error), request);
    }
  }
  return { type: TEXT, body: `${reasonOf(status)}: ${why}.\n` };
}
