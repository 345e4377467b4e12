// Finds the handler of a request by its method and its path, and by its host where there are
// several. A tree of segments: a literal goes before a parameter, and that before the rest.

import { checkFunction, invalidType, invalidValue } from '../validate.js';
import { isToken } from './characters.js';
import type { RequestHandler } from './http_options.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';

interface Route {
  readonly handler: RequestHandler;
  /** Of its parameters, in their order. */
  readonly names: readonly string[];
  /** Of a pattern that ends with `*`: the segments before that. */
  readonly before: number | undefined;
}
/** By method. */
type Routes = Map<string, Route>;

class Segment {
  readonly literals = new Map<string, Segment>();
  parameter: Segment | undefined = undefined;
  /** Of what ends here, and of what has anything behind this. */
  routes: Routes | undefined = undefined;
  rest: Routes | undefined = undefined;

  get empty(): boolean {
    const { literals, parameter, routes, rest } = this;
    return literals.size === 0 && (parameter ?? routes ?? rest) === undefined;
  }
}

/** No token, so no method. */
const ANY = '';

function routesOf(end: Segment, isRest: boolean): Routes {
  const routes = (isRest ? end.rest : end.routes) ?? new Map();
  if (isRest) end.rest = routes;
  else end.routes = routes;
  return routes;
}

interface Found {
  readonly routes: Routes;
  readonly values: readonly string[];
}

/** Segments of a pattern at most: what is deeper is no route but a mistake. */
const SEGMENTS_MAX = 64;

/**
 * `new Router().get('/user/:id', handler)`; its `handler` is what a server is given. A pattern is
 * literal segments, `:name` for one that is not empty, and `*` at its end for any that follow; what
 * they stand for is decoded and in `request.params`. A path that fits no pattern is answered 404,
 * one with a bad escape 400, and a method that a path has not 405 with Allow. HEAD is answered by
 * GET's handler, and OPTIONS with Allow, unless they have their own.
 */
export class Router {
  readonly #root = new Segment();
  readonly #hosts = new Map<string, RequestHandler>();
  #fallback: RequestHandler | undefined = undefined;

  /** For `options.request`. */
  readonly handler: RequestHandler = (request, response) => {
    if (this.#hosts.size > 0) {
      const host = this.#ofHost(request.host);
      if (host !== undefined) return host(request, response);
    }
    return this.#route(request, response);
  };

  /** The handler of a method, case-sensitive, and a pattern; the last one given holds. */
  on(method: string, pattern: string, handler: RequestHandler): this {
    if (typeof method !== 'string') throw invalidType('method', 'of type string', method);
    if (!isToken(method)) throw invalidValue('method', 'is no method', method);
    return this.#on(method, pattern, handler);
  }
  #on(method: string, pattern: string, handler: RequestHandler): this {
    checkFunction('handler', handler);
    const { end, isRest, names } = this.#add(pattern);
    const before = isRest ? pattern.split('/').length - 2 : undefined;
    routesOf(end, isRest).set(method, { handler, names, before });
    return this;
  }
  get(pattern: string, handler: RequestHandler): this {
    return this.on('GET', pattern, handler);
  }
  post(pattern: string, handler: RequestHandler): this {
    return this.on('POST', pattern, handler);
  }
  put(pattern: string, handler: RequestHandler): this {
    return this.on('PUT', pattern, handler);
  }
  patch(pattern: string, handler: RequestHandler): this {
    return this.on('PATCH', pattern, handler);
  }
  delete(pattern: string, handler: RequestHandler): this {
    return this.on('DELETE', pattern, handler);
  }

  /** Every method that the pattern has no handler of its own for. (evhttp_set_cb) */
  any(pattern: string, handler: RequestHandler): this {
    return this.#on(ANY, pattern, handler);
  }
  /** What answers where no pattern fits, in place of 404. (evhttp_set_gencb) */
  fallback(handler: RequestHandler | undefined): this {
    if (handler !== undefined) checkFunction('handler', handler);
    this.#fallback = handler;
    return this;
  }
  /** Takes a handler away, or that of `any` without a method. Whether there was one. */
  off(pattern: string, method: string = ANY): boolean {
    const { steps, isRest } = stepsOf(pattern);
    const way: Segment[] = [this.#root];
    for (const step of steps) {
      const at = way[way.length - 1];
      const next = step === undefined ? at.parameter : at.literals.get(step);
      if (next === undefined) return false;
      way.push(next);
    }
    const end = way[way.length - 1];
    const routes = isRest ? end.rest : end.routes;
    if (routes?.delete(method) !== true) return false;
    if (routes.size > 0) return true;
    // A pattern without handlers is none: its paths are answered 404 again.
    if (isRest) end.rest = undefined;
    else end.routes = undefined;
    for (let depth = steps.length; depth > 0 && way[depth].empty; depth--) {
      const step = steps[depth - 1];
      if (step === undefined) way[depth - 1].parameter = undefined;
      else way[depth - 1].literals.delete(step);
    }
    return true;
  }
  /** Takes a host away. Whether there was one of that name. */
  removeHost(name: string): boolean {
    if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
    return this.#hosts.delete(name.toLowerCase());
  }

  /**
   * What answers for a host, whatever its port: a name, or `*.name` for all below it. Requests for
   * hosts that nobody has named are this router's. (evhttp_add_virtual_host)
   */
  host(name: string, handler: RequestHandler | Router): this {
    if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
    if (!/^(\*\.)?([\w-]+\.)*[\w-]+$|^\[[\da-f:.]+\]$/i.test(name))
      throw invalidValue('name', 'is neither a host nor *. and a domain', name);
    const own = handler instanceof Router ? handler.handler : handler;
    checkFunction('handler', own);
    this.#hosts.set(name.toLowerCase(), own);
    return this;
  }

  #ofHost(host: string): RequestHandler | undefined {
    const name = host.replace(/:\d*$/, '');
    const exact = this.#hosts.get(name);
    if (exact !== undefined) return exact;
    // The longest domain wins.
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const found = this.#hosts.get(`*${name.slice(dot)}`);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #add(pattern: string): { end: Segment; isRest: boolean; names: string[] } {
    const { steps, isRest, names } = stepsOf(pattern);
    let end = this.#root;
    for (const step of steps) {
      let next = step === undefined ? end.parameter : end.literals.get(step);
      if (next === undefined) {
        next = new Segment();
        if (step === undefined) end.parameter = next;
        else end.literals.set(step, next);
      }
      end = next;
    }
    return { end, isRest, names };
  }

  #route(request: HttpRequest, response: HttpResponse): unknown {
    const { method, target } = request;
    const parts = partsOf(request.path);
    if (parts === undefined) return refuse(response, 400, 'The path has a bad escape.\n');
    if (target === '*') return noContent(response);
    const found = find(this.#root, parts, 0, []);
    if (found === undefined)
      return this.#fallback === undefined
        ? refuse(response, 404, 'Not found.\n')
        : this.#fallback(request, response);
    const { routes, values } = found;
    const own = routes.get(method) ?? (method === 'HEAD' ? routes.get('GET') : undefined);
    const route = own ?? routes.get(ANY);
    if (route !== undefined) {
      const params: Record<string, string> = Object.create(null);
      for (const [i, name] of route.names.entries()) params[name] = values[i];
      if (route.before !== undefined) rests.set(params, route.before);
      request.params = params;
      return route.handler(request, response);
    }
    response.set('Allow', allowed(routes));
    if (method !== 'OPTIONS') return refuse(response, 405, `${method} is not allowed here.\n`);
    return noContent(response);
  }
}

