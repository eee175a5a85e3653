// A tag's running best as a line of a few pixels: a step at each keep, up to now.

import { svg } from "../lib/dom.js";
import { bpb, milliseconds } from "../lib/format.js";

const WIDTH = 132;
const HEIGHT = 24;
const PAD = 3;

/** `points` are keeps by time; `until` is where the line ends. */
export function sparkline(points, until) {
  const label = points.length
    ? `Running best from ${bpb(points[0].val_bpb)} to ${bpb(points.at(-1).val_bpb)} in ${points.length} steps shown`
    : "No result yet";
  const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
  return svg("svg.spark", { width: WIDTH, height: HEIGHT, viewBox, role: "img", "aria-label": label },
    points.length > 0 && line(points, until),
  );
}

function line(points, until) {
  const times = points.map(({ at }) => milliseconds(at));
  const values = points.map(({ val_bpb: value }) => value);
  const [first, last] = [times[0], times.at(-1)];
  const length = Math.max(last, until ? milliseconds(until) : 0) - first;
  const [top, bottom] = [values[0], values.at(-1)];
  const x = (at) => PAD + ((WIDTH - 2 * PAD) * (at - first)) / (length || 1);
  const y = (value) => PAD + (HEIGHT - 2 * PAD) * (top - bottom ? (top - value) / (top - bottom) : 0.5);
  const steps = values.slice(1).map((value, index) => `H${x(times[index + 1]).toFixed(1)}V${y(value).toFixed(1)}`);
  const path = `M${x(first).toFixed(1)} ${y(top).toFixed(1)}${steps.join("")}H${WIDTH - PAD}`;
  return [
    svg("path.spark-area", { d: `${path}V${HEIGHT}H${PAD}Z` }),
    svg("path.spark-line", { d: path }),
    svg("circle.spark-end", { cx: x(last), cy: y(bottom), r: 2.2 }),
  ];
}
