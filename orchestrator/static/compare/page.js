// Two to eight runs side by side: what differs first, their curves in one chart, the diff of a pair.

import { h, replace, setText } from "../lib/dom.js";
import { experimentPath, get } from "../lib/api.js";
import { curveChart, curvePanel } from "../lib/curves.js";
import { livePage } from "../lib/live-page.js";
import { learnNumbers } from "../lib/numbers.js";
import { panel, scrollable } from "../lib/parts.js";
import { navigate, setTitle } from "../lib/router.js";
import * as selection from "../lib/selection.js";
import { empty, notSent, remark } from "../lib/states.js";
import { every } from "../lib/throttle.js";
import { loadDiff } from "../experiment/diff.js";
import { chips, letter } from "./chips.js";
import { compareTable } from "./table.js";

const EVENT_MS = 500;
const PROGRESS_MS = 3000;
const HOW_TO_PICK = "Pick runs with x on a tag's page or with Compare on a run's page, or add one by its id above.";

const nameOf = (run) => run.hypothesis.replaceAll("`", "") || run.id;
const isUnderWay = ({ status }) => ["queued", "running", "candidate"].includes(status);
const isUnknown = ({ status }) => status === 404 || status === 422;

export function mount(root, { query }, signal) {
  setTitle("Compare");
  const runs = new Map();
  let ids = [];
  let base = null;
  let pair = null;

  const lost = h("p.problem", { role: "alert" });
  const bar = chips({ add, remove, rebase: (id) => change(ids, id) });
  const chart = curveChart({ label: "Learning curves", height: 300, signal });
  const table = scrollable("div.scroll", "Figures of the runs");
  const diff = h("section.panel");
  const content = h("div",
    h("div.compare-grid",
      panel("Figures", { note: h("span.muted", "what differs first; Δ against the base") }, table),
      curvePanel(chart),
    ),
    diff,
  );

  /** The address says what is compared; without it, what was picked. */
  function read(next) {
    const asked = next.get("ids")?.split(",").filter(Boolean);
    ids = asked ? [...new Set(asked)].slice(0, selection.MAXIMUM) : selection.ids();
    base = ids.includes(next.get("base")) ? next.get("base") : ids[0];
    pair = null;
    selection.set(ids);
  }

  function change(nextIds, nextBase) {
    const next = new URLSearchParams({ ids: nextIds.join(","), ...(nextIds.length && { base: nextBase }) });
    navigate(`/compare?${next}`, { replace: true });
  }

  function add(id) {
    if (ids.includes(id)) return "It is compared already.";
    if (ids.length >= selection.MAXIMUM) return selection.FULL;
    change([...ids, id], base ?? id);
    return "";
  }

  function remove(id) {
    const rest = ids.filter((other) => other !== id);
    change(rest, base === id ? rest[0] : base);
  }

  async function load() {
    const wanted = ids.filter((id) => !runs.has(id) || isUnderWay(runs.get(id)));
    const answers = await Promise.allSettled(wanted.map((id) => get(experimentPath(id), {}, signal)));
    const problems = [];
    answers.forEach(({ value, reason }, index) => {
      if (value) runs.set(wanted[index], value);
      else if (!runs.has(wanted[index])) problems.push({ id: wanted[index], error: reason });
    });
    const decided = answers.filter(({ value }) => value?.finished_at).map(({ value }) => value.id);
    await learnNumbers(decided).catch(() => {}); // the page is complete without numbers
    if (signal.aborted) return null;
    setText(lost, problems.map(({ id, error }) => `${id}: ${error.message}`).join(" "));
    const passing = problems.find(({ error }) => !isUnknown(error));
    if (passing) throw passing.error;
    // A run that does not exist is taken out.
    ids = ids.filter((id) => !problems.some((problem) => problem.id === id));
    if (!ids.includes(base)) [base] = ids;
    if (problems.length) selection.set(ids);
    return show();
  }

  function show() {
    const shown = ids.map((id) => runs.get(id)).filter(Boolean);
    bar.update(shown, base);
    content.hidden = shown.length < 2;
    const headline = shown.length ? "One more run is needed" : "Nothing is picked yet";
    if (content.hidden) return empty(headline, null, HOW_TO_PICK);
    const first = runs.get(base) ?? shown[0];
    replace(table, compareTable(shown, first));
    chart.update([first, ...shown.filter((run) => run !== first)].map((run) => {
      const place = shown.indexOf(run);
      return { label: nameOf(run), letter: letter(place), kind: `run-${place}`, points: run.curve };
    }));
    if (!pair?.every((id) => ids.includes(id))) showPair(shown, [first.id, shown.find((run) => run !== first).id]);
    return null;
  }

  function showPair(shown, next) {
    pair = next;
    const [from, to] = pair;
    const lines = h("div");
    const note = h("span.muted");
    const option = (run, place, chosen) =>
      h("option", { value: run.id, selected: run.id === chosen }, `${letter(place)} ${nameOf(run).slice(0, 60)}`);
    const select = (label, index) => {
      const onchange = (event) => showPair(shown, pair.with(index, event.target.value));
      return h("select", { "aria-label": label, onchange }, shown.map((run, place) => option(run, place, pair[index])));
    };
    replace(diff,
      h("header", h("h2", "Source"), h("span", "from ", select("Diff from", 0), " to ", select("Diff to", 1)), note),
      lines,
    );
    const byHand = shown.findIndex((run) => pair.includes(run.id) && !run.source_sha256);
    if (from === to) replace(lines, remark("Choose two different runs."));
    else if (byHand >= 0) replace(lines, notSent(letter(byHand)));
    else loadDiff(lines, note, { id: to, against: from, label: "Source diff" });
  }

  read(query);
  const refresh = livePage(root, signal, {
    name: "compare",
    label: "Loading the runs",
    head: [h("div.page-head", h("h1", "Compare")), bar.element, lost],
    body: h("div", content),
    load,
    pause: EVENT_MS,
    concerns: ({ kind, subject }) => kind === "resumed" || ids.includes(subject),
  });
  every(PROGRESS_MS, () => ids.some((id) => runs.get(id)?.status === "running") && refresh(), signal);

  return ({ query: next }) => {
    read(next);
    refresh();
  };
}
