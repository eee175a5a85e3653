// Live events. One stream serves every tab of a browser through a shared worker, since browsers
// allow six connections to a host and a seventh tab would hang; without shared workers each tab has
// its own and gives it back while hidden.
//
// Events are hints: whoever hears one asks for what is new since its own cursor. So nothing depends
// on hearing all of them, and a reconnect only has to say that something may have happened.

import { openStream } from "./stream.js";
import { learnServerTime } from "./clock.js";

const STALE_AFTER_MS = 15_000;
const GONE_AFTER_MS = 60_000;

const listeners = new Set();
const watchers = new Set();
let lastHeard = 0;
let phase = "connecting";

/**
 * Call `listener({ kind, tag, subject, ... })` at each event; kind "resumed" stands for whatever was
 * missed. Answers a function that ends it.
 */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Call `watcher({ phase, lastHeard })` when the phase changes: connecting, live, stale, gone. */
export function watch(watcher) {
  watchers.add(watcher);
  watcher({ phase, lastHeard });
  return () => watchers.delete(watcher);
}

function setPhase(next) {
  if (next === phase) return;
  phase = next;
  for (const watcher of watchers) watcher({ phase, lastHeard });
}

function heard(message) {
  const wasAway = phase === "stale" || phase === "gone";
  lastHeard = Date.now();
  if (message.kind === "heartbeat") learnServerTime(message.at);
  setPhase("live");
  if (message.kind !== "heartbeat") tell(message);
  else if (message.opened || wasAway) tell({ kind: "resumed" });
}

function tell(message) {
  for (const listener of listeners) {
    try {
      listener(message);
    } catch (error) {
      console.error(error);
    }
  }
}

function judge() {
  const silent = Date.now() - (lastHeard || started);
  if (silent >= GONE_AFTER_MS) setPhase("gone");
  else if (silent >= STALE_AFTER_MS) setPhase("stale");
}

let started = 0;

export function install() {
  started = Date.now();
  setInterval(judge, 1000);
  // A page that comes back from the background must not show an old phase until the next second.
  document.addEventListener("visibilitychange", judge);
  if (typeof SharedWorker === "function") {
    try {
      shared();
      return;
    } catch {
      // Refused by a policy: as if there were none.
    }
  }
  own();
}

function shared() {
  const worker = new SharedWorker("/static/lib/stream-worker.js", { type: "module", name: "events" });
  worker.port.onmessage = ({ data }) => heard(data);
  worker.port.start();
  // A page that goes into the browser's cache of pages comes back with a dead port.
  addEventListener("pagehide", () => worker.port.postMessage("bye"));
  addEventListener("pageshow", (event) => {
    if (event.persisted) worker.port.postMessage("hello");
  });
  worker.addEventListener("error", own, { once: true });
}

function own() {
  let stream = null;
  let lastId = null;
  const follow = () => {
    if (document.hidden) {
      lastId = stream?.close() ?? lastId;
      stream = null;
    } else {
      stream ??= openStream(heard, lastId);
    }
  };
  document.addEventListener("visibilitychange", follow);
  follow();
}
