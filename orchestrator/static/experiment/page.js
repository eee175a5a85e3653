// Why this verdict? The sentence, the metrics, the curves, the evidence; live until the verdict.

import { h, replace, setText } from "../lib/dom.js";
import { experimentPath, get } from "../lib/api.js";
import { curveChart, curvePanel } from "../lib/curves.js";
import * as keys from "../lib/keys.js";
import { livePage } from "../lib/live-page.js";
import * as live from "../lib/live.js";
import { learnNumbers, numberOf } from "../lib/numbers.js";
import { panel, scrollable } from "../lib/parts.js";
import { setTitle } from "../lib/router.js";
import { announce } from "../lib/states.js";
import { every, throttled } from "../lib/throttle.js";
import { plain } from "../lib/visible.js";
import { crashLead } from "./crash.js";
import { facts } from "./facts.js";
import { head } from "./head.js";
import { metricTable } from "./metrics.js";
import { sentence } from "./sentence.js";
import { tabs } from "./tabs.js";

const EVENT_MS = 250;
const TAG_MS = 5000;
const PROGRESS_MS = 2000;
const BESIDE = { parent: ["Parent", "parent"], best_then: ["Best then", "then"], best_now: ["Best now", "best"] };

export function mount(root, { id, query }, signal) {
  setTitle(id);
  const others = new Map(); // runs to compare with, which are decided
  let current = null;
  const top = head(() => refresh());
  const lead = crashLead(id, signal);
  const table = scrollable("div.body.scroll.metrics-body", "Metrics");
  const note = h("span.muted");
  const chart = curveChart({ label: "Learning curves", empty: "The curve begins with the first step.", signal });
  const details = h("div.body");
  const evidence = tabs(id, query, signal);

  async function load(showBody) {
    const [run, comparison] = await Promise.all([
      get(experimentPath(id), {}, signal),
      get(experimentPath(id, "surroundings"), {}, signal),
    ]);
    const decided = [run, ...Object.values(comparison)].filter((one) => one?.finished_at);
    // The page does not wait for numbers, which take a while when a long history is first read.
    const sources = [run.repeat_of, ...run.merged_from].filter(Boolean);
    const numbered = learnNumbers([...decided.map((one) => one.id), ...sources]).catch(() => {});
    await loadOthers(comparison);
    show(run, comparison);
    showBody();
    const numbers = () => [id, ...sources].map(numberOf).join();
    const shown = numbers();
    await numbered;
    if (!signal.aborted && shown !== numbers()) show(run, comparison);
  }

  async function loadOthers(comparison) {
    const wanted = new Set(Object.keys(BESIDE).map((name) => comparison[name]?.id ?? id));
    const missing = [...wanted].filter((other) => other !== id && !others.has(other));
    const found = await Promise.all(missing.map((other) => get(experimentPath(other), {}, signal)));
    for (const run of found) others.set(run.id, run);
  }

  /** The runs to compare with, each once: { label, kind, run }. */
  function columns(comparison) {
    const found = new Map();
    for (const [name, [label, kind]] of Object.entries(BESIDE)) {
      const run = others.get(comparison[name]?.id);
      const same = found.get(run?.id);
      if (same) same.label += ` = ${label.toLowerCase()}`;
      else if (run) found.set(run.id, { label, kind, run });
    }
    return [...found.values()];
  }

  function show(run, comparison) {
    const before = current;
    current = run;
    setTitle(`${numberOf(id)} ${run.status}: ${plain(run.hypothesis).slice(0, 60)}`.trim());
    top.update(run, comparison);
    lead.update(run);
    const beside = columns(comparison);
    replace(table, metricTable(run, beside.map((one) => ({ ...one, label: `${one.label} ${numberOf(one.run.id)}` }))));
    setText(note, beside.length ? "Δ val_bpb below zero: this is better" : "nothing to compare with yet");
    chart.update([
      { label: "This", kind: "this", points: run.curve },
      ...beside.map(({ label, kind, run: other }) => ({ label, kind, points: other.curve })),
    ]);
    replace(details, facts(run, comparison.repeats));
    evidence.update(run, comparison);
    if (before && before.status !== run.status) announce(`${run.status}: ${sentence(run, comparison).rest}`);
  }

  const refresh = livePage(root, signal, {
    name: "experiment",
    label: "Loading the experiment",
    body: h("div",
      top.element,
      lead.element,
      h("div.evidence", panel("Metrics", { note }, table), curvePanel(chart), panel("Run", {}, details)),
      evidence.element,
    ),
    load,
    pause: EVENT_MS,
    concerns: ({ kind, subject }) => kind === "resumed" || subject === id,
  });
  // Events of the tag may change the best now, the neighbours, the place in the queue.
  const refreshLater = throttled(refresh, TAG_MS, signal);
  live.subscribe(({ kind, tag }) => {
    if (current && tag === current.tag && (kind === "decided" || current.status === "queued")) refreshLater();
  }, signal);
  every(PROGRESS_MS, () => current?.status === "running" && refresh(), signal);
  keys.bind({ ...evidence.keys, ...top.keys }, signal);

  return ({ query: next }) => evidence.navigated(next);
}
