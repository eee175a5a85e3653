// Metrics and facts as rows, runs as columns. Rows whose known values are all equal come last, folded.

import { h } from "../lib/dom.js";
import { NONE, time } from "../lib/format.js";
import { badge } from "../lib/parts.js";
import { plain, prose } from "../lib/visible.js";
import { METRICS, shownDelta, shownMetric } from "../experiment/metrics.js";
import { letter } from "./chips.js";

const short = (hash) => hash?.slice(0, 12);

const FACTS = [
  { label: "verdict", of: (run) => run.status, show: (run) => badge(run.status) },
  { label: "hypothesis", of: (run) => run.hypothesis, kind: "long" },
  { label: "category", of: (run) => run.category },
  { label: "best then", of: (run) => run.best_val_bpb_before?.toFixed(6) },
  { label: "parent", of: (run) => run.parent_id, show: parentLink },
  { label: "tag", of: (run) => run.tag },
  { label: "seed", of: (run) => run.seed },
  { label: "budget, s", of: (run) => run.time_budget_seconds },
  { label: "GPU", of: (run) => run.environment.gpu_name ?? run.gpu_id },
  { label: "host", of: (run) => run.environment.host },
  { label: "torch", of: (run) => run.environment.torch_version },
  { label: "driver", of: (run) => run.environment.driver_version },
  { label: "profile", of: (run) => run.environment.profile },
  { label: "sandbox", of: (run) => run.environment.sandbox },
  { label: "prepare.py", of: (run) => short(run.prepare_sha256) },
  { label: "validation text", of: (run) => short(run.environment.validation_sha256) },
  { label: "training data", of: (run) => short(run.environment.data_sha256) },
  { label: "source", of: (run) => short(run.source_sha256) },
  { label: "attempts", of: (run) => run.attempts.length },
  { label: "warnings", of: (run) => run.warnings.join("; "), kind: "long" },
  { label: "decided", of: (run) => run.finished_at, show: (run) => time(run.finished_at) },
];

function parentLink({ parent_id: id }) {
  return h("a", { href: `/e/${id}`, title: id }, `${short(id)}…`);
}

const isKnown = (value) => (value ?? "") !== "";
let unfolded = false; // stays while runs are exchanged

export function compareTable(runs, base) {
  const rows = [
    ...METRICS.map((metric) => ({ ...metric, cell: (run) => metricCell(metric, run, base) })),
    ...FACTS.map((fact) => ({ ...fact, cell: (run) => factCell(fact, run) })),
  ].map((row) => ({ ...row, distinct: new Set(runs.map(row.of).filter(isKnown).map(String)).size }));
  const differing = rows.filter(({ distinct }) => distinct > 1);
  const equal = rows.filter(({ distinct }) => distinct === 1);
  const line = ({ label, cell, judged }) =>
    h("tr", { class: judged ? "judged" : null }, h("th", { scope: "row" }, label), runs.map(cell));
  const folded = h("tbody", { id: "equal-rows" }, equal.map(line));
  return h("table.metrics.compared",
    h("thead", h("tr",
      h("th", { scope: "col" }, h("span.visually-hidden", "Figure")),
      runs.map((run, place) => heading(run, place, base)),
    )),
    h("tbody", differing.map(line)),
    equal.length > 0 && h("tbody", h("tr", h("td", { colspan: runs.length + 1 }, foldButton(folded, equal.length)))),
    folded,
  );
}

function foldButton(folded, n) {
  const attributes = { data: { focus: "alike" }, "aria-controls": "equal-rows", onclick: () => show(!unfolded) };
  const button = h("button.plain", attributes, `${n} more are alike in all`);
  const show = (open) => {
    unfolded = open;
    folded.hidden = !open;
    button.ariaExpanded = String(open);
  };
  show(unfolded);
  return button;
}

function heading(run, place, base) {
  return h("th.num", { scope: "col" },
    h(`b.letter.run-${place}`, letter(place)),
    run === base && " base",
    h("span.visually-hidden", ` ${plain(run.hypothesis)}`),
  );
}

function metricCell(metric, run, base) {
  const difference = run === base ? null : shownDelta(metric, metric.of(run), metric.of(base));
  return h("td.num", shownMetric(metric, metric.of(run)), h("span.change", difference));
}

function factCell({ of, show, kind = "num" }, run) {
  const value = of(run);
  if (!isKnown(value)) return h("td.num.none", NONE);
  if (show) return h("td.num", show(run));
  const text = plain(String(value));
  return h("td", { class: kind, title: text }, prose(value));
}
