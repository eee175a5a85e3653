// Why this verdict? The sentence, the numbers, the curves, the evidence; live up to the verdict.

import { h, replace, setText } from "../lib/dom.js";
import { get } from "../lib/api.js";
import * as keys from "../lib/keys.js";
import * as live from "../lib/live.js";
import { curveChart } from "../lib/curves.js";
import { failed, loading } from "../lib/states.js";
import { throttled } from "../lib/throttle.js";
import { sheet } from "../lib/sheet.js";
import { plain } from "../lib/visible.js";
import { crashLead } from "./crash.js";
import { facts } from "./facts.js";
import { head } from "./head.js";
import { merged, metricTable } from "./metrics.js";
import { sentence } from "./sentence.js";
import { tabs } from "./tabs.js";

await sheet("/static/experiment/style.css");

const EVENT_MS = 250;
const PROGRESS_MS = 2000;
const CURVES = { parent: "Parent", best_then: "Best then", best_now: "Best now" };

export function mount(root, params, ctx) {
  const { id } = params;
  const page = { run: null, around: null, closed: false };
  const others = new Map(); // details of the runs around this one, which are over
  const waiting = h("div");
  const problem = h("p", { class: "problem", role: "alert" });
  const top = head(ctx, { changed: () => refresh() });
  const lead = crashLead(id);
  const table = h("div", { class: "body metrics-body" });
  const chart = curveChart({ label: "Learning curves", empty: "The curve begins with the first step." });
  const details = h("div", { class: "body" });
  const evidence = tabs(id, params.query, ctx);
  const body = h(
    "div",
    { hidden: true },
    top.element,
    lead.element,
    h(
      "div",
      { class: "evidence" },
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Metrics")), table),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Learning curves"), h("span", { class: "muted" }, "training loss at equal progress")), h("div", { class: "body" }, chart.element)),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Run")), details),
    ),
    evidence.element,
  );
  replace(root, h("div", { class: "experiment" }, problem, waiting, body));
  ctx.setTitle(id);
  const done = loading(waiting, { lines: 8, label: "Loading the experiment" });

  async function load() {
    try {
      const path = `/api/experiment/${encodeURIComponent(id)}`;
      const [run, around] = await Promise.all([get(path), get(`${path}/surroundings`)]);
      await loadOthers(around);
      setText(problem, "");
      if (!page.closed) show(run, around);
    } catch (error) {
      if (page.closed) return;
      if (page.run === null) replace(waiting, failed(error, () => refresh()));
      else setText(problem, `${error.message} What you see is older.`);
    } finally {
      done();
    }
  }

  async function loadOthers(around) {
    const wanted = Object.keys(CURVES).map((name) => around[name]?.id).filter((other) => other && other !== id && !others.has(other));
    const found = await Promise.all([...new Set(wanted)].map((other) => get(`/api/experiment/${encodeURIComponent(other)}`)));
    for (const run of found) others.set(run.id, run);
  }

  function show(run, around) {
    const before = page.run;
    Object.assign(page, { run, around });
    replace(waiting);
    body.hidden = false;
    ctx.setTitle(`${run.status}: ${plain(run.hypothesis).slice(0, 60)}`);
    top.update(run, around);
    lead.update(run);
    const beside = merged(
      Object.entries(CURVES)
        .filter(([name]) => around[name] && around[name].id !== id && others.has(around[name].id))
        .map(([name, label]) => ({ label, run: others.get(around[name].id) })),
    );
    replace(table, metricTable(run, beside), run.val_bpb === null && h("p", { class: "muted note" }, nothingYet(run)));
    chart.update([
      { id, label: "This", kind: "this", points: run.curve },
      ...beside.map(({ label, run: other }) => ({ id: other.id, label, kind: label.startsWith("Parent") ? "parent" : label.startsWith("Best then") ? "then" : "best", points: other.curve })),
    ]);
    replace(details, facts(run));
    evidence.update(run, around);
    if (before && before.status !== run.status) {
      const { lead: word, rest } = sentence(run, around);
      ctx.announce(`${word}: ${rest}`);
    }
  }

  const refresh = throttled(load, EVENT_MS);
  const stop = live.subscribe(({ kind, subject, tag }) => {
    // Whatever happens to the tag may move the best now, the neighbours, the place in the queue.
    if (kind === "resumed" || subject === id || (tag && tag === page.run?.tag)) refresh();
  });
  const timer = setInterval(() => page.run?.status === "running" && refresh(), PROGRESS_MS);
  const unbind = keys.bind({ ...evidence.keys, ...top.keys });
  refresh();

  return {
    update({ query }) {
      evidence.navigated(query);
    },
    unmount() {
      page.closed = true;
      stop();
      unbind();
      done();
      clearInterval(timer);
      refresh.cancel();
      chart.close();
      evidence.close();
      lead.close();
    },
  };
}

function nothingYet(run) {
  if (run.status === "queued" || run.status === "running") return "The figures come with the verdict.";
  return "It ended without a result.";
}
