// One connection to /api/events that outlives its breaks. Used by the page or by the shared worker.

// An EventSource tells of named events only to those who know the names.
export const KINDS = [
  "setup", "registered", "queued", "claimed", "started", "cancelling", "decided", "strategy", "gpu",
  "steered", "heartbeat",
];
const RETRY_MS = 3000;

/**
 * Follow the events after `lastId` (from now on without one). `receive` gets flat objects with
 * `kind` and `id`; the first message of each connection is a heartbeat with `opened: true`.
 * Answers { close }, which answers the id of the last event.
 */
export function openStream(receive, lastId = null) {
  let source = null;
  let timer = null;
  let opened = false;

  function connect() {
    source = new EventSource(lastId ? `/api/events?since=${lastId}` : "/api/events");
    source.onopen = () => {
      opened = true;
    };
    source.onerror = () => {
      // The browser itself comes back after a break, and names the last id; after a refusal (503,
      // 401) it does not.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, RETRY_MS);
    };
    for (const kind of KINDS) source.addEventListener(kind, (event) => take(kind, event));
  }

  function take(kind, event) {
    if (event.lastEventId) lastId = event.lastEventId;
    receive({ ...JSON.parse(event.data), kind, id: event.lastEventId, opened: opened && kind === "heartbeat" });
    if (kind === "heartbeat") opened = false;
  }

  connect();
  return {
    close() {
      clearTimeout(timer);
      source.close();
      return lastId;
    },
  };
}
