// What a part of a page shows when it has nothing to show yet, or never will.

import { h, replace } from "./dom.js";

const SKELETON_AFTER_MS = 200;

/** Grey bars in the place of what comes; after a moment, so that a fast answer does not flash. */
export function loading(root, { lines = 3, label = "Loading" } = {}) {
  const timer = setTimeout(() => {
    replace(
      root,
      h(
        "div",
        { class: "skeleton", role: "status" },
        h("span", { class: "visually-hidden" }, label),
        Array.from({ length: lines }, () => h("div", { class: "bar", "aria-hidden": "true" })),
      ),
    );
  }, SKELETON_AFTER_MS);
  return () => clearTimeout(timer);
}

/** In the place of a source or a diff, where there cannot be one. */
export function notSent(run) {
  return h("p", { class: "state muted" }, `${run} was trained by hand: its train.py was not sent here.`);
}

/** The cause, and a way to try again. */
export function failed(error, retry) {
  return h(
    "div",
    { class: "state error", role: "alert" },
    h("p", { class: "headline" }, error.status === 404 ? "Not found" : "This could not be loaded"),
    h("p", {}, error.message),
    retry && h("button", { type: "button", on: { click: retry } }, "Try again"),
  );
}

/** Nothing yet: what to do, with the command that does it. */
export function empty(headline, command, note) {
  return h(
    "div",
    { class: "state" },
    h("p", { class: "headline" }, headline),
    command && h("pre", { class: "command", tabindex: "0" }, command),
    note && h("p", { class: "muted" }, note),
  );
}

/** A short word in the corner, gone by itself; screen readers hear it. */
export function toast(text, { kind = "info" } = {}) {
  const element = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" }, text);
  document.getElementById("overlay").append(element);
  setTimeout(() => element.remove(), kind === "error" ? 10_000 : 4_000);
}

/** Say something to screen readers alone. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
