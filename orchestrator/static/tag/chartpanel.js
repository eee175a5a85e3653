// The frame of the chart: legend, range, axis, the words for it, and the table in its place.

import { h, replace, setText } from "../lib/dom.js";
import { bpb, count, delta, plural, time } from "../lib/format.js";
import { headings, mark, panel, segments } from "../lib/parts.js";
import { empty } from "../lib/states.js";
import { prose, visible } from "../lib/visible.js";
import { KEEP } from "./series.js";
import { defaultX } from "./view.js";

const FITS = { progress: "Progress", recent: "Recent", all: "All" };
const AXES = { order: "order", time: "time", log: "log" };
const TABLE_ROWS = 200;
const num = (name) => ({ name, kind: "num" });
const COLUMNS = ["Run", num("val_bpb"), num("Gain"), "Change", "Category", num("Decided")];

export function chartPanel(chart, change) {
  const fit = segments("fit", "Range of val_bpb", FITS, (value) => change({ fit: value }));
  const axis = segments("x", "Axis of runs", AXES, (value) => change({ x: value }));
  const legend = h("ul.legend", { "aria-label": "Legend" });
  const asTable = h("button.chip", { "aria-pressed": "false", onclick: toggle }, "Table");
  const words = h("p.summary", { id: "chart-summary" });
  const table = h("div.scroll.keeps-table", { hidden: true });
  const nothing = h("div", { hidden: true });
  chart.element.setAttribute("aria-describedby", "chart-summary");
  const end = [chart.resetButton, asTable, fit.element, axis.element];
  const element = panel("Progress", { kind: ".chart-panel", id: "chart-title", note: legend, end },
    nothing, chart.element, table, words,
  );
  let shown = null;

  function toggle() {
    const on = table.hidden;
    table.hidden = !on;
    chart.element.hidden = on;
    asTable.ariaPressed = String(on);
    if (on) replace(table, keepsTable(shown));
    else chart.draw();
  }

  function show(state, series, noise) {
    shown = series;
    fit.set(state.fit);
    axis.set(state.x ?? defaultX(series));
    setText(words, summary(series));
    replace(legend, legendItems(series, noise));
    if (!table.hidden) replace(table, keepsTable(series));
  }

  /** Before the first verdict there is nothing to draw: say what to do. */
  function showActive(series, { running, queued }, tag) {
    const none = series.length === 0 && running !== null;
    nothing.hidden = !none;
    if (table.hidden) chart.element.hidden = none;
    words.hidden = none;
    if (none) replace(nothing, running || queued ? waiting(running, queued) : firstRun(tag));
  }

  return { element, show, showActive };
}

function waiting(running, queued) {
  const counts = `${count(running)} running, ${count(queued)} queued`;
  return empty("No verdict yet", null, `${counts}: the chart begins with the first verdict.`);
}

const firstRun = (tag) =>
  empty("No run yet", `uv run autoresearch submit train.py --tag ${tag} --hypothesis "baseline" --wait`,
    "Workers take it from the queue; this page follows by itself.");

function legendItems(series, noise) {
  const item = (status, n) => h("li", mark(status), `${status} `, h("span.mono", count(n)));
  const seeds = series.race ? " with different seeds" : "";
  const note = noise
    ? `Two runs of one source${seeds} differ by less in 19 of 20 cases`
    : "No source near the best has run twice: Actions can repeat one";
  const provisional = series.race?.provisional.length ?? 0;
  return [
    item("keep", series.counts[KEEP]),
    provisional > 0 && item("provisional", provisional),
    item("discard", series.discards),
    item("crash", series.crashes),
    h("li.line", h("i.step", { "aria-hidden": "true" }), "running best"),
    h("li.muted", { title: note }, noise ? `noise ±${bpb(noise.band)}` : "noise unknown"),
  ];
}

/** The chart as a table: what was kept, the latest first. */
function keepsTable(series) {
  const keeps = series.keeps.slice(-TABLE_ROWS).reverse();
  const part = series.keeps.length > TABLE_ROWS ? `, the latest ${TABLE_ROWS} here` : "";
  const row = ({ row: place, bpb: value, before, gain, text }) => h("tr",
    h("th", { scope: "row" }, h("a.mono", { href: `/e/${series.id(place)}` }, `#${count(place + 1)}`)),
    h("td.num", bpb(value)),
    h("td.num", Number.isNaN(before) ? h("span.muted", "baseline") : delta(-gain)),
    h("td", prose(text)),
    h("td", visible(series.categoryOf(place))),
    h("td.num", time(series.finished[place])),
  );
  return h("table",
    h("caption.body.muted", `The running best: ${count(series.keeps.length)} keeps${part}`),
    headings(COLUMNS),
    h("tbody", keeps.map(row)),
  );
}

/** The chart in words, for screen readers and for people in a hurry. */
function summary(series) {
  const { length, best, baseline, bestRow: row } = series;
  const estimates = series.keepRule === "race" ? ": a keep's value is an estimate from all seeds of its source" : "";
  const rule = ` Keep rule ${series.keepRule}${estimates}.` + (series.earlyStop ? ` Early stop: ${series.earlyStop}.` : "");
  if (!length) return `No run has been decided yet.${rule}`;
  const runs = `${plural(length, "run")} decided: ${count(series.counts[KEEP])} kept, ` +
    `${count(series.discards)} discarded, ${count(series.crashes)} crashed.`;
  if (Number.isNaN(best)) return `${runs} None has a result yet.${rule}`;
  const isFirst = row === series.keeps[0].row;
  const gain = isFirst ? "the first result" : `${delta(best - baseline)} against the baseline ${bpb(baseline)}`;
  const ago = row === length - 1 ? "the latest run" : `${plural(length - 1 - row, "run")} ago`;
  return `${runs} Best ${bpb(best)}, ${gain}, reached by run ${count(row + 1)}, ${ago}.${rule}`;
}
