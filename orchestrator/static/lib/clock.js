// The service's clock. A laptop that is minutes off must not say "in 3 min" of what has happened.

let offset = 0;

/** Milliseconds since the epoch by the service's clock. */
export function serverNow() {
  return Date.now() + offset;
}

/** Learn from a message that the service sent at `at` (ms). Travel makes the guess a little late. */
export function learnServerTime(at) {
  if (Number.isFinite(at)) offset = at - Date.now();
}
