// The many marks of the chart, on a canvas: dots, the rails, the lanes of modes.

import { setStyle } from "../lib/dom.js";
import { DISCARD, LANES, NEAR, failed } from "./series.js";
import { LANE, MANY } from "./view.js";

const BIN = 4;
// Radii of dots by the number of runs in view, up to so many.
const RADII = [[120, 3], [600, 2.3], [2000, 1.8], [MANY, 1.4], [Infinity, 0.8]];

/** Draw all of a view on a canvas of its size, in the colours of the present theme. */
export function paint(canvas, view) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const [first, end] = view.rows();
  const layer = (colour, draw) => {
    setStyle(canvas, { color: `var(--${colour})` });
    context.save();
    context.fillStyle = getComputedStyle(canvas).color;
    draw(context, view, first, end);
    context.restore();
  };
  if (view.range) {
    layer("discard", dots);
    layer("discard", above);
  }
  layer("crash", end - first > MANY ? crashShares : crashes);
  layer("muted", lanes);
}

function dots(context, view, first, end) {
  const { series, area } = view;
  const n = end - first;
  const size = RADII.find(([most]) => n <= most)[1];
  const squares = size < 1; // as good as discs at this size, and faster
  context.beginPath();
  context.rect(area.left - 4, area.top - 4, area.right - area.left + 8, area.bottom - area.top + 4);
  context.clip();
  context.beginPath();
  if (squares) context.globalAlpha = n > 30_000 ? 0.34 : 0.55;
  for (let row = first; row < end; row++) {
    const code = series.status[row];
    const value = series.bpb[row];
    // A run that was stopped early is a discard without a value.
    if ((code !== DISCARD && code !== NEAR) || !(value <= view.range[1])) continue;
    const x = view.ofRow(row);
    const y = view.y(value);
    if (squares) {
      context.fillRect(x - size, y - size, 2 * size, 2 * size);
    } else {
      context.moveTo(x + size, y);
      context.arc(x, y, size, 0, 2 * Math.PI);
    }
  }
  context.fill();
}

/** Runs above the range: a rail of triangles shows them without stretching the axis. */
function above(context, view, first, end) {
  const { series, area } = view;
  view.above = 0;
  context.globalAlpha = end - first > MANY ? 0.4 : 0.9;
  for (let row = first; row < end; row++) {
    // A run that was stopped early has no value, and is here too.
    if (failed(series.status[row]) || series.bpb[row] <= view.range[1]) continue;
    view.above++;
    const x = view.ofRow(row);
    context.beginPath();
    context.moveTo(x - 3, area.rail + 3);
    context.lineTo(x + 3, area.rail + 3);
    context.lineTo(x, area.rail - 3);
    context.fill();
  }
}

/** Each crash as a stroke. */
function crashes(context, view, first, end) {
  const { series, area } = view;
  for (let row = first; row < end; row++) {
    if (failed(series.status[row])) context.fillRect(view.ofRow(row) - 0.75, area.crash - 5, 1.5, 10);
  }
}

/** Of very many runs, the share of crashes among those in the same few pixels. */
function crashShares(context, view, first, end) {
  const { series, area } = view;
  const bins = Math.ceil((area.right - area.left) / BIN) + 1;
  const runs = new Uint32Array(bins);
  const crashed = new Uint32Array(bins);
  for (let row = first; row < end; row++) {
    const bin = Math.floor((view.ofRow(row) - area.left) / BIN);
    runs[bin]++;
    if (failed(series.status[row])) crashed[bin]++;
  }
  for (let bin = 0; bin < bins; bin++) {
    if (!crashed[bin]) continue;
    // Never invisible: a share of one in a hundred is still a crash.
    context.globalAlpha = 0.15 + 0.85 * Math.min(1, (crashed[bin] / runs[bin]) * 2.5);
    context.fillRect(area.left + bin * BIN, area.crash - 5, BIN - 0.5, 10);
  }
}

/** Which mode was in force: a lane for each, so that no hue has to tell them apart. */
function lanes(context, view) {
  const { series, area } = view;
  series.choices.forEach((choice, index) => {
    const [from, to] = extent(view, choice, series.choices[index + 1]);
    const left = Math.max(area.left, from);
    const width = Math.min(area.right, to) - left;
    if (width <= 0) return;
    const top = area.lanes + LANES.indexOf(choice.mode) * LANE;
    context.globalAlpha = choice.pinned ? 1 : 0.75;
    context.fillRect(left, top + (choice.pinned ? 0.5 : 1.5), width, choice.pinned ? 7 : 5);
  });
}

/** From where to where a choice of mode was in force, in pixels. */
function extent(view, choice, next) {
  const { right } = view.area;
  if (view.x === "time") return [view.px(Date.parse(choice.at)), next ? view.px(Date.parse(next.at)) : right];
  const place = (after) => view.px(view.x === "log" ? Math.log10(after + 0.5) : after + 0.5);
  return [place(choice.after), next ? place(next.after) : Math.max(place(view.series.length), right)];
}
