// The service's clock. A laptop whose clock is minutes off must not show "in 3 min" for the past.

let offset = 0;

/** Milliseconds since the epoch by the service's clock. */
export const serverNow = () => Date.now() + offset;

/** Learn from a message that the service sent at `at` (ms). Its travel makes the guess a little late. */
export function learnServerTime(at) {
  if (Number.isFinite(at)) offset = at - Date.now();
}
