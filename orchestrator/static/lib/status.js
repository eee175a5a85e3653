// A run's status as mark, shape and word: colour never stands alone.

import { h, svg } from "./dom.js";

const SHAPES = {
  keep: () => svg("circle", { cx: 6, cy: 6, r: 4.5, fill: "currentColor" }),
  discard: () => svg("circle", { cx: 6, cy: 6, r: 2.5, fill: "currentColor" }),
  crash: () =>
    svg("path", { d: "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5", stroke: "currentColor", "stroke-width": 2, fill: "none" }),
  running: () =>
    svg("circle", { cx: 6, cy: 6, r: 3.8, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
  queued: () =>
    svg("circle", {
      cx: 6, cy: 6, r: 3.8, fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "2 2",
    }),
  cancelled: () => svg("path", { d: "M2.5 6h7", stroke: "currentColor", "stroke-width": 2, fill: "none" }),
};

const KIND = { timeout: "crash" };

/** The mark alone, hidden from screen readers: the word stands beside it. */
export function mark(status) {
  const kind = KIND[status] ?? status;
  const shape = SHAPES[kind] ?? SHAPES.discard;
  return svg(
    "svg",
    { class: `mark ${kind}`, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    shape(),
  );
}

/** Mark and word. */
export function badge(status, word = status) {
  return h("span", { class: "status" }, mark(status), h("span", { class: "word" }, word));
}
