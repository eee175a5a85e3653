// The strip of figures: best, last keep, runs, last hour, strategy.

import { h, replace } from "../lib/dom.js";
import { NONE, bpb, count, delta, deltaClass, percent, plural, serverNow, time } from "../lib/format.js";
import { stripCell } from "../lib/parts.js";
import { plain, prose } from "../lib/visible.js";
import { KEEP } from "./series.js";

const HOUR_MS = 3_600_000;
const ESTIMATE = "What the keep rule race believes of the champion, from all runs of its source. A single run reads higher or lower.";

/** A small word beside a value. */
const unit = (text) => h("span.unit", text);

/** Fill `element`; `active` counts { running, queued, candidates }, null where not known yet. */
export function showStrip(element, series, active) {
  replace(element, best(series), lastKeep(series), runs(series, active), lastHour(series), strategy(series));
}

function best(series) {
  const { best: value, baseline, bestRow: row, race } = series;
  const gain = value - baseline;
  const note = series.keeps.length > 1
    ? [h("span", { class: `mono ${deltaClass(gain)}` }, delta(gain)), ` vs baseline ${bpb(baseline)}`]
    : row >= 0 ? "the baseline; nothing has beaten it yet" : "no result yet";
  const link = row >= 0 ? h("a", { href: `/e/${series.id(row)}` }, bpb(value)) : NONE;
  const label = race ? ["Best val_bpb, ", h("span", { title: ESTIMATE }, "an estimate")] : "Best val_bpb";
  return stripCell(label, link, note, { kind: "best", size: "big" });
}

function lastKeep(series) {
  const keep = series.lastKeep;
  if (!keep) return stripCell("Last keep", NONE, "none yet");
  const since = series.length - 1 - keep.row;
  const text = plain(keep.text);
  const attributes = { href: `/e/${series.id(keep.row)}`, data: { focus: "last keep" } };
  return stripCell(
    "Last keep",
    [h("a", attributes, `#${count(keep.row + 1)}`), unit(since ? `${plural(since, "run")} ago` : "the latest run")],
    [time(series.finished[keep.row]), text && [" · ", prose(keep.text)]],
    { title: text },
  );
}

function runs(series, { running, queued, candidates }) {
  const parts = { keep: series.counts[KEEP], discard: series.discards, crash: series.crashes };
  const bars = Object.entries(parts).map(([name, n]) => n > 0 && h(`i.${name}`, { style: { "flex-grow": n } }));
  const underWay = (running > 0 || queued > 0) && unit(`+ ${count(running)} running, ${count(queued)} queued`);
  const waiting = candidates > 0 && ` · ${plural(candidates, "candidate")}`;
  return stripCell(
    "Runs",
    [count(series.length), underWay],
    [Object.entries(parts).map(([name, n]) => `${count(n)} ${name}`).join(" · "), waiting],
    { kind: "runs", extra: h("div.shares", { "aria-hidden": "true" }, bars) },
  );
}

function lastHour(series) {
  const { runs: n, keep, crash } = series.tally(series.firstSince(serverNow() - HOUR_MS));
  const note = n ? `${count(keep)} keep · ${count(crash)} crash (${percent(crash / n)})` : "nothing was decided";
  return stripCell("Last hour", [count(n), unit(n === 1 ? "run" : "runs")], note);
}

function strategy({ strategy: current }) {
  if (!current) return stripCell("Strategy", NONE);
  const reason = plain(current.reason);
  const pinned = current.pinned && h("span.unit.pin", "pinned");
  return stripCell("Strategy", [current.mode, pinned], prose(current.reason), { title: reason });
}
