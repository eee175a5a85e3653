// How numbers, times and the values of an axis read, everywhere the same.

import { h, setText } from "./dom.js";

export const NONE = "—";
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
// How an error begins in which the worker names what ended the run.
const ENDED_BY = /^(killed by|stopped after) /;
const EXIT_CODE = /^(.*; )?exit code -?\d+$/;
const RESULT = /^(---$|[a-z]\w*: [-+\d.,e%]+$|(profile|device|torch_version): )/;
const EXCEPTION = /^([\w.]*(Error|Exception|Interrupt|Exit)\b|FAIL\b)/;

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** val_bpb: six decimals, or a dash. */
export const bpb = (value) => (isNumber(value) ? value.toFixed(6) : NONE);

/** A signed difference: −0.000411, +0.000500; one that rounds to zero reads `same`. */
export function delta(value, { digits = 6, same = "= best" } = {}) {
  if (!isNumber(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return same;
  return (value < 0 ? "−" : "+") + text;
}

/** The class of a difference in val_bpb, of which less is better. */
export const deltaClass = (value) => (Number(value?.toFixed(6)) < 0 ? "better" : "");

/** A number with fixed decimals, grouped: 12,345.0. */
export function number(value, digits = 1) {
  if (!isNumber(value)) return NONE;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** 12,345. */
export const count = (value) => number(value, 0);

/** "1 run", "12,345 runs". */
export const plural = (n, word) => `${count(n)} ${n === 1 ? word : `${word}s`}`;

/** A share as percent: 7%, and "<1%" for what would read as none. */
export function percent(share) {
  if (!isNumber(share)) return NONE;
  return share > 0 && share < 0.005 ? "<1%" : `${Math.round(share * 100)}%`;
}

/** A length of time: 45 s, 12 min, 3 h 05, 2 d 4 h. */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < MINUTE) return `${s} s`;
  if (s < HOUR) return `${Math.floor(s / MINUTE)} min`;
  if (s < DAY) return `${Math.floor(s / HOUR)} h ${String(Math.floor((s % HOUR) / MINUTE)).padStart(2, "0")}`;
  return `${Math.floor(s / DAY)} d ${Math.floor((s % DAY) / HOUR)} h`;
}

// The service's clock: a laptop whose clock is minutes off must not show "in 3 min" for the past.
let offset = 0;

/** Milliseconds since the epoch by the service's clock. */
export const serverNow = () => Date.now() + offset;

/** Learn from a message that the service sent at `at` (ms). Its travel makes the guess a little late. */
export function learnServerTime(at) {
  if (Number.isFinite(at)) offset = at - Date.now();
}

/** Milliseconds since the epoch of a moment, which is RFC 3339 or already a number. */
export const milliseconds = (at) => (typeof at === "number" ? at : Date.parse(at));

/** The seconds from one moment to another. */
export const secondsBetween = (from, to) => (milliseconds(to) - milliseconds(from)) / 1000;

/** "38 min ago". */
function ago(at) {
  const seconds = secondsBetween(at, serverNow());
  if (!isNumber(seconds)) return NONE;
  if (seconds < 5) return "just now";
  if (seconds < HOUR) return `${duration(seconds)} ago`;
  return seconds < 2 * DAY ? `${Math.round(seconds / HOUR)} h ago` : `${Math.round(seconds / DAY)} d ago`;
}

/** RFC 3339 in whole seconds. */
export function iso(at) {
  const ms = milliseconds(at);
  return isNumber(ms) ? new Date(ms).toISOString().replace(/\.\d+Z$/, "Z") : "";
}

/** Local clock time: 23:10. */
export const clockTime = (at) => new Date(at).toTimeString().slice(0, 5);

/** A <time> that says how long ago, and shows the exact moment on hover and focus. */
export function time(at, { focusable = false } = {}) {
  if (at === null || at === undefined) return h("span.none", NONE);
  const exact = iso(at);
  const tabindex = focusable ? "0" : null;
  return h("time.ago", { datetime: exact, tabindex, data: { iso: exact, focus: exact } }, ago(at));
}

/** Bring every <time> on the page up to now. */
export function refreshTimes() {
  for (const element of document.querySelectorAll("time.ago")) setText(element, ago(element.dateTime));
}

const STEPS = [1, 2, 5, 10];

/** Round values within a range, at most about `most` of them, and their decimals. */
export function ticks(low, high, most) {
  const raw = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = STEPS.find((size) => size * power >= raw * 0.999) * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** The one line of a recorded error that says most, as rules/failure.py has it for a terminal. */
export function headline(error) {
  const lines = error.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!lines.length || ENDED_BY.test(lines[0])) return lines[0] ?? "";
  const cause = lines.findLast((line) => EXCEPTION.test(line));
  if (cause) return cause.replace(/^FAIL[: ]*/, "");
  const last = lines.findLast((line) => !RESULT.test(line)) ?? lines.at(-1);
  return EXIT_CODE.test(lines[0]) && last !== lines[0] ? `${lines[0]}: ${last}` : last;
}
