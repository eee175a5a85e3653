// The few marks of the chart, in SVG: axes, the running best, keeps and their names.

import { replace, svg } from "../lib/dom.js";
import { count, delta, ticks } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { LANES } from "./series.js";
import { LANE, NARROW, xTicks } from "./view.js";

const Y_TICK_PX = 70;
const X_TICK_PX = 130;
const NAMES = 12;
const NAMES_NARROW = 3;
const NAME_CHARACTERS = 34;
const NAME_HEIGHT = 14;
const GAP = 8;
const DOT = 5;
const FONT = '11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

/** Seven places around a dot: [dx, dy, anchor] of the text's middle line, the preferred first. */
const PLACES = [
  [GAP, -11, "start"],
  [GAP, 0, "start"],
  [-GAP, 12, "end"],
  [GAP, 13, "start"],
  [-GAP, 0, "end"],
  [-GAP, -11, "end"],
  [0, -17, "middle"],
];

/** Draw into `root`, an <svg> of the view's size; `noise` is the band of chance, or null. */
export function overlay(root, view, noise) {
  const { area } = view;
  const plot = { x: area.left, y: area.top - 3, width: area.right - area.left, height: area.bottom - area.top + 4 };
  root.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
  replace(root,
    svg("clipPath", { id: "plot" }, svg("rect", plot)),
    svg("g", yAxis(view), xAxis(view)),
    view.range && [noise && band(view, noise), best(view)],
    svg("g", rails(view)),
  );
}

function yAxis(view) {
  const { area, range } = view;
  if (!range) return null;
  const { values, decimals } = ticks(...range, (area.bottom - area.top) / Y_TICK_PX);
  return values.map((value) => {
    const y = view.y(value);
    return [
      svg("line.grid", { x1: area.left, x2: area.right, y1: y, y2: y }),
      leftOf(area, y + 4, value.toFixed(Math.max(decimals, 3))),
    ];
  });
}

/** A text to the left of the plot. */
const leftOf = (area, y, text, kind = "tick") =>
  svg(`text.${kind}`, { x: area.left - 8, y, "text-anchor": "end" }, text);

function xAxis(view) {
  const { area, width } = view;
  const marks = [svg("line.axis", { x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom })];
  let free = -Infinity; // where the last text ended
  for (const { at, text } of xTicks(view.x, [view.from, view.to], Math.max(2, Math.floor(width / X_TICK_PX)))) {
    const half = measure(text) / 2;
    const x = Math.min(view.px(at), width - half - 2);
    if (x < area.left - 1 || x - half < free) continue;
    free = x + half + 12;
    marks.push(svg("text.tick", { x, y: area.axis, "text-anchor": "middle" }, text));
  }
  return marks;
}

/** Two runs of one source differ by less than this in 19 of 20 cases. */
function band(view, noise) {
  const { area, series } = view;
  const bottom = view.y(series.best);
  const y = Math.max(area.top, view.y(series.best + noise.band));
  return svg("rect.noise", { x: area.left, width: area.right - area.left, y, height: Math.max(0, bottom - y) });
}

/** The running best as a step line, the keeps on it, and names where they have space. */
function best(view) {
  const { area, series } = view;
  const keeps = series.keeps.map((keep) => ({ ...keep, x: view.ofRow(keep.row), y: view.y(keep.bpb) }));
  const points = keeps.filter(({ x, y }) =>
    x >= area.left - 1 && x <= area.right + 1 && y >= area.top - 3 && y <= area.bottom + 1);
  const r = points.length > 150 ? 3.5 : 4.5;
  const names = placeNames(keeps, points, view);
  return [
    svg("path.best-line", { d: stepLine(view, keeps), "clip-path": "url(#plot)" }),
    svg("g.keeps", points.map(({ x, y, provisional }) =>
      svg("circle", { class: provisional ? "provisional" : null, cx: x, cy: y, r }))),
    svg("g.names", names.map(({ text, x, y, anchor }) => svg("text", { x, y: y + 4, "text-anchor": anchor }, text))),
  ];
}

