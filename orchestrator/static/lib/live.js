// Live events. One stream serves every tab of a browser through a shared worker, because browsers
// allow six connections to a host and a seventh tab would hang. Without shared workers each tab has
// its own stream and closes it while hidden. Events are hints: a subscriber asks for what is new since
// its own cursor, so that nothing depends on receiving all of them.

import { openStream } from "./stream.js";
import { learnServerTime } from "./format.js";

const STALE_AFTER_MS = 15_000;
const GONE_AFTER_MS = 60_000;

const messages = new EventTarget();
const started = Date.now();
let lastReceived = 0;
let phase = "connecting";

const emit = (type, detail) => messages.dispatchEvent(new CustomEvent(type, { detail }));

/**
 * Call `listener({ kind, tag, subject, ... })` at each event until `signal` aborts; kind "resumed"
 * stands for all that may have been missed.
 */
export function subscribe(listener, signal) {
  messages.addEventListener("event", ({ detail }) => listener(detail), { signal });
}

/** Call `watcher({ phase, lastReceived })` now and when the phase changes: connecting, live, stale, gone. */
export function watch(watcher) {
  messages.addEventListener("phase", () => watcher({ phase, lastReceived }));
  watcher({ phase, lastReceived });
}

function setPhase(next) {
  if (next === phase) return;
  phase = next;
  emit("phase");
}

function receive(message) {
  const wasAway = phase === "stale" || phase === "gone";
  lastReceived = Date.now();
  setPhase("live");
  if (message.kind !== "heartbeat") {
    emit("event", message);
    return;
  }
  learnServerTime(message.at);
  if (message.opened || wasAway) emit("event", { kind: "resumed" });
}

function checkSilence() {
  const silence = Date.now() - (lastReceived || started);
  if (silence >= GONE_AFTER_MS) setPhase("gone");
  else if (silence >= STALE_AFTER_MS) setPhase("stale");
}

export function install() {
  setInterval(checkSilence, 1000);
  // A page that comes back from the background must not show an old phase until the next second.
  document.addEventListener("visibilitychange", checkSilence);
  follow();
  // A page that comes back from the browser's cache of pages has a dead connection.
  addEventListener("pageshow", (event) => event.persisted && follow());
}

function follow() {
  try {
    const worker = new SharedWorker("/static/lib/stream-worker.js", { type: "module", name: "events" });
    worker.addEventListener("error", followAlone, { once: true });
    worker.port.onmessage = ({ data }) => receive(data);
  } catch {
    followAlone(); // no shared workers here, or a policy refuses them
  }
}

function followAlone() {
  let stream = null;
  let lastId = null;
  const toggle = () => {
    if (document.hidden) {
      lastId = stream?.close() ?? lastId;
      stream = null;
    } else {
      stream ??= openStream(receive, lastId);
    }
  };
  document.addEventListener("visibilitychange", toggle);
  toggle();
}
