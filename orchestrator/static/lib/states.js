// What a part of a page shows in place of its content: loading, failed, empty. And short messages.

import { h, replace } from "./dom.js";
import { prose } from "./visible.js";

const SKELETON_AFTER_MS = 200;

/**
 * Show grey bars in `root` after a moment, so that a fast answer does not flash. Returns a function
 * that stops it; so does `signal`.
 */
export function loading(root, label, { lines = 3, signal } = {}) {
  const bars = Array.from({ length: lines }, () => h("div.bar", { "aria-hidden": "true" }));
  const skeleton = h("div.skeleton", { role: "status" }, h("span.visually-hidden", label), bars);
  const timer = setTimeout(() => replace(root, skeleton), SKELETON_AFTER_MS);
  const stop = () => clearTimeout(timer);
  signal?.addEventListener("abort", stop);
  return stop;
}

/** One muted sentence. */
export const remark = (text) => h("p.state.muted", text);

/** In place of a source or a diff that was never sent. */
export const notSent = (run) => remark(`${run} was trained by hand: its train.py was not sent here.`);

/** The cause, and a way to try again. */
export function failed(error, retry) {
  return h("div.state.error", { role: "alert" },
    h("p.headline", error.status === 404 ? "Not found" : "This could not be loaded"),
    h("p", error.message),
    retry && h("button", { onclick: retry }, "Try again"),
  );
}

/** Nothing yet: what to do, with the command that does it. */
export function empty(headline, command, note) {
  return h("div.state",
    h("p.headline", headline),
    command && h("pre.command", { tabindex: "0" }, command),
    note && h("p.muted", prose(note)),
  );
}

/** A short message in the corner for some seconds, read out by screen readers. */
export function toast(text, kind = "info") {
  const isError = kind === "error";
  const element = h(`div.toast.${kind}`, { role: isError ? "alert" : "status" }, text);
  document.getElementById("overlay").append(element);
  setTimeout(() => element.remove(), isError ? 10_000 : 4_000);
}

/** A message for screen readers alone. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
