// This run's figures beside its parent's, the best's then and the best's now, with signed differences.

import { h } from "../lib/dom.js";
import { at } from "../lib/curves.js";
import { bpb, delta, deltaClass, number, NONE } from "../lib/format.js";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** The figures of a run in the order in which they are read; `digits` are decimals. */
export const METRICS = [
  { name: "val_bpb", label: "val_bpb", of: (run) => run.val_bpb, digits: 6, judged: true },
  { name: "loss", label: "train loss", of: (run) => run.curve.at(-1)?.loss ?? null, digits: 4 },
  { name: "peak_vram_mb", label: "peak VRAM, GB", of: (run) => gb(run.peak_vram_mb), digits: 1 },
  { name: "tokens_per_second", label: "tokens/s, k", of: pace, digits: 0 },
  { name: "mfu_percent", label: "MFU, %", of: (run) => run.mfu_percent, digits: 1 },
  { name: "num_steps", label: "steps", of: (run) => run.num_steps, digits: 0 },
  { name: "total_tokens_m", label: "tokens, M", of: (run) => run.total_tokens_m, digits: 1 },
  { name: "training_seconds", label: "training, s", of: (run) => run.training_seconds, digits: 1 },
  { name: "num_params_m", label: "parameters, M", of: (run) => run.num_params_m, digits: 1 },
  { name: "depth", label: "depth", of: (run) => run.depth, digits: 0 },
];

function gb(megabytes) {
  return known(megabytes) ? megabytes / 1024 : null;
}

function pace(run) {
  return known(run.total_tokens_m) && run.training_seconds > 0 ? (run.total_tokens_m * 1000) / run.training_seconds : null;
}

export const shownMetric = (metric, value) =>
  !known(value) ? NONE : metric.judged ? bpb(value) : number(value, metric.digits);

export function shownDelta(metric, value, base) {
  if (!known(value) || !known(base)) return null;
  const difference = value - base;
  return h(
    "span",
    { class: metric.judged ? deltaClass(difference) : "delta" },
    delta(difference, { digits: metric.digits, same: "=" }),
  );
}

/** The figures, for a run that is under way: its loss against theirs at equal progress. */
function metricsFor(run) {
  const now = run.curve.at(-1);
  if (run.status !== "running" || !now) return METRICS;
  const loss = { name: "loss", label: `train loss, ${Math.round(now.percent)} %`, of: (other) => at(other.curve, now.percent), digits: 4 };
  return METRICS.map((metric) => (metric.name === "loss" ? loss : metric));
}

/**
 * `columns` are { label, run, href } of other runs; a run that stands in two columns is one of them
 * only, with both names.
 */
export function metricTable(run, columns) {
  const rows = metricsFor(run).filter(({ name, of }) => name === "val_bpb" || known(of(run)) || columns.some((column) => known(of(column.run))));
  return h(
    "table",
    { class: "metrics" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Metric")),
        h("th", { scope: "col", class: "num" }, "This"),
        columns.map(({ label, href }) => h("th", { scope: "col", class: "num", colspan: 2 }, h("a", { href }, label))),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((metric) =>
        h(
          "tr",
          { class: metric.judged ? "judged" : null },
          h("th", { scope: "row" }, metric.label),
          h("td", { class: "num own" }, shownMetric(metric, metric.of(run))),
          columns.map(({ run: other }) => [
            h("td", { class: "num" }, shownMetric(metric, metric.of(other))),
            h("td", { class: "num change" }, shownDelta(metric, metric.of(run), metric.of(other))),
          ]),
        ),
      ),
    ),
  );
}

/** The other runs of a page, each once: { label, run, href }, labels of one run joined. */
export function merged(others) {
  const columns = [];
  for (const { label, run } of others) {
    const same = columns.find((column) => column.run.id === run.id);
    if (same) same.label = `${same.label} = ${label.toLowerCase()}`;
    else columns.push({ label, run, href: `/e/${run.id}` });
  }
  return columns;
}
