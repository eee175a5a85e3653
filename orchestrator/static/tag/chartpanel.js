// The frame of the chart: legend, what to fit, which axis, the words for it, the table in its place.

import { h, replace, setText } from "../lib/dom.js";
import { bpb, count, delta, time } from "../lib/format.js";
import { empty } from "../lib/states.js";
import { mark } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { summary } from "./chart.js";
import { defaultX } from "./scales.js";
import { KEEP } from "./series.js";

const FITS = { progress: "Progress", recent: "Recent", all: "All" };
const AXES = { order: "order", time: "time", log: "log" };
const TABLE_ROWS = 200;

function segments(name, label, choices, choose) {
  const inputs = new Map();
  const element = h("div", { class: "segments", role: "radiogroup", "aria-label": label },
    Object.entries(choices).map(([value, words]) => {
      const input = h("input", { type: "radio", name, value, on: { change: () => choose(value) } });
      inputs.set(value, input);
      return h("label", {}, input, h("span", {}, words));
    }));
  return { element, set: (value) => (inputs.get(value).checked = true) };
}

export function chartPanel(chart, { change }) {
  const fit = segments("fit", "Range of val_bpb", FITS, (value) => change({ fit: value }));
  const axis = segments("x", "Axis of runs", AXES, (value) => change({ x: value }));
  const legend = h("ul", { class: "legend", "aria-label": "Legend" });
  const reset = h("button", { type: "button", class: "chip", hidden: true, on: { click: () => chart.resetZoom() } }, "Reset zoom");
  const asTable = h("button", { type: "button", class: "chip", "aria-pressed": "false", on: { click: toggle } }, "Table");
  const words = h("p", { class: "summary", id: "chart-summary" });
  const table = h("div", { class: "scroll keeps-table", hidden: true });
  const nothing = h("div", { hidden: true });
  chart.element.setAttribute("aria-describedby", "chart-summary");
  const element = h("section", { class: "panel chart-panel", "aria-labelledby": "chart-title" },
    h("header", {}, h("h2", { id: "chart-title" }, "Progress"), legend,
      h("div", { class: "end" }, reset, asTable, fit.element, axis.element)),
    nothing, chart.element, table, words);
  let shown = null;

  function toggle() {
    const on = table.hidden;
    table.hidden = !on;
    chart.element.hidden = on;
    asTable.setAttribute("aria-pressed", String(on));
    if (on) replace(table, keepsTable(shown));
    else chart.draw();
  }

  return {
    element,
    x: (state, series) => state.x ?? defaultX(series),
    zoomed: (on) => (reset.hidden = !on),
    show(state, series) {
      shown = series;
      fit.set(state.fit);
      axis.set(state.x ?? defaultX(series));
      setText(words, summary(series));
      legendOf(legend, series, chart.noise);
      if (!table.hidden) replace(table, keepsTable(series));
    },
    /** Before the first verdict there is nothing to draw: say what to do. */
    empty(series, { running, queued }, tag) {
      const none = series.length === 0 && running !== null;
      nothing.hidden = !none;
      if (table.hidden) chart.element.hidden = none;
      words.hidden = none;
      if (none) replace(nothing, running || queued
        ? empty("No verdict yet", null, `${count(running)} running, ${count(queued)} queued: the chart begins with the first verdict.`)
        : empty("No run yet", `uv run autoresearch submit train.py --tag ${tag} --hypothesis "baseline" --wait`, "Workers take it from the queue; this page follows by itself."));
    },
  };
}

function legendOf(legend, series, noise) {
  const item = (status, name, n) => h("li", {}, mark(status), `${name} `, h("span", { class: "mono" }, count(n)));
  replace(legend,
    item("keep", "keep", series.counts[KEEP]), item("discard", "discard", series.discards), item("crash", "crash", series.crashes),
    h("li", { class: "line" }, h("i", { class: "step", "aria-hidden": "true" }), "running best"),
    h("li", { class: "muted", title: noise ? "Two runs of one source differ by less in 19 of 20 cases" : "No source near the best has run twice: Actions can repeat one" },
      noise ? `noise ±${bpb(noise.band)}` : "noise unknown"));
}

/** The chart as a table: what was kept, the latest first. */
function keepsTable(series) {
  const keeps = series.keeps.slice(-TABLE_ROWS).reverse();
  return h("table", {},
    h("caption", { class: "body muted" }, `The running best: ${count(series.keeps.length)} keeps${series.keeps.length > TABLE_ROWS ? `, the latest ${TABLE_ROWS} here` : ""}`),
    h("thead", {}, h("tr", {}, ["Run", "val_bpb", "Gain", "Change", "Category", "Decided"].map((name, i) => h("th", { scope: "col", class: i === 1 || i === 2 || i === 5 ? "num" : null }, name)))),
    h("tbody", {}, keeps.map((keep) => h("tr", {},
      h("th", { scope: "row" }, h("a", { class: "mono", href: `/e/${series.id(keep.row)}` }, `#${count(keep.row + 1)}`)),
      h("td", { class: "num" }, bpb(keep.bpb)),
      h("td", { class: "num" }, Number.isNaN(keep.before) ? h("span", { class: "muted" }, "baseline") : delta(-keep.gain)),
      h("td", {}, visible(keep.text)),
      h("td", {}, visible(series.categories[series.category[keep.row]])),
      h("td", { class: "num" }, time(series.finished[keep.row]))))));
}
