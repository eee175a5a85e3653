// The table of runs: pages of fifty by cursor, filtered and sorted by the service, kept fresh while
// nobody is at work in it.

import { h, keyed, replace, setText } from "../lib/dom.js";
import { NONE, bpb, count, delta, deltaClass, headline, number, plural, time } from "../lib/format.js";
import { get } from "../lib/api.js";
import { badge, panel } from "../lib/parts.js";
import { navigate } from "../lib/router.js";
import * as selection from "../lib/selection.js";
import { announce, toast } from "../lib/states.js";
import { plain, prose, visible } from "../lib/visible.js";
import { filters } from "./filters.js";

const PAGE = 50;
const ACTIVE = ["running", "candidate", "queued"];

/** { name, kind, cell(run) }; `sorts` are the two orders of a column, the first to be tried first. */
const COLUMNS = [
  { name: "Run", sorts: ["newest", "oldest"] },
  { name: "Verdict", cell: verdict },
  { name: "val_bpb", kind: "num", sorts: ["best", "worst"], cell: result },
  { name: "Δ best then", kind: "num", cell: difference },
  { name: "Category", kind: "category cut", cell: (run) => visible(run.category) },
  { name: "Change", cell: text },
  { name: "VRAM GB", kind: "num wide", cell: (run) => number(run.peak_vram_mb / 1024 || null) },
  { name: "Decided", kind: "num when", cell: when },
];

const countsOf = ({ running, candidates: candidate, queued }) => ({ running, candidate, queued });

/** `state()` returns the page's state, `change(part)` changes it; requests end when `leaving` aborts. */
export function runsTable({ tag, series, state, change, signal: leaving }) {
  const body = h("tbody");
  const head = h("tr");
  const status = h("span.muted", { role: "status" });
  const fresh = h("button.chip.fresh", { hidden: true, onclick: () => load() });
  const more = h("button", { onclick: () => load({ next: true }) }, "Show 50 more");
  const problem = h("p.problem.body", { role: "alert" });
  const none = h("p.body.muted", { hidden: true });
  const bar = filters({ change, signal: leaving });
  const element = panel("Runs", { kind: ".runs-panel", id: "runs-title", note: [status, fresh] },
    h("div.toolbar", bar.elements),
    h("div.scroll", h("table.runs", { "aria-labelledby": "runs-title" }, h("thead", head), body)),
    none,
    problem,
    h("div.body.tail", more),
  );

  let counts = { running: 0, candidate: 0, queued: 0 }; // of all the tag
  let active = []; // runs under way when the first page was read, as they are now
  let rows = [];
  let cursor = null;
  let scanned = 0;
  let loaded = false;
  let seen = 0; // how many runs were decided when the first page was read
  let request = new AbortController();

  const query = () => {
    const { statuses, category, q, sort, since } = state();
    return { tag, status: statuses.join(","), cat: category, q, sort, since };
  };

  /** Read the first page, or the `next` one. */
  async function load({ next = false } = {}) {
    request.abort();
    request = new AbortController();
    const signal = AbortSignal.any([leaving, request.signal]);
    try {
      const answer = await get("/api/report/runs", { ...query(), cursor: next ? cursor : null }, signal);
      problem.textContent = "";
      rows = next ? [...rows, ...answer.rows] : answer.rows;
      scanned = next ? scanned + answer.scanned : answer.scanned;
      loaded = true;
      if (!next) {
        active = answer.active;
        seen = answer.decided;
        fresh.hidden = true;
      }
      cursor = answer.next_cursor;
      counts = countsOf(answer);
      draw();
      return answer;
    } catch (error) {
      if (signal.aborted) return null;
      problem.textContent = `${error.message} What you see may be older.`;
      throw error;
    }
  }

  /**
   * After an event: load again, unless that would move what the person is reading. Returns the
   * service's answer, which also counts running and queued runs.
   */
  async function refresh() {
    const isInUse = element.matches(":hover") || element.contains(document.activeElement);
    if (!loaded || (!isInUse && rows.length <= PAGE)) return load();
    const answer = await updateActive();
    const seenAsActive = active.filter((run) => run.n !== null && run.n > seen).length;
    const missed = answer.decided - seen - seenAsActive;
    fresh.hidden = missed === 0;
    setText(fresh, plural(missed, "new run"));
    return answer;
  }

  /** Rows of runs under way change to their verdicts without moving. */
  async function updateActive() {
    const ids = active.filter((run) => run.n === null).map((run) => run.id).slice(0, PAGE);
    const asked = ids.length ? { ids: ids.join(",") } : { limit: 1 };
    const answer = await get("/api/report/runs", { tag, ...asked }, leaving);
    counts = countsOf(answer);
    if (!ids.length) return answer;
    const news = new Map(answer.rows.map((run) => [run.id, run]));
    active = active.map((run) => news.get(run.id) ?? run);
    draw();
    return answer;
  }

  function draw() {
    const shown = [...new Map([...active, ...rows].map((run) => [run.id, run])).values()];
    const { q } = state();
    replace(head, h("th.pick", h("span.visually-hidden", "Compare")), COLUMNS.map(heading));
    keyed(body, shown, (run) => run.id, (run) => row(run, pick));
    markPicked();
    more.hidden = cursor === null;
    none.hidden = shown.length > 0;
    none.textContent = q ? `Nothing among ${count(scanned)} runs mentions “${q}”.` : "No run matches.";
    setText(more, q && rows.length === 0 ? "Search further back" : "Show 50 more");
    setText(status, described(shown.length));
    bar.show(state(), series);
  }

  function described(shown) {
    const { statuses, category, q, since } = state();
    const underWay = ACTIVE.filter((word) => statuses.includes(word));
    const decided = statuses.filter((word) => !ACTIVE.includes(word));
    if (underWay.length && !decided.length) return describedActive(underWay);
    const matching = series.matching({ statuses: decided, category, since: since && Date.parse(since) });
    const rest = underWay.length ? `, ${describedActive(underWay)}` : "";
    if (q) return `${count(rows.length)} found in ${count(scanned)} of ${count(matching)}${rest}`;
    if (rest || matching < series.length) return `${count(matching)} of ${count(series.length)} match${rest}`;
    const all = matching + active.length;
    return `${count(Math.min(shown, all))} of ${count(all)}`;
  }

  /** How many runs of these statuses are shown: "2 of 3 running or queued". */
  function describedActive(words) {
    const shown = active.filter(({ status: word }) => words.includes(word)).length;
    const all = words.reduce((sum, word) => sum + counts[word], 0);
    return `${count(shown)} of ${count(all)} ${words.join(" or ")}`;
  }

  function heading({ name, kind, sorts }) {
    if (!sorts) return h("th", { scope: "col", class: kind }, name);
    const { sort } = state();
    const isSorted = sorts.includes(sort);
    const [order, arrow] = sort === "newest" || sort === "worst" ? ["descending", " ↓"] : ["ascending", " ↑"];
    const onclick = () => change({ sort: sorts[sort === sorts[0] ? 1 : 0] });
    const button = h("button.sort", { data: { focus: name }, onclick },
      name, isSorted && h("span", { "aria-hidden": "true" }, arrow));
    return h("th", { scope: "col", class: kind, "aria-sort": isSorted && order }, button);
  }

  function pick(id) {
    if (!selection.toggle(id)) toast(selection.FULL, "error");
    announce(`${selection.ids().length} runs picked for comparing`);
  }

  function markPicked() {
    for (const line of body.children) {
      const picked = selection.has(line.dataset.id);
      line.querySelector("input").checked = picked;
      line.classList.toggle("chosen", picked);
    }
  }

  const currentRow = () => body.querySelector("tr:focus, tr:focus-within");
  const openRow = (line) => navigate(`/e/${line.dataset.id}`);

  function move(step) {
    const lines = [...body.children];
    const place = lines.indexOf(currentRow());
    const line = lines[place < 0 ? 0 : Math.min(lines.length - 1, Math.max(0, place + step))];
    line?.focus();
    line?.scrollIntoView({ block: "nearest" });
  }

  function openCurrent() {
    const line = currentRow();
    if (!line || document.activeElement.closest("a, button, summary, [role=slider]")) return false;
    return openRow(line);
  }

  selection.subscribe(markPicked, leaving);
  return {
    element, load, refresh, draw,
    keys: {
      "/": ["Search", () => bar.search.focus()],
      j: ["Next row", () => move(1)],
      k: ["Row before", () => move(-1)],
      Enter: ["Open", openCurrent],
      x: ["Pick for comparing", () => (currentRow() ? pick(currentRow().dataset.id) : false)],
      c: ["Compare what is picked", () => navigate(selection.compareUrl())],
    },
  };
}

