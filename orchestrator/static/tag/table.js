// The table of runs: pages of fifty by cursor, filtered and sorted by the service, kept fresh while
// nobody is at work in it.

import { h, replace, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { get } from "../lib/api.js";
import { keyed } from "../lib/keyed.js";
import * as selection from "../lib/selection.js";
import { announce, toast } from "../lib/states.js";
import { filters } from "./filters.js";
import { COLUMNS, row } from "./rows.js";

const PAGE = 50;

/** `state()` answers the page's state, `change(part)` changes it, `open(id)` goes to a run. */
export function runsTable({ tag, series, state, change, open }) {
  const body = h("tbody");
  const head = h("tr");
  const status = h("span", { class: "muted", role: "status" });
  const fresh = h("button", { type: "button", class: "chip fresh", hidden: true, on: { click: () => refresh({ asked: true }) } });
  const more = h("button", { type: "button", on: { click: () => load({ on: true }) } }, "Show 50 more");
  const problem = h("p", { class: "problem body", role: "alert" });
  const none = h("p", { class: "body muted", hidden: true });
  const bar = filters({ change });
  const element = h("section", { class: "panel runs-panel", "aria-labelledby": "runs-title" },
    h("header", {}, h("h2", { id: "runs-title" }, "Runs"), status, fresh),
    h("div", { class: "toolbar" }, bar.elements),
    h("div", { class: "scroll" }, h("table", { class: "runs", "aria-labelledby": "runs-title" }, h("thead", {}, head), body)),
    none, problem, h("div", { class: "body tail" }, more));

  let active = [];
  let rows = [];
  let next = null;
  let scanned = 0;
  let loaded = false;
  let seen = 0; // how many runs were decided when the first page was read
  let request = null;

  const query = () => {
    const { statuses, category, q, sort, since } = state();
    return { tag, status: statuses.join(","), cat: category, q, sort, since };
  };

  /** Read the first page, or with `on` the next one. */
  async function load({ on = false } = {}) {
    request?.abort();
    const mine = (request = new AbortController());
    try {
      const answer = await get("/api/report/runs", { ...query(), cursor: on ? next : null }, { signal: mine.signal });
      problem.textContent = "";
      rows = on ? [...rows, ...answer.rows] : answer.rows;
      scanned = on ? scanned + answer.scanned : answer.scanned;
      loaded = true;
      if (!on) {
        active = answer.active;
        // The columns may be a moment behind the rows.
        seen = Math.max(series.length, ...answer.rows.map((run) => run.n ?? 0));
      }
      next = answer.next_cursor;
      draw();
      return answer;
    } catch (error) {
      if (mine.signal.aborted) return null;
      problem.textContent = `${error.message} What you see may be older.`;
      throw error;
    }
  }

  /**
   * Something happened: take the news in, unless that would move what the person is reading. Answers
   * what the service said, which also counts running and queued runs.
   */
  async function refresh({ asked = false } = {}) {
    const quiet = !(element.matches(":hover") || element.contains(document.activeElement));
    if (asked || !loaded || (quiet && rows.length <= PAGE)) return load();
    const waiting = active.filter((run) => run.n === null).map((run) => run.id);
    const answer = await update(waiting);
    const seenAsActive = active.filter((run) => run.n !== null && run.n > seen).length;
    const missed = Math.max(0, series.length - seen - seenAsActive);
    fresh.hidden = missed === 0;
    setText(fresh, `${count(missed)} new ${missed === 1 ? "run" : "runs"}`);
    return answer;
  }

  /** Let rows that are on screen say what has become of their runs, where they are. */
  async function update(ids) {
    const answer = await get("/api/report/runs", { tag, ...(ids.length ? { ids: ids.slice(0, PAGE).join(",") } : { limit: 1 }) });
    if (!ids.length) return answer;
    const news = new Map(answer.rows.map((run) => [run.id, run]));
    active = active.map((run) => news.get(run.id) ?? run);
    draw();
    return answer;
  }

  function draw() {
    header();
    const shown = [...new Map([...active, ...rows].map((run) => [run.id, run])).values()];
    keyed(body, shown, (run) => run.id, (run) => row(run, pick));
    markPicked();
    fresh.hidden = true;
    more.hidden = next === null;
    none.hidden = shown.length > 0;
    const { q } = state();
    none.textContent = q ? `Nothing among ${count(scanned)} runs mentions “${q}”.` : "No run matches.";
    setText(more, q && rows.length === 0 ? "Search further back" : "Show 50 more");
    describe(shown.length);
    bar.show(state(), series);
  }

  function describe(shown) {
    const { statuses, category, q, since } = state();
    const filter = { statuses: statuses.filter((word) => word !== "running" && word !== "queued"), category, since: since ? Date.parse(since) : 0 };
    const matching = statuses.length && !filter.statuses.length ? 0 : series.matching(filter);
    if (q) setText(status, `${count(rows.length)} found in ${count(scanned)} of ${count(matching)}`);
    else if (matching === series.length) setText(status, `${count(Math.min(shown, matching + active.length))} of ${count(matching + active.length)}`);
    else setText(status, `${count(matching)} of ${count(series.length)} match`);
  }

  function header() {
    const { sort } = state();
    replace(head, h("th", { class: "pick" }, h("span", { class: "visually-hidden" }, "Compare")), COLUMNS.map((column) => {
      const classes = [column.number && "num", column.class].filter(Boolean).join(" ") || null;
      if (!column.sorts) return h("th", { scope: "col", class: classes }, column.name);
      const place = column.sorts.indexOf(sort);
      const descending = (sort === "newest" || sort === "worst");
      return h("th", { scope: "col", class: classes, "aria-sort": place < 0 ? null : descending ? "descending" : "ascending" },
        h("button", { type: "button", class: "sort", data: { focus: column.name }, on: { click: () => change({ sort: column.sorts[place === 0 ? 1 : 0] }) } },
          column.name, place >= 0 && h("span", { "aria-hidden": "true" }, descending ? " ↓" : " ↑")));
    }));
  }

  // ---- selection and keys

  function pick(id) {
    if (!selection.toggle(id)) {
      toast(`At most ${selection.MAXIMUM} runs can be compared.`, { kind: "error" });
    }
    announce(`${selection.ids().length} runs picked for comparing`);
  }

  function markPicked() {
    for (const line of body.children) {
      const on = selection.has(line.dataset.id);
      line.querySelector("input").checked = on;
      line.classList.toggle("chosen", on);
    }
  }

  const current = () => body.querySelector("tr:focus, tr:focus-within");

  function move(step) {
    const lines = [...body.children];
    const place = lines.indexOf(current());
    const line = lines[Math.min(lines.length - 1, Math.max(0, place < 0 ? 0 : place + step))];
    line?.focus();
    line?.scrollIntoView({ block: "nearest" });
  }

  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("tr")) open(event.target.dataset.id);
  });

  const unsubscribe = selection.subscribe(markPicked);
  return {
    element, load, refresh,
    redraw: draw,
    destroy: () => {
      request?.abort();
      bar.destroy();
      unsubscribe();
    },
    keys: {
      "/": ["Search", () => bar.search.focus()],
      j: ["Next row", () => move(1)],
      k: ["Row before", () => move(-1)],
      Enter: ["Open", () => (document.activeElement.closest("a, button, summary, [role=slider]") || !current() ? false : open(current().dataset.id))],
      x: ["Pick for comparing", () => (current() ? pick(current().dataset.id) : false)],
      c: ["Compare what is picked", () => open(null)],
    },
  };
}
