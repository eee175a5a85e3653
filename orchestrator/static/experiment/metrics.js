// This run's metrics beside those of its parent, the best then and the best now, with signed
// differences.

import { h } from "../lib/dom.js";
import { lossAt } from "../lib/curves.js";
import { delta, deltaClass, isNumber, number } from "../lib/format.js";

const LOSS = { label: "train loss", of: (run) => run.curve.at(-1)?.loss, digits: 4 };

/**
 * Metrics in the order in which they are read; `digits` are decimals, `judged` decides the verdict. A CPU
 * reports `unmeasured` for what only a GPU measures.
 */
export const METRICS = [
  { label: "val_bpb", of: (run) => run.val_bpb, digits: 6, judged: true },
  LOSS,
  { label: "peak VRAM, GB", of: (run) => (isNumber(run.peak_vram_mb) ? run.peak_vram_mb / 1024 : null), digits: 1, unmeasured: 0 },
  { label: "tokens/s, k", of: thousandTokensPerSecond, digits: 0 },
  { label: "MFU, %", of: (run) => run.mfu_percent, digits: 1, unmeasured: 0 },
  { label: "steps", of: (run) => run.num_steps, digits: 0 },
  { label: "tokens, M", of: (run) => run.total_tokens_m, digits: 1 },
  { label: "training, s", of: (run) => run.training_seconds, digits: 1 },
  { label: "parameters, M", of: (run) => run.num_params_m, digits: 1 },
  { label: "depth", of: (run) => run.depth, digits: 0 },
];

function thousandTokensPerSecond({ total_tokens_m: tokens, training_seconds: seconds }) {
  return isNumber(tokens) && seconds > 0 ? (tokens * 1000) / seconds : null;
}

const isMeasured = (metric, value) => isNumber(value) && value !== metric.unmeasured;

export const shownMetric = (metric, value) => number(isMeasured(metric, value) ? value : null, metric.digits);

export function shownDelta(metric, value, base) {
  if (!isMeasured(metric, value) || !isMeasured(metric, base)) return null;
  const difference = value - base;
  const kind = metric.judged ? deltaClass(difference) : null;
  return h("span", { class: kind }, delta(difference, { digits: metric.digits, same: "=" }));
}

/** The metrics of a run; while it runs, its loss is compared at equal progress. */
function metricsFor(run) {
  const now = run.curve.at(-1);
  if (run.status !== "running" || !now) return METRICS;
  const label = `train loss, ${Math.round(now.percent)} %`;
  const loss = { ...LOSS, label, of: (other) => lossAt(other.curve, now.percent) };
  return METRICS.map((metric) => (metric === LOSS ? loss : metric));
}

/** `columns` are { label, run } of other runs. */
export function metricTable(run, columns) {
  const runs = [run, ...columns.map((column) => column.run)];
  const metrics = metricsFor(run).filter(({ judged, of }) => judged || runs.some((one) => isNumber(of(one))));
  const heading = ({ label, run: other }) =>
    h("th.num", { scope: "col", colspan: 2 }, h("a", { href: `/e/${other.id}` }, label));
  const row = (metric) => {
    const [own, ...values] = runs.map(metric.of);
    return h("tr", { class: metric.judged ? "judged" : null },
      h("th", { scope: "row" }, metric.label),
      h("td.num.own", shownMetric(metric, own)),
      values.map((value) => [
        h("td.num", shownMetric(metric, value)),
        h("td.num.change", shownDelta(metric, own, value)),
      ]),
    );
  };
  return h("table.metrics",
    h("thead", h("tr",
      h("th", { scope: "col" }, h("span.visually-hidden", "Metric")),
      h("th.num", { scope: "col" }, "This"),
      columns.map(heading),
    )),
    h("tbody", metrics.map(row)),
  );
}
