// The verdict strip: best, last keep, runs, last hour, mode.

import { h, replace } from "../lib/dom.js";
import { bpb, count, delta, deltaClass, percent, time } from "../lib/format.js";
import { serverNow } from "../lib/clock.js";
import { plain } from "../lib/visible.js";
import { KEEP } from "./series.js";

const HOUR = 3_600_000;

const cell = (name, label, ...content) => h("div", { class: name }, h("dt", {}, label), h("dd", {}, content));

export function strip() {
  const element = h("dl", { class: "strip verdict" });
  return {
    element,
    /** `active` counts { running, queued }. */
    show(series, active) {
      replace(element, best(series), lastKeep(series), runs(series, active), lastHour(series), mode(series));
    },
  };
}

function best(series) {
  const value = series.best;
  const gain = value - series.baseline;
  return cell(
    "best", "Best val_bpb",
    h("div", { class: "big" }, series.lastKeep ? h("a", { href: `/e/${series.id(series.lastKeep.row)}` }, bpb(value)) : "—"),
    h("div", { class: "note cut" }, series.keeps.length > 1
      ? [h("span", { class: `mono ${deltaClass(gain)}` }, delta(gain)), ` vs baseline ${bpb(series.baseline)}`]
      : series.keeps.length ? "the baseline; nothing has beaten it yet" : "no result yet"),
  );
}

function lastKeep(series) {
  const keep = series.lastKeep;
  if (!keep) return cell("", "Last keep", h("div", { class: "value" }, "—"), h("div", { class: "note" }, "none yet"));
  const since = series.length - 1 - keep.row;
  const text = plain(keep.text);
  return cell(
    "", "Last keep",
    h("div", { class: "value" }, h("a", { href: `/e/${series.id(keep.row)}`, data: { focus: "last keep" } }, `#${count(keep.row + 1)}`),
      h("span", { class: "unit" }, since ? `${count(since)} ${since === 1 ? "run" : "runs"} ago` : "the latest run")),
    h("div", { class: "note cut", title: text }, time(series.finished[keep.row]), text && ` · ${text}`),
  );
}

function runs(series, { running, queued }) {
  const parts = { keep: series.counts[KEEP], discard: series.discards, crash: series.crashes };
  const known = running !== null;
  return cell(
    "runs", "Runs",
    h("div", { class: "value" }, count(series.length),
      known && (running > 0 || queued > 0) && h("span", { class: "unit" }, `+ ${count(running)} running, ${count(queued)} queued`)),
    h("div", { class: "shares", "aria-hidden": "true" },
      Object.entries(parts).map(([name, n]) => n > 0 && h("i", { class: name, style: { "flex-grow": String(n) } }))),
    h("div", { class: "note cut" }, `${count(parts.keep)} keep · ${count(parts.discard)} discard · ${count(parts.crash)} crash`),
  );
}

function lastHour(series) {
  const { runs: n, keep, crash } = series.tally(series.firstSince(serverNow() - HOUR));
  return cell(
    "hour", "Last hour",
    h("div", { class: "value" }, count(n), h("span", { class: "unit" }, n === 1 ? "run" : "runs")),
    h("div", { class: "note cut" }, n ? `${count(keep)} keep · ${count(crash)} crash (${percent(crash / n)})` : "nothing was decided"),
  );
}

function mode(series) {
  const { strategy } = series;
  if (!strategy) return cell("", "Strategy", h("div", { class: "value" }, "—"));
  const reason = plain(strategy.reason);
  return cell(
    "", "Strategy",
    h("div", { class: "value" }, strategy.mode, strategy.pinned && h("span", { class: "unit pin" }, "pinned")),
    h("div", { class: "note cut", title: reason }, reason),
  );
}
