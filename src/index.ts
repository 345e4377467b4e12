export * from './event/ev.js';
export { EventBase, type EventBaseOptions, type EventCounts } from './event/event_base.js';
export { type EventCallback, EventHandle } from './event/event_handle.js';
export { sys } from './event/sys.js';
