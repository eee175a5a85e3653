// Why this verdict? The sentence, the numbers, the curves, the evidence; live up to the verdict.

import { h, replace, setText } from "../lib/dom.js";
import { get } from "../lib/api.js";
import * as keys from "../lib/keys.js";
import * as live from "../lib/live.js";
import { curveChart } from "../lib/curves.js";
import { learnNumbers, numberOf } from "../lib/numbers.js";
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
const TAG_MS = 5000;
// Numbers adorn: where a long history is read for the first time, the page does not wait for them.
const NUMBERS_MS = 150;
const PROGRESS_MS = 2000;
const CURVES = { parent: "Parent", best_then: "Best then", best_now: "Best now" };

export function mount(root, params, ctx) {
  const { id } = params;
  const page = { run: null, around: null, number: "", closed: false };
  const others = new Map(); // details of the runs around this one, which are over
  const waiting = h("div");
  const problem = h("p", { class: "problem", role: "alert" });
  const top = head(ctx, { changed: () => refresh() });
  const lead = crashLead(id);
  const table = h("div", { class: "body metrics-body" });
  const note = h("span", { class: "muted" });
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
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Metrics"), note), table),
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
      const numbered = learnNumbers(decided(run, around)).catch(() => {});
      await Promise.all([loadOthers(around), Promise.race([numbered, pause(NUMBERS_MS)])]);
      setText(problem, "");
      done();
      if (!page.closed) show(run, around);
      await numbered;
      if (!page.closed && page.run === run && page.number !== numberOf(id)) show(run, around);
    } catch (error) {
      if (page.closed) return;
      if (page.run === null) replace(waiting, failed(error, () => refresh()));
      else setText(problem, `${error.message} What you see is older.`);
    } finally {
      done();
    }
  }

  /** Those of the page's runs that have a number. */
  function decided(run, around) {
    const related = Object.values(around).filter((one) => one?.finished_at);
    return [run, ...related].filter(({ finished_at: at }) => at).map((one) => one.id);
  }

  async function loadOthers(around) {
    const wanted = Object.keys(CURVES).map((name) => around[name]?.id).filter((other) => other && other !== id && !others.has(other));
    const found = await Promise.all([...new Set(wanted)].map((other) => get(`/api/experiment/${encodeURIComponent(other)}`)));
    for (const run of found) others.set(run.id, run);
  }

  function show(run, around) {
    const before = page.run;
    Object.assign(page, { run, around, number: numberOf(id) });
    replace(waiting);
    body.hidden = false;
    ctx.setTitle(`${numberOf(id)} ${run.status}: ${plain(run.hypothesis).slice(0, 60)}`.trim());
    top.update(run, around);
    lead.update(run);
    const beside = merged(
      Object.entries(CURVES)
        .filter(([name]) => around[name] && around[name].id !== id && others.has(around[name].id))
        .map(([name, label]) => ({ label, run: others.get(around[name].id) })),
    );
    replace(table, metricTable(run, beside.map((column) => ({ ...column, label: `${column.label} ${numberOf(column.run.id)}` }))));
    setText(note, beside.length ? "Δ val_bpb below zero: this is better" : "nothing to compare with yet");
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
  // What happens to the tag may move the best now, the neighbours, the place in the queue.
  const refreshLater = throttled(async () => refresh(), TAG_MS);
  const stop = live.subscribe(({ kind, subject, tag }) => {
    if (kind === "resumed" || subject === id) refresh();
    else if (tag === page.run?.tag && (kind === "decided" || page.run.status === "queued")) refreshLater();
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
      refreshLater.cancel();
      chart.close();
      evidence.close();
      lead.close();
    },
  };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
