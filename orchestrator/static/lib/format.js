// How numbers and times read, everywhere the same.

import { h } from "./dom.js";
import { serverNow } from "./clock.js";

export const NONE = "—";
const MINUS = "−";
const groups = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** val_bpb: six decimals, or a dash. */
export function bpb(value) {
  return known(value) ? value.toFixed(6) : NONE;
}

/** A signed difference: −0.000411, +0.000500; nothing between them reads `same`. */
export function delta(value, { digits = 6, same = "= best" } = {}) {
  if (!known(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return same;
  return (value < 0 ? MINUS : "+") + text;
}

/** 12,345. */
export function count(value) {
  return known(value) ? groups.format(value) : NONE;
}

/** A number with fixed decimals, grouped. */
export function number(value, digits = 1) {
  if (!known(value)) return NONE;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** A share as percent: 7%, and "<1%" for what would read as none. */
export function percent(share) {
  if (!known(share)) return NONE;
  if (share > 0 && share < 0.005) return "<1%";
  return `${Math.round(share * 100)}%`;
}

/** GB of MB, one decimal. */
export function gigabytes(megabytes) {
  return known(megabytes) && megabytes > 0 ? (megabytes / 1024).toFixed(1) : NONE;
}

/** A length of time: 45 s, 12 min, 3 h 05, 2 d 4 h. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** Milliseconds since the epoch from what the API says, which is RFC 3339, or a number already. */
export function milliseconds(at) {
  return typeof at === "number" ? at : Date.parse(at);
}

/** "38 min ago". */
export function ago(at, now = serverNow()) {
  const seconds = (now - milliseconds(at)) / 1000;
  if (!known(seconds)) return NONE;
  if (seconds < 5) return "just now";
  if (seconds < 86_400 * 2 && seconds >= 3600) return `${Math.round(seconds / 3600)} h ago`;
  if (seconds >= 86_400 * 2) return `${Math.round(seconds / 86_400)} d ago`;
  return `${duration(seconds)} ago`;
}

export function iso(at) {
  const ms = milliseconds(at);
  return known(ms) ? new Date(ms).toISOString().replace(/\.\d+Z$/, "Z") : "";
}

/** A <time> that says how long ago, keeps saying it, and shows the exact moment on hover and focus. */
export function time(at, { focusable = false } = {}) {
  if (at === null || at === undefined) return h("span", { class: "none" }, NONE);
  const exact = iso(at);
  return h(
    "time",
    { datetime: exact, class: "ago", tabindex: focusable ? "0" : null, data: { iso: exact, focus: exact } },
    ago(at),
  );
}

/** Lets every <time> on the page say the present distance. */
export function refreshTimes(root = document) {
  for (const element of root.querySelectorAll("time.ago")) {
    const text = ago(element.dateTime);
    if (element.firstChild?.nodeValue !== text) element.textContent = text;
  }
}

/** A value with its class for a difference in val_bpb, of which less is better. */
export function deltaClass(value) {
  if (!known(value) || Number(value.toFixed(6)) === 0) return "delta";
  return value < 0 ? "delta better" : "delta worse";
}

// How an error begins in which the worker knows what ended the run.
const ENDED_BY = /^(killed by|stopped after) /;
const EXCEPTION = /^([\w.]*(Error|Exception|Interrupt|Exit)\b|FAIL\b)/;

/** The one line of a recorded error that says most, as rules/failure.py has it for a terminal. */
export function headline(error) {
  const lines = error.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!lines.length || ENDED_BY.test(lines[0])) return lines[0] ?? "";
  return (lines.findLast((line) => EXCEPTION.test(line)) ?? lines.at(-1)).replace(/^FAIL[: ]*/, "");
}
