// Many hints, few requests.

/**
 * A function that runs `work` now and at most once each `ms`; calls in between lead to one run at
 * the end of the interval. Failures are left to the next hint. While the page is hidden it waits.
 */
export function throttled(work, ms) {
  let timer = null;
  let running = false;
  let wanted = false;
  let last = -Infinity;

  async function run() {
    timer = null;
    if (document.hidden) return;
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

  document.addEventListener("visibilitychange", () => !document.hidden && wanted && schedule());
  const call = () => schedule();
  call.cancel = () => {
    clearTimeout(timer);
    timer = null;
    wanted = false;
  };
  return call;
}
