// One frame of the chart: its layout in pixels, its scales, and where each run lies in it. x is by order,
// by its logarithm, or by time; y shows what is of interest. Nothing is drawn here.

import { clockTime, ticks } from "../lib/format.js";
import { LANES, failed } from "./series.js";

/** The height of a lane, and the width below which a chart is narrow, in pixels. */
export const LANE = 9;
export const NARROW = 600;
const REACH = 24;
/** Above so many runs, log is the default and crashes become shares. */
export const MANY = 5000;
const RECENT = 500;
// Twice the near-miss threshold: a chart of noise alone must not look like a chart of progress.
const LEAST_HEIGHT = 0.004;
const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TIME_STEPS = [
  MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY,
];

export const defaultX = (series) => (series.length > MANY ? "log" : "order");

/** Where the parts of a chart of this size lie. */
function layout(width, height) {
  const isNarrow = width < NARROW;
  const bottom = height - LANES.length * LANE - 50;
  return {
    left: isNarrow ? 54 : 66,
    right: width - (isNarrow ? 12 : 20),
    rail: 13, // the middle of the rail of runs above the range
    top: 26,
    bottom,
    crash: bottom + 13,
    lanes: bottom + 24,
    axis: height - 8,
  };
}

export class View {
  /** `zoom` is a range of x in units of the scale, or null for all that `fit` shows. */
  constructor(series, { x, fit, zoom, width, height, now }) {
    Object.assign(this, { series, x, width, height, now });
    this.area = layout(width, height);
    const { left, right, top, bottom } = this.area;
    [this.from, this.to] = zoom ?? domain(series, x, fit, now);
    this.range = range(series, fit);
    this.scaleX = (right - left) / (this.to - this.from || 1);
    if (this.range) this.scaleY = (bottom - top) / (this.range[1] - this.range[0]);
  }

  /** Pixels of a place in the units of the scale. */
  px(value) {
    return this.area.left + (value - this.from) * this.scaleX;
  }

  ofRow(row) {
    return this.px(unit(this.series, this.x, row));
  }

  y(value) {
    return this.area.bottom - (value - this.range[0]) * this.scaleY;
  }

  /** The units at a pixel. */
  unitAt(px) {
    return this.from + (px - this.area.left) / this.scaleX;
  }

  /** The run number at a place in the units of the scale, unless x is time. */
  numberAt(value) {
    return this.x === "log" ? 10 ** value : value;
  }

  /** Rows within the range of x: [first, end). */
  rows() {
    const { series } = this;
    if (this.x === "time") return [series.firstSince(this.from), series.firstSince(this.to + 1)];
    return [
      Math.max(0, Math.ceil(this.numberAt(this.from) - 1e-9) - 1),
      Math.min(series.length, Math.floor(this.numberAt(this.to) + 1e-9)),
    ];
  }

  /** Where a run's mark lies: on the rail of crashes, on that of runs above the range, or between. */
  point(row) {
    const x = this.ofRow(row);
    const { series, area } = this;
    if (failed(series.status[row])) return { x, y: area.crash };
    const value = series.bpb[row];
    // A run that was stopped early has no result: it lies on that rail too.
    return { x, y: value <= this.range[1] ? this.y(value) : area.rail };
  }

  /** The run whose mark is nearest to a pixel; -1 where there is none. */
  nearest(px, py, reach = REACH) {
    if (!this.range) return -1;
    const [first, end] = this.rows();
    const low = Math.max(first, this.#rowBefore(px - reach));
    const high = Math.min(end - 1, this.#rowBefore(px + reach) + 1);
    let found = -1;
    let least = Infinity;
    for (let row = low; row <= high; row++) {
      const { x, y } = this.point(row);
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < least) [least, found] = [distance, row];
    }
    return found;
  }

  #rowBefore(px) {
    const value = this.unitAt(px);
    return (this.x === "time" ? this.series.firstSince(value) : Math.floor(this.numberAt(value))) - 1;
  }
}

/** The range of x in the units of its scale, for all runs or the recent ones. */
function domain(series, x, fit, now) {
  const last = Math.max(series.length, 1);
  const first = fit === "recent" ? Math.max(1, last - RECENT + 1) : 1;
  if (x === "time") {
    const from = series.length ? series.finished[first - 1] : now;
    return [from, Math.max(now, from + MINUTE)];
  }
  // A little air, so that neither the first nor the last dot lies on the edge.
  if (x === "log") return [Math.log10(Math.max(first - 0.3, 0.7)), Math.log10(last + 0.5) + 0.004];
  return [first - 0.5, last + 0.5];
}

/** A run's place in the units of the scale. */
function unit(series, x, row) {
  if (x === "time") return series.finished[row];
  return x === "log" ? Math.log10(row + 1) : row + 1;
}

/** The range of val_bpb, [low, high]; null without any result. */
function range(series, fit) {
  const { best, baseline } = series;
  if (Number.isNaN(best)) return null;
  if (fit === "progress") {
    // An estimate may rise above what its source was kept for, and a lucky discard read less.
    const low = Math.min(series.lowest, best);
    const gain = baseline - low;
    return atLeast(low - 0.1 * gain, baseline + 0.12 * gain);
  }
  const first = fit === "recent" ? Math.max(0, series.length - RECENT) : 0;
  const results = series.bpb.slice(first).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  if (fit === "all") return widened(results[0], results.at(-1), 0.05);
  const high = results[Math.floor((results.length - 1) * 0.8)] ?? baseline;
  return widened(Math.min(results[0] ?? best, best), Math.max(high, best), 0.1);
}

function widened(low, high, share) {
  return atLeast(low - (high - low) * share, high + (high - low) * share);
}

/** At least LEAST_HEIGHT, more of it above: what is not yet an improvement lies there. */
function atLeast(low, high) {
  const missing = LEAST_HEIGHT - (high - low);
  return missing > 0 ? [low - missing * 0.3, high + missing * 0.7] : [low, high];
}

/** Marks of the x axis: [{ at, text }] in the units of the scale. */
export function xTicks(x, [from, to], most) {
  if (x === "time") return timeTicks(from, to, most);
  return x === "log" ? logTicks(from, to, most) : orderTicks(from, to, most);
}

const runNumber = (n) => `#${n.toLocaleString("en-US")}`;

function orderTicks(from, to, most) {
  const whole = ticks(from, to, most).values.filter((n) => Number.isInteger(n) && n >= 1);
  return whole.map((n) => ({ at: n, text: runNumber(n) }));
}

function logTicks(from, to, most) {
  const found = [];
  const factors = to - from > 2.2 || most < 6 ? [1] : [1, 2, 5];
  for (let power = 0; power <= to; power++) {
    for (const n of factors.map((factor) => factor * 10 ** power)) {
      const at = Math.log10(n);
      if (at >= from && at <= to) found.push({ at, text: runNumber(n) });
    }
  }
  if (found.length > 1) return found;
  return orderTicks(10 ** from, 10 ** to, most).map(({ at, text }) => ({ at: Math.log10(at), text }));
}

function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((size) => (to - from) / size <= most) ?? TIME_STEPS.at(-1);
  const offset = new Date(from).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) {
    const clock = clockTime(at);
    const day = new Date(at).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    found.push({ at, text: step >= DAY || clock === "00:00" ? day : clock });
  }
  return found;
}
