// Figures as rows, runs as columns. Rows in which all runs are alike, as far as they are known, come
// last, folded.

import { h } from "../lib/dom.js";
import { time } from "../lib/format.js";
import { badge } from "../lib/status.js";
import { plain } from "../lib/visible.js";
import { METRICS, shownDelta, shownMetric } from "../experiment/metrics.js";
import { letter } from "./chips.js";

const FACTS = [
  { label: "verdict", of: (run) => run.status, show: (run) => badge(run.status) },
  { label: "hypothesis", of: (run) => run.hypothesis, long: true },
  { label: "category", of: (run) => run.category },
  { label: "best then", of: (run) => run.best_val_bpb_before?.toFixed(6) },
  { label: "parent", of: (run) => run.parent_id, link: true },
  { label: "tag", of: (run) => run.tag },
  { label: "seed", of: (run) => run.seed },
  { label: "budget, s", of: (run) => run.time_budget_seconds },
  { label: "GPU", of: (run) => run.environment.gpu_name ?? run.gpu_id },
  { label: "host", of: (run) => run.environment.host },
  { label: "torch", of: (run) => run.environment.torch_version },
  { label: "driver", of: (run) => run.environment.driver_version },
  { label: "profile", of: (run) => run.environment.profile },
  { label: "prepare.py", of: (run) => run.prepare_sha256?.slice(0, 12) },
  { label: "validation text", of: (run) => run.environment.validation_sha256?.slice(0, 12) },
  { label: "source", of: (run) => run.source_sha256?.slice(0, 12) },
  { label: "attempts", of: (run) => run.attempts.length },
  { label: "warnings", of: (run) => run.warnings.join("; "), long: true },
  { label: "decided", of: (run) => run.finished_at, show: (run) => time(run.finished_at) },
];

const NOTHING = new Set([null, undefined, ""]);

export function compareTable(runs, base) {
  const rows = [
    ...METRICS.map((metric) => ({ label: metric.label, values: runs.map(metric.of), judged: metric.judged, cell: (run) => metricCell(metric, run, base) })),
    ...FACTS.map((fact) => ({ label: fact.label, values: runs.map(fact.of), cell: (run) => factCell(fact, run) })),
  ].filter(({ values }) => values.some((value) => !NOTHING.has(value)));
  const differing = rows.filter(({ values }) => new Set(values.filter((value) => !NOTHING.has(value)).map(String)).size > 1);
  const equal = rows.filter((row) => !differing.includes(row));
  const columns = runs.length + 1;
  const folded = h("tbody", { id: "equal-rows", hidden: !compareTable.open }, equal.map((row) => line(row, runs)));
  const button = h(
    "button",
    {
      type: "button", class: "plain", data: { focus: "alike" }, "aria-expanded": String(compareTable.open), "aria-controls": "equal-rows",
      on: {
        click: () => {
          compareTable.open = folded.hidden;
          folded.hidden = !compareTable.open;
          button.setAttribute("aria-expanded", String(compareTable.open));
        },
      },
    },
    `${equal.length} more are alike in all`,
  );
  return h(
    "table",
    { class: "metrics compared" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Figure")), runs.map((run, place) => heading(run, place, base)))),
    h("tbody", {}, differing.map((row) => line(row, runs))),
    equal.length > 0 && h("tbody", {}, h("tr", {}, h("td", { colspan: columns }, button))),
    folded,
  );
}
// Whether the rows that are alike are unfolded: it stays so while runs are exchanged.
compareTable.open = false;

function heading(run, place, base) {
  return h(
    "th",
    { scope: "col", class: "num", colspan: 1 },
    h("b", { class: `letter run-${place}` }, letter(place)),
    run === base ? " base" : "",
    h("span", { class: "visually-hidden" }, ` ${plain(run.hypothesis)}`),
  );
}

const line = ({ label, cell, judged }, runs) =>
  h("tr", { class: judged ? "judged" : null }, h("th", { scope: "row" }, label), runs.map(cell));

function metricCell(metric, run, base) {
  const difference = run === base ? null : shownDelta(metric, metric.of(run), metric.of(base));
  return h("td", { class: "num" }, shownMetric(metric, metric.of(run)), h("span", { class: "change" }, difference));
}

function factCell(fact, run) {
  const value = fact.of(run);
  if (NOTHING.has(value)) return h("td", { class: "num none" }, "—");
  if (fact.show) return h("td", { class: "num" }, fact.show(run));
  if (fact.link) return h("td", { class: "num" }, h("a", { href: `/e/${value}`, title: value }, `${value.slice(0, 12)}…`));
  return h("td", { class: fact.long ? "long" : "num", title: plain(String(value)) }, plain(String(value)));
}
