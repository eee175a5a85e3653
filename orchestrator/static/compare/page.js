// Two to eight runs beside each other: what differs first, curves over each other, a diff of a pair.

import { h, replace, setText } from "../lib/dom.js";
import { get, getText } from "../lib/api.js";
import * as live from "../lib/live.js";
import * as selection from "../lib/selection.js";
import { curveChart } from "../lib/curves.js";
import { learnNumbers } from "../lib/numbers.js";
import { empty, failed, loading, notSent } from "../lib/states.js";
import { throttled } from "../lib/throttle.js";
import { sheet } from "../lib/sheet.js";
import { diffTable, parse, size } from "../experiment/diff.js";
import { chips, letter } from "./chips.js";
import { compareTable } from "./table.js";

await Promise.all([sheet("/static/experiment/style.css"), sheet("/static/compare/style.css")]);

const EVENT_MS = 500;
const PROGRESS_MS = 3000;

export function mount(root, params, ctx) {
  ctx.setTitle("Compare");
  const runs = new Map();
  let ids = [];
  let base = null;
  let pair = null;
  let closed = false;

  const problem = h("p", { class: "problem", role: "alert" });
  const bar = chips({ add, remove, rebase });
  const chart = curveChart({ label: "Learning curves", height: 300 });
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures of the runs" });
  const diff = h("section", { class: "panel" });
  const waiting = h("div");
  const body = h(
    "div",
    { hidden: true },
    h(
      "div",
      { class: "compare-grid" },
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Figures"), h("span", { class: "muted" }, "what differs first; Δ against the base")), table),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Learning curves"), h("span", { class: "muted" }, "training loss at equal progress")), h("div", { class: "body" }, chart.element)),
    ),
    diff,
  );
  replace(root, h("div", { class: "compare" }, h("div", { class: "page-head" }, h("h1", {}, "Compare")), bar.element, problem, waiting, body));

  /** The address says what is compared; without it what was picked is. */
  function read(query) {
    const asked = query.get("ids");
    ids = asked === null ? selection.ids() : [...new Set(asked.split(",").filter(Boolean))].slice(0, selection.MAXIMUM);
    base = ids.includes(query.get("base")) ? query.get("base") : ids[0];
    pair = null;
    selection.set(ids);
  }

  function go() {
    const query = new URLSearchParams({ ids: ids.join(","), base: base ?? "" });
    ctx.navigate(ids.length ? `/compare?${query}` : "/compare?ids=", { replace: true });
  }

  function add(id) {
    if (ids.includes(id)) return "It is compared already.";
    if (ids.length >= selection.MAXIMUM) return `${selection.MAXIMUM} runs are compared at most: take one out first.`;
    ids = [...ids, id];
    go();
    return "";
  }

  function remove(id) {
    ids = ids.filter((other) => other !== id);
    if (base === id) [base] = ids;
    go();
  }

  function rebase(id) {
    base = id;
    go();
  }

  async function load() {
    const wanted = ids.filter((id) => !runs.has(id) || underWay(runs.get(id)));
    const answers = await Promise.allSettled(wanted.map((id) => get(`/api/experiment/${encodeURIComponent(id)}`)));
    await learnNumbers(answers.map(({ value }) => value).filter((run) => run?.finished_at).map((run) => run.id)).catch(() => {}); // numbers adorn
    if (closed) return;
    const lost = [];
    answers.forEach((answer, index) => {
      if (answer.status === "fulfilled") runs.set(wanted[index], answer.value);
      else if (!runs.has(wanted[index])) lost.push([wanted[index], answer.reason]);
    });
    done();
    setText(problem, lost.map(([id, error]) => `${id}: ${error.message}`).join(" "));
    // One that does not exist is taken out; any other fault may pass.
    if (lost.some(([, error]) => error.status === 404 || error.status === 422)) {
      const gone = new Set(lost.filter(([, error]) => error.status === 404 || error.status === 422).map(([id]) => id));
      ids = ids.filter((id) => !gone.has(id));
      if (gone.has(base)) [base] = ids;
      selection.set(ids);
    } else if (lost.length) {
      replace(waiting, failed(lost[0][1], () => refresh()));
      return;
    }
    show();
  }

  const underWay = (run) => run.status === "queued" || run.status === "running";

  function show() {
    const shown = ids.map((id) => runs.get(id)).filter(Boolean);
    bar.update(shown, base);
    body.hidden = shown.length < 2;
    replace(
      waiting,
      shown.length < 2 &&
        empty(
          shown.length ? "One more run is needed" : "Nothing is picked yet",
          null,
          "Pick runs with x on a tag's page or with Compare on a run's page, or add one by its id above.",
        ),
    );
    if (shown.length < 2) return;
    const first = runs.get(base) ?? shown[0];
    replace(table, compareTable(shown, first));
    chart.update(
      [first, ...shown.filter((run) => run !== first)].map((run) => {
        const place = shown.indexOf(run);
        return { id: run.id, label: run.hypothesis || run.id, letter: letter(place), kind: `run-${place}`, points: run.curve };
      }),
    );
    showPair(shown, first);
  }

  function showPair(shown, first) {
    const known = new Set(shown.map(({ id }) => id));
    if (pair && pair.every((id) => known.has(id))) return;
    const other = shown.find((run) => run !== first);
    choosePair(shown, [first.id, other.id]);
  }

  async function choosePair(shown, next) {
    pair = next;
    const [from, to] = pair;
    const lines = h("div");
    const note = h("span", { class: "muted" });
    const select = (label, chosen, at) =>
      h(
        "select",
        { "aria-label": label, on: { change: (event) => choosePair(shown, pair.map((id, index) => (index === at ? event.target.value : id))) } },
        shown.map((run, index) => h("option", { value: run.id, selected: run.id === chosen }, `${letter(index)} ${run.hypothesis.slice(0, 60) || run.id}`)),
      );
    replace(diff, h("header", {}, h("h2", {}, "Source"), h("span", {}, "from ", select("Diff from", from, 0), " to ", select("Diff to", to, 1)), note), lines);
    if (from === to) {
      replace(lines, h("p", { class: "state muted" }, "Choose two different runs."));
      return;
    }
    const byHand = shown.findIndex((run) => pair.includes(run.id) && !run.source_sha256);
    if (byHand >= 0) {
      replace(lines, notSent(letter(byHand)));
      return;
    }
    const stop = loading(lines, { label: "Loading the diff" });
    try {
      const rows = parse(await getText(`/api/experiment/${encodeURIComponent(to)}/diff`, { against: from }));
      const { added, removed } = size(rows);
      setText(note, rows.length ? `+${added} −${removed} lines` : "");
      replace(lines, rows.length ? diffTable(rows, { label: "Source diff" }) : h("p", { class: "state muted" }, "The two sources are equal."));
    } catch (error) {
      replace(lines, failed(error, () => choosePair(shown, next)));
    } finally {
      stop();
    }
  }

  let done = loading(waiting, { lines: 6, label: "Loading the runs" });
  read(params.query);
  const refresh = throttled(load, EVENT_MS);
  const stop = live.subscribe(({ kind, subject }) => (kind === "resumed" || ids.includes(subject)) && refresh());
  const timer = setInterval(() => ids.some((id) => runs.has(id) && runs.get(id).status === "running") && refresh(), PROGRESS_MS);
  refresh();

  return {
    update({ query }) {
      read(query);
      refresh();
    },
    unmount() {
      closed = true;
      stop();
      done();
      clearInterval(timer);
      refresh.cancel();
      chart.close();
    },
  };
}
