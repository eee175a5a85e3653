// A tag's running best as a line of a few pixels: a step at each keep, carried to now.

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
  return svg(
    "svg",
    { class: "spark", width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    points.length > 0 && line(points, until),
  );
}

function line(points, until) {
  const times = points.map(({ at }) => milliseconds(at));
  const first = times[0];
  const end = Math.max(times.at(-1), until ? milliseconds(until) : 0);
  const values = points.map(({ val_bpb: value }) => value);
  const [top, bottom] = [values[0], values.at(-1)];
  const x = (at) => PAD + ((WIDTH - 2 * PAD) * (at - first)) / (end - first || 1);
  const fall = top - bottom;
  const y = (value) => PAD + (HEIGHT - 2 * PAD) * (fall ? (top - value) / fall : 0.5);
  let path = `M${x(first).toFixed(1)} ${y(top).toFixed(1)}`;
  values.slice(1).forEach((value, index) => {
    path += `H${x(times[index + 1]).toFixed(1)}V${y(value).toFixed(1)}`;
  });
  return [
    svg("path", { class: "spark-area", d: `${path}H${WIDTH - PAD}V${HEIGHT}H${PAD}Z` }),
    svg("path", { class: "spark-line", d: `${path}H${WIDTH - PAD}` }),
    svg("circle", { class: "spark-end", cx: x(times.at(-1)), cy: y(bottom), r: 2.2 }),
  ];
}
