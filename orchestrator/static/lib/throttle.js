// Work that recurs until a page is left: throttled by events, or at an interval.

/**
 * A function that runs `work` now and at most once each `ms`; calls in between lead to one run at the
 * end of the interval. A failure waits for the next call. While the page is hidden nothing runs, and
 * after `signal` aborts nothing ever does.
 */
export function throttled(work, ms, signal) {
  let timer = null;
  let running = false;
  let wanted = false;
  let last = -Infinity;

  async function run() {
    timer = null;
    if (document.hidden || signal?.aborted) return;
    running = true;
    wanted = false;
    last = performance.now();
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error.message);
    } finally {
      running = false;
      if (wanted) schedule();
    }
  }

  function schedule() {
    wanted = true;
    if (running || timer !== null) return;
    timer = setTimeout(run, Math.max(0, last + ms - performance.now()));
  }

  document.addEventListener("visibilitychange", () => !document.hidden && wanted && schedule(), { signal });
  return schedule;
}

/** Run `work` each `ms` until `signal` aborts. */
export function every(ms, work, signal) {
  const timer = setInterval(work, ms);
  signal.addEventListener("abort", () => clearInterval(timer));
}
