// A run's status as a shape and a word: colour never stands alone.

import { h, svg } from "./dom.js";

const stroke = { fill: "none", stroke: "currentColor", "stroke-width": 2 };
const circle = (r, style) => ["circle", { cx: 6, cy: 6, r, ...style }];

const SHAPES = {
  keep: circle(4.5, { fill: "currentColor" }),
  discard: circle(2.5, { fill: "currentColor" }),
  crash: ["path", { d: "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5", ...stroke }],
  running: circle(3.8, stroke),
  queued: circle(3.8, { ...stroke, "stroke-width": 1.5, "stroke-dasharray": "2 2" }),
  cancelled: ["path", { d: "M2.5 6h7", ...stroke }],
};

/** The shape alone, hidden from screen readers: the word stands beside it. */
export function mark(status) {
  const kind = status === "timeout" ? "crash" : status;
  const [shape, attributes] = SHAPES[kind] ?? SHAPES.discard;
  return svg(`svg.mark.${kind}`, { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    svg(shape, attributes),
  );
}

/** Shape and word. */
export const badge = (status, word = status) => h("span.status", mark(status), h("span.word", word));