/** Of a pattern, before a `*` at its end: literals, and undefined for parameters. */
interface Steps {
  steps: (string | undefined)[];
  isRest: boolean;
  names: string[];
}
function stepsOf(pattern: string): Steps {
  if (typeof pattern !== 'string') throw invalidType('pattern', 'of type string', pattern);
  const parts = pattern.slice(1).split('/');
  if (!pattern.startsWith('/') || parts.length > SEGMENTS_MAX)
    throw invalidValue('pattern', `is no path of at most ${SEGMENTS_MAX} segments`, pattern);
  const isRest = parts[parts.length - 1] === '*';
  if (isRest) parts.pop();
  const names: string[] = [];
  const steps = parts.map((part) => {
    const name = /^:(\w+)$/.exec(part)?.[1];
    if (name !== undefined && !names.includes(name)) {
      names.push(name);
      return undefined;
    }
    if (/[:*?#%]/.test(part))
      throw invalidValue('pattern', `has a segment that is not understood, ${part}`, pattern);
    return part;
  });
  if (isRest) names.push('*');
  return { steps, isRest, names };
}

/** By parameters that have a `*`: how many segments of the path are before it. */
const rests = new WeakMap<object, number>();

/** What `*` stands for, as it was sent, behind a `/`; undefined without one. */
export function restOf({ params, path }: HttpRequest): string | undefined {
  const before = rests.get(params);
  return before === undefined ? undefined : `/${path.slice(1).split('/').slice(before).join('/')}`;
}

/** Segments, decoded after they were divided: an escaped slash divides nothing. */
function partsOf(path: string): string[] | undefined {
  const parts = path.slice(1).split('/');
  if (!path.includes('%')) return parts;
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

/** Every segment of the tree is at one place of a path, so none is looked at twice. */
function find(
  at: Segment,
  parts: readonly string[],
  index: number,
  values: readonly string[],
): Found | undefined {
  if (index === parts.length)
    return at.routes === undefined ? undefined : { routes: at.routes, values };
  const part = parts[index];
  const literal = at.literals.get(part);
  const byName = literal === undefined ? undefined : find(literal, parts, index + 1, values);
  if (byName !== undefined) return byName;
  if (at.parameter !== undefined && part !== '') {
    const found = find(at.parameter, parts, index + 1, [...values, part]);
    if (found !== undefined) return found;
  }
  if (at.rest === undefined) return undefined;
  return { routes: at.rest, values: [...values, parts.slice(index).join('/')] };
}

function allowed(routes: Routes): string {
  const methods = new Set(routes.keys());
  methods.delete(ANY);
  if (methods.has('GET')) methods.add('HEAD');
  return [...methods.add('OPTIONS')].join(', ');
}

/** To OPTIONS, which may ask for the server as a whole (RFC 9110 section 9.3.7). */
function noContent(response: HttpResponse): void {
  response.status = 204;
  response.send();
}

function refuse(response: HttpResponse, status: number, text: string): void {
  response.status = status;
  response.send(text);
}