/** A <tr> for a run; `pick(id)` selects it for comparing. */
function row(run, pick) {
  const { id, n } = run;
  const box = h("input", {
    type: "checkbox", "aria-label": `Compare run ${n ?? id}`, checked: selection.has(id), tabindex: "-1",
    data: { focus: "pick" }, onchange: () => pick(id),
  });
  const name = n === null ? ["…", h("span.visually-hidden", id)] : `#${count(n)}`;
  const link = h("a.mono", { href: `/e/${id}`, title: id, data: { focus: "link" } }, name);
  return h("tr", { tabindex: "-1", data: { id, focus: "row" }, class: ACTIVE.includes(run.status) ? "active" : null },
    h("td.pick", box),
    h("th.run", { scope: "row" }, link),
    COLUMNS.slice(1).map(({ kind, cell }) => h("td", { class: kind }, cell(run))),
  );
}

function verdict({ status, near, reason, confirmed }) {
  if (status === "keep" && confirmed === false) return badge("provisional");
  return badge(status, near ? "near miss" : reason === "infra_lost" ? "lost" : status);
}

/** What a run reads; of one that was stopped early what was predicted, marked as such. */
function result(run) {
  if (run.predicted === null) return bpb(run.val_bpb);
  return h("span.muted", { title: run.why }, `predicted ${run.predicted.toFixed(4)}`);
}

function difference(run) {
  if (run.val_bpb === null) return h("span.none", NONE);
  if (run.delta !== null && run.delta !== 0) {
    return h("span", { class: deltaClass(-run.delta), title: run.why }, delta(-run.delta));
  }
  if (run.best_before === null) return h("span.muted", "baseline");
  const by = run.val_bpb - run.best_before;
  return h("span", { class: deltaClass(by) }, delta(by));
}

function text(run) {
  const error = run.error && headline(run.error);
  const title = [run.description, error].filter(Boolean).map(plain).join("\n");
  return h("div.both", { title },
    h("span.cut", run.repeat_of && h("span.muted", `seed ${run.seed} of `), prose(run.description)),
    error && h("span.cut.error", prose(error)),
  );
}

function when(run) {
  if (run.status === "running") return [h("span.muted", "started "), time(run.started_at ?? run.created_at)];
  if (run.status === "queued") return [h("span.muted", "queued "), time(run.created_at)];
  if (run.status === "candidate") return [h("span.muted", "ran "), time(run.measured_at)];
  return time(run.finished_at);
}
