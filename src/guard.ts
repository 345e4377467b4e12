// Callbacks and hooks that run inside somebody else's call. What one throws is not that caller's
// failure, and it must not keep a result from him or a change from the next one who is told. So it
// is reported as uncaught right after the call, as an EventTarget does with its listeners.

export function guarded(callback: () => unknown): void {
  try {
    callback();
  } catch (error) {
    process.nextTick(() => {
      throw error;
    });
  }
}
