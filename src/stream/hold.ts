/** Why a direction that is enabled rests. */
export const Hold = {
  WATERMARK: 1,
  LIMIT: 2,
  CONNECTING: 4,
  FILTER: 8,
  PAUSED: 16,
  HOOK: 32,
  MOVING: 64,
  HTTP: 128,
} as const;
