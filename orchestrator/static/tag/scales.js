// From runs to the units of the axes: x by order, by its logarithm, or by time; y by what is of interest.

import { clockTime } from "../lib/format.js";
import { ticks } from "../lib/ticks.js";

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

/** The range of x in the units of its scale, for all runs or the recent ones. */
export function domain(series, x, fit, now) {
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
export function unit(series, x, row) {
  if (x === "time") return series.finished[row];
  return x === "log" ? Math.log10(row + 1) : row + 1;
}

/** The range of val_bpb, [low, high]; null without any result. */
export function range(series, fit) {
  const { best, baseline } = series;
  if (Number.isNaN(best)) return null;
  if (fit === "progress") {
    const gain = baseline - best;
    return atLeast(best - 0.1 * gain, baseline + 0.12 * gain);
  }
  const first = fit === "recent" ? Math.max(0, series.length - RECENT) : 0;
  const results = series.bpb.slice(first).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  if (fit === "all") return widened(results[0], results.at(-1), 0.05);
  const high = results[Math.floor((results.length - 1) * 0.8)] ?? baseline;
  return widened(best, Math.max(high, best), 0.1);
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
