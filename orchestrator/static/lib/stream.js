// One connection to /api/events that is opened again after each break.

// An EventSource delivers a named event only to a listener of that name.
const KINDS = [
  "setup", "registered", "queued", "claimed", "started", "cancelling", "condemned", "decided", "strategy", "gpu",
  "steered", "heartbeat",
];
const RETRY_MS = 3000;

/**
 * Follow the events after `lastId`, or from now on. `receive` gets flat objects with `kind` and `id`;
 * the first message of each connection is a heartbeat with `opened: true`. Returns { close }, which
 * returns the id of the last event.
 */
export function openStream(receive, lastId = null) {
  let source = null;
  let timer = null;
  let opened = false;

  function connect() {
    source = new EventSource(lastId ? `/api/events?since=${lastId}` : "/api/events");
    source.onopen = () => (opened = true);
    source.onerror = () => {
      // After a break the browser reconnects by itself and names the last id; after a refusal (503,
      // 401) it does not.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, RETRY_MS);
    };
    for (const kind of KINDS) source.addEventListener(kind, (event) => take(kind, event));
  }

  function take(kind, event) {
    if (event.lastEventId) lastId = event.lastEventId;
    const heartbeat = kind === "heartbeat";
    receive({ ...JSON.parse(event.data), kind, id: event.lastEventId, opened: opened && heartbeat });
    if (heartbeat) opened = false;
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
