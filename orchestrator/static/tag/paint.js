// The many marks of the chart, on a canvas: dots, the rails, the lanes of modes.

import { MANY } from "./scales.js";
import { DISCARD, LANES, NEAR, failed } from "./series.js";

const BIN = 4;
const LANE = 9;

/** Colours as the style sheet has them now, so that a theme's change needs no list of its own. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["bg", "text", "muted", "line", "line-strong", "keep", "discard", "crash"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function radius(rows) {
  return rows <= 120 ? 3 : rows <= 600 ? 2.3 : rows <= 2000 ? 1.8 : rows <= MANY ? 1.4 : 0.8;
}

/** Draw all of a view on a canvas that is as large as it. */
export function paint(canvas, view, colours) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  if (view.range) {
    dots(context, view, colours);
    above(context, view, colours);
  }
  crashes(context, view, colours);
  lanes(context, view, colours);
}

function dots(context, view, colours) {
  const { series, area } = view;
  const [first, end] = view.rows();
  const size = radius(end - first);
  context.save();
  context.beginPath();
  context.rect(area.left - 4, area.top - 4, area.right - area.left + 8, area.bottom - area.top + 4);
  context.clip();
  context.fillStyle = colours.discard;
  const many = size < 1;
  if (many) context.globalAlpha = end - first > 30_000 ? 0.34 : 0.55;
  else context.beginPath();
  for (let row = first; row < end; row++) {
    const code = series.status[row];
    if (code !== DISCARD && code !== NEAR) continue;
    const value = series.bpb[row];
    if (value > view.range[1]) continue;
    const x = view.ofRow(row);
    const y = view.y(value);
    if (many) {
      context.fillRect(x - size, y - size, 2 * size, 2 * size);
    } else {
      context.moveTo(x + size, y);
      context.arc(x, y, size, 0, 2 * Math.PI);
    }
  }
  if (!many) context.fill();
  context.restore();
}

/** Runs above the range: a rail of triangles, so that they are told without stretching the axis. */
function above(context, view, colours) {
  const { series, area } = view;
  const [first, end] = view.rows();
  let count = 0;
  context.save();
  context.fillStyle = colours.discard;
  context.globalAlpha = end - first > MANY ? 0.4 : 0.9;
  for (let row = first; row < end; row++) {
    if (!(series.bpb[row] > view.range[1])) continue;
    count++;
    const x = view.ofRow(row);
    context.beginPath();
    context.moveTo(x - 3, area.rail + 3);
    context.lineTo(x + 3, area.rail + 3);
    context.lineTo(x, area.rail - 3);
    context.fill();
  }
  context.restore();
  view.above = count;
}

/** Each crash a stroke; of very many their share among the runs that lie in the same few pixels. */
function crashes(context, view, colours) {
  const { series, area } = view;
  const [first, end] = view.rows();
  context.save();
  context.fillStyle = colours.crash;
  if (end - first > MANY) {
    crashShares(context, view, first, end);
  } else {
    for (let row = first; row < end; row++) {
      if (failed(series.status[row])) context.fillRect(view.ofRow(row) - 0.75, area.crash - 5, 1.5, 10);
    }
  }
  context.restore();
}

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

/** Which mode was in force: a lane each, so that no hue has to tell them apart. */
function lanes(context, view, colours) {
  const { series, area } = view;
  context.save();
  context.fillStyle = colours.muted;
  const length = series.length;
  series.choices.forEach((choice, index) => {
    const next = series.choices[index + 1];
    const [from, to] = span(view, choice, next, length);
    const left = Math.max(area.left, from);
    const width = Math.min(area.right, to) - left;
    if (width <= 0) return;
    context.globalAlpha = choice.pinned ? 1 : 0.75;
    const top = area.lanes + LANES.indexOf(choice.mode) * LANE;
    context.fillRect(left, top + (choice.pinned ? 0.5 : 1.5), width, choice.pinned ? 7 : 5);
  });
  context.restore();
}

function span(view, choice, next, length) {
  if (view.x === "time") {
    return [view.px(Date.parse(choice.at)), next ? view.px(Date.parse(next.at)) : view.area.right];
  }
  const place = (after) => view.px(view.x === "log" ? Math.log10(after + 0.5) : after + 0.5);
  return [place(choice.after), next ? place(next.after) : Math.max(place(length), view.area.right)];
}
