// From runs to pixels: x by order, logarithm of the order, or time; y by what is of interest.

import { failed } from "./series.js";

/** Above so many runs, log is the default and crashes become shares. */
export const MANY = 5000;
export const RECENT = 500;
// Twice the near-miss threshold: a chart of noise alone must not look like a chart of progress.
const LEAST_HEIGHT = 0.004;

export const defaultX = (series) => (series.length > MANY ? "log" : "order");

/** The range of x in the units of its scale, for all runs or the recent ones. */
export function domain(series, x, fit, now) {
  const last = Math.max(series.length, 1);
  const first = fit === "recent" ? Math.max(1, last - RECENT + 1) : 1;
  if (x === "time") {
    const from = series.length ? series.finished[first - 1] : now;
    return [from, Math.max(now, from + 60_000)];
  }
  // A little air, so that neither the first nor the last dot lies on the edge.
  if (x === "log") return [Math.log10(Math.max(first - 0.3, 0.7)), Math.log10(last + 0.5) + 0.004];
  return [first - 0.5, last + 0.5];
}

/** A run's place in the units of the scale. */
export function unit(series, x, row) {
  if (x === "time") return series.finished[row];
  return x === "log" ? Math.log10(row + 1) : row + 1;
}

/** The row at or before a place; -1 before the first. */
export function rowAt(series, x, value) {
  if (x === "time") return series.firstSince(value + 1) - 1;
  const n = x === "log" ? 10 ** value : value;
  return Math.min(series.length, Math.floor(n)) - 1;
}

/** The range of val_bpb, [low, high]; null without any result. */
export function range(series, fit) {
  const { best, baseline } = series;
  if (Number.isNaN(best)) return null;
  if (fit === "all") return widened(...extremes(series), 0.05);
  if (fit === "recent") {
    const values = results(series, Math.max(0, series.length - RECENT)).sort();
    const high = values.length ? values[Math.floor((values.length - 1) * 0.8)] : baseline;
    return widened(best, Math.max(high, best), 0.1);
  }
  const gain = baseline - best;
  return atLeast(best - 0.1 * gain, baseline + 0.12 * gain);
}

function results(series, first) {
  return series.bpb.slice(first, series.length).filter((value) => !Number.isNaN(value));
}

function extremes(series) {
  let low = Infinity;
  let high = -Infinity;
  for (let row = 0; row < series.length; row++) {
    const value = series.bpb[row];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function widened(low, high, share) {
  return atLeast(low - (high - low) * share, high + (high - low) * share);
}

/** Room is given to above: what is not yet an improvement lies there. */
function atLeast(low, high) {
  const missing = LEAST_HEIGHT - (high - low);
  return missing > 0 ? [low - missing * 0.3, high + missing * 0.7] : [low, high];
}

const STEPS = [1, 2, 5, 10];

/** Round values within a range, at most `most` of them, and their decimals. */
export function ticks(low, high, most) {
  const raw = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = STEPS.find((s) => s * power >= raw * 0.999) * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TIME_STEPS = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY];

/** Marks of the x axis: [{ at, text }] in the units of the scale. */
export function xTicks(x, [from, to], most) {
  if (x === "time") return timeTicks(from, to, most);
  if (x === "log") return logTicks(from, to, most);
  return ticks(from, to, most)
    .values.filter((n) => Number.isInteger(n) && n >= 1)
    .map((n) => ({ at: n, text: `#${n.toLocaleString("en-US")}` }));
}

function logTicks(from, to, most) {
  const found = [];
  for (let power = 0; 10 ** power <= 10 ** to; power++) {
    for (const times of to - from > 2.2 || most < 6 ? [1] : [1, 2, 5]) {
      const at = Math.log10(times * 10 ** power);
      if (at >= from && at <= to) found.push({ at, text: `#${(times * 10 ** power).toLocaleString("en-US")}` });
    }
  }
  return found.length > 1 ? found : ticks(10 ** from, 10 ** to, most).values
    .filter((n) => Number.isInteger(n) && n >= 1)
    .map((n) => ({ at: Math.log10(n), text: `#${n.toLocaleString("en-US")}` }));
}

function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((s) => (to - from) / s <= most) ?? TIME_STEPS.at(-1);
  const offset = new Date(from).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) {
    const date = new Date(at);
    const clock = date.toTimeString().slice(0, 5);
    const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    found.push({ at, text: step >= DAY ? day : clock === "00:00" ? day : clock });
  }
  return found;
}

/** How many failed among the rows from `first` up to `last`, and how many there are. */
export function crashShare(series, first, last) {
  let crashed = 0;
  for (let row = first; row <= last; row++) if (failed(series.status[row])) crashed++;
  return [crashed, last - first + 1];
}
