// The few marks of the chart, in SVG: axes, the running best, keeps and their names.

import { svg, replace } from "../lib/dom.js";
import { count, delta } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { candidates, place, shortened } from "./labels.js";
import { ticks, xTicks } from "./scales.js";
import { LANES } from "./series.js";

const LANE = 9;
const FONT = '11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
let ruler = null;

function measure(text) {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = FONT;
  return ruler.measureText(text).width;
}

const words = (keep) => {
  const gain = Number.isNaN(keep.before) ? "" : ` ${delta(-keep.gain)}`;
  return shortened(plain(keep.text) || (gain ? "keep" : "baseline")) + gain;
};

/** Draw into `root`, an <svg> of the view's size; `noise` is the band of chance, or null. */
export function overlay(root, view, noise) {
  root.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
  const points = view.range ? keepPoints(view) : [];
  replace(
    root,
    svg("defs", {}, clip(view)),
    axes(view),
    view.range && [
      noise && band(view, noise),
      svg("path", { class: "best-line", d: stepLine(view), "clip-path": "url(#plot)" }),
      svg("g", { class: "keeps" }, points.map(({ x, y }) => svg("circle", { cx: x, cy: y, r: points.length > 150 ? 3.5 : 4.5 }))),
      names(view, points),
    ],
    rails(view),
  );
}

function clip({ area }) {
  return svg(
    "clipPath",
    { id: "plot" },
    svg("rect", { x: area.left, y: area.top - 3, width: area.right - area.left, height: area.bottom - area.top + 4 }),
  );
}

function axes(view) {
  const { area, width } = view;
  const lines = [svg("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom })];
  if (view.range) {
    const { values, decimals } = ticks(...view.range, (area.bottom - area.top) / 70);
    for (const value of values) {
      const y = view.y(value);
      lines.push(
        svg("line", { class: "grid", x1: area.left, x2: area.right, y1: y, y2: y }),
        svg("text", { class: "tick", x: area.left - 8, y: y + 4, "text-anchor": "end" }, value.toFixed(Math.max(decimals, 3))),
      );
    }
  }
  let free = -Infinity;
  for (const { at, text } of xTicks(view.x, [view.from, view.to], Math.max(2, Math.floor(width / 130)))) {
    const half = measure(text) / 2;
    const x = Math.min(view.px(at), width - half - 2);
    if (x < area.left - 1 || x - half < free) continue;
    free = x + half + 12;
    lines.push(svg("text", { class: "tick", x, y: area.axis, "text-anchor": "middle" }, text));
  }
  return svg("g", {}, lines);
}

/** Two runs of one source differ by less than this in 19 of 20 cases. */
function band(view, noise) {
  const best = view.y(view.series.best);
  const top = Math.max(view.area.top, view.y(view.series.best + noise.band));
  return svg("rect", {
    class: "noise", x: view.area.left, width: view.area.right - view.area.left, y: top, height: Math.max(0, best - top),
  });
}

function keepPoints(view) {
  const { area, series } = view;
  return series.keeps
    .map((keep) => ({ keep, x: view.ofRow(keep.row), y: view.y(keep.bpb) }))
    .filter(({ x, y }) => x >= area.left - 1 && x <= area.right + 1 && y >= area.top - 3 && y <= area.bottom + 1);
}

function stepLine(view) {
  const { keeps, length } = view.series;
  let path = "";
  for (const keep of keeps) {
    const x = view.ofRow(keep.row).toFixed(1);
    const y = view.y(keep.bpb).toFixed(1);
    path += path ? `H${x}V${y}` : `M${x},${y}`;
  }
  const now = view.x === "time" ? view.px(view.now) : view.ofRow(length - 1);
  return `${path}H${now.toFixed(1)}`;
}

function names(view, points) {
  const { ordered, most } = candidates(view.series.keeps, view.width);
  const placed = place(ordered, most, {
    area: view.area,
    points,
    at: (keep) => ({ x: view.ofRow(keep.row), y: view.y(keep.bpb) }),
    text: words,
    measure,
  });
  return svg(
    "g",
    { class: "names" },
    placed.map(({ words: text, x, y, anchor }) => svg("text", { x, y: y + 4, "text-anchor": anchor }, text)),
  );
}

function rails(view) {
  const { area } = view;
  const label = (text, y, small) =>
    svg("text", { class: small ? "lane" : "tick", x: area.left - 8, y, "text-anchor": "end" }, text);
  return svg(
    "g",
    {},
    view.above ? label(`▲ ${count(view.above)}`, area.rail + 4) : null,
    label("crash", area.crash + 4),
    LANES.map((mode, index) => label(mode, area.lanes + index * LANE + 7, true)),
  );
}