function stepLine(view, [first, ...rest]) {
  const now = view.x === "time" ? view.px(view.now) : view.ofRow(view.series.length - 1);
  const steps = rest.map(({ x, y }) => `H${x.toFixed(1)}V${y.toFixed(1)}`);
  // Under `race` the estimate of the best has moved since it was kept.
  const end = `V${view.y(view.series.best).toFixed(1)}H${now.toFixed(1)}`;
  return `M${first.x.toFixed(1)},${first.y.toFixed(1)}${steps.join("")}${end}`;
}

/** The labels of the rails and of the lanes. */
function rails(view) {
  const { area } = view;
  return [
    view.above > 0 && leftOf(area, area.rail + 4, `▲ ${count(view.above)}`),
    leftOf(area, area.crash + 4, "crash"),
    LANES.map((mode, index) => leftOf(area, area.lanes + index * LANE + 7, mode, "lane")),
  ];
}

// ---- which keeps are named, and where, so that no name lies on another mark

let ruler = null;

/** The width of a text on the chart, in pixels. */
function measure(text) {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = FONT;
  return ruler.measureText(text).width;
}

/** The name of a keep: its description, cut, and its gain. */
function nameOf(keep) {
  const gain = Number.isNaN(keep.before) ? "" : ` ${delta(-keep.gain)}`;
  const text = plain(keep.text).replaceAll("`", "") || (gain ? "keep" : "baseline");
  return (text.length > NAME_CHARACTERS ? `${text.slice(0, NAME_CHARACTERS - 1)}…` : text) + gain;
}

/** The keeps in the order in which they may claim a place: the latest, the first, then by gain. */
function byImportance(keeps) {
  const rest = keeps.slice(0, -1).sort((a, b) => b.gain - a.gain);
  // The first has gained nothing and is what everything is measured by.
  const first = rest.findIndex((keep) => Number.isNaN(keep.before));
  if (first > 0) rest.unshift(...rest.splice(first, 1));
  return [...keeps.slice(-1), ...rest];
}

const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** The running best from one keep to the next: along, then down. */
const stairs = (from, to) => [
  { left: from.x, right: to.x, top: from.y - 1, bottom: from.y + 1 },
  { left: to.x - 1, right: to.x + 1, top: from.y, bottom: to.y },
];

/**
 * Names for as many of `keeps` as fit: [{ text, x, y, anchor }]. Names keep clear of each other, of
 * `points`, which are the keeps in view, and of the running best between them.
 */
function placeNames(keeps, points, { area, width }) {
  const taken = [
    ...points.map(({ x, y }) => ({ left: x - DOT, right: x + DOT, top: y - DOT, bottom: y + DOT })),
    ...points.slice(1).flatMap((to, i) => stairs(points[i], to)),
  ];
  const most = width < NARROW ? NAMES_NARROW : NAMES;
  const placed = [];
  for (const keep of byImportance(keeps)) {
    if (placed.length === most) break;
    const { x, y } = keep;
    if (x < area.left || x > area.right || y < area.top || y > area.bottom) continue;
    const text = nameOf(keep);
    const length = measure(text) + 2;
    for (const [dx, dy, anchor] of PLACES) {
      const left = x + dx - { start: 0, middle: length / 2, end: length }[anchor];
      const box = { left, right: left + length, top: y + dy - NAME_HEIGHT / 2, bottom: y + dy + NAME_HEIGHT / 2 };
      if (box.left < area.left || box.right > area.right || box.top < area.top || box.bottom > area.bottom) continue;
      if (taken.some((other) => overlaps(box, other))) continue;
      taken.push(box);
      placed.push({ text, x: x + dx, y: y + dy, anchor });
      break;
    }
  }
  return placed;
}
