// How is the search going? One answer of columns feeds the strip, the chart and the side; the table
// asks for its rows by page.

import { h } from "../lib/dom.js";
import { experimentPath, get } from "../lib/api.js";
import * as keys from "../lib/keys.js";
import { livePage } from "../lib/live-page.js";
import * as live from "../lib/live.js";
import { navigate, setTitle } from "../lib/router.js";
import { every, throttled } from "../lib/throttle.js";
import { progressChart } from "./chart.js";
import { chartPanel } from "./chartpanel.js";
import { categories, lineage, nearMisses, strategy } from "./panels.js";
import { NEAR, Series } from "./series.js";
import { showStrip } from "./strip.js";
import { runsTable } from "./table.js";
import { defaultX } from "./view.js";

const NEWS_MS = 1000;
const ROWS_MS = 1500;
const MINUTE_MS = 60_000;
const NEAR_LIMIT = 6;
const HISTORY = new Set(["decided", "strategy", "resumed", "steered"]);
const STATUSES = ["keep", "near", "discard", "crash", "timeout", "running", "candidate", "queued"];
const SORTS = { __proto__: null, newest: "newest", oldest: "oldest", val_bpb: "best", "-val_bpb": "worst" };
const ROW_FILTERS = ["statuses", "category", "sort", "q", "since"];

export function mount(root, { tag, query }, signal) {
  performance.mark("tag:start");
  setTitle(tag);
  const series = new Series(tag);
  const parents = new Map(); // a keep's row to its parent's
  let state = readState(query);
  let active = { running: null, queued: null, candidates: null };
  let noise = null;

  const strip = h("dl.strip.verdict");
  const chart = progressChart(series, {
    options: () => ({ x: state.x ?? defaultX(series), fit: state.fit, noise }),
    describe: async (id) => (await getRuns({ ids: id })).rows[0]?.description,
    signal,
  });
  const panel = chartPanel(chart, change);
  const side = {
    categories: categories((category) => change({ category })),
    misses: nearMisses(),
    lineage: lineage(),
    strategy: strategy(),
  };
  const table = runsTable({ tag, series, state: () => state, change, signal });
  const body = h("div",
    strip,
    panel.element,
    h("div.columns", table.element, h("div.side", Object.values(side).map(({ element }) => element))),
  );

  function change(part) {
    navigate(`${location.pathname}${writeState({ ...state, ...part })}`, { replace: true });
  }

  /** The address changed: back or forward, or our own filter. */
  function update({ query: next }) {
    const before = state;
    state = readState(next);
    if (before.x !== state.x || before.fit !== state.fit) chart.resetZoom();
    panel.show(state, series, noise);
    if (ROW_FILTERS.some((name) => String(before[name]) !== String(state[name]))) {
      table.load().catch(() => {}); // the table shows the problem
      side.categories.show(series, state.category);
    }
    table.draw();
  }

  const getRuns = (asked) => get("/api/report/runs", { tag, ...asked }, signal);

  /** The nearest misses. Under `race` by all runs of each, as one run that reads low proves little. */
  async function nearest() {
    if (!series.race) return getRuns({ status: "near", sort: "best", limit: NEAR_LIMIT });
    const asked = { tag, limit: NEAR_LIMIT };
    const { near_misses: misses } = await get("/api/experiment/near-misses", asked, signal);
    return getRuns({ ids: misses.map(({ experiment_id: id }) => id).join(",") });
  }

  /** Load what was decided since the last time. */
  async function load(showBody) {
    const isFirst = body.hidden;
    const rows = isFirst && loadRows().catch(() => {}); // the table shows the problem
    const changed = series.apply(await get("/api/report/series", { tag, since: series.cursor }, signal));
    noise = series.noise ?? noise;
    showBody();
    showStrip(strip, series, active);
    panel.show(state, series, noise);
    panel.showActive(series, active, tag);
    if (isFirst) {
      chart.drawNow();
      performance.mark("tag:chart");
      table.draw();
    } else {
      chart.draw();
    }
    side.categories.show(series, state.category);
    side.lineage.show(series, parents);
    side.strategy.show(series);
    await Promise.all([rows, changed && loadRelated()]);
    if (isFirst) performance.mark("tag:complete");
  }

  /** Load what the columns do not hold: texts of near misses, parents of keeps, the noise. */
  async function loadRelated() {
    const best = series.bestRow;
    const [near, keeps, comparison] = await Promise.all([
      series.counts[NEAR] ? nearest() : { rows: [] },
      getRuns({ status: "keep" }),
      best >= 0 && !series.race ? get(experimentPath(series.id(best), "surroundings"), {}, signal) : { noise: null },
    ]);
    side.misses.show(near.rows, series);
    for (const { n, parent_id: parent } of keeps.rows) {
      if (n !== null && parent) parents.set(n - 1, series.rowOf(parent));
    }
    side.lineage.show(series, parents);
    noise = series.noise ?? comparison.noise;
    panel.show(state, series, noise);
    chart.draw();
  }

  async function loadRows() {
    const answer = await table.refresh();
    if (!answer) return;
    active = { running: answer.running, queued: answer.queued, candidates: answer.candidates };
    if (body.hidden) return;
    showStrip(strip, series, active);
    panel.showActive(series, active, tag);
  }

  const open = (row) => (row >= 0 ? navigate(`/e/${series.id(row)}`) : false);
  const selected = () => (chart.current() >= 0 ? chart.current() : series.bestRow);
  keys.bind({
    ...table.keys,
    ArrowLeft: ["Run before, on the chart", () => chart.step(-1)],
    ArrowRight: ["Next run", () => chart.step(1)],
    "Shift+ArrowLeft": ["Keep before", () => chart.step(-1, { keeps: true })],
    "Shift+ArrowRight": ["Next keep", () => chart.step(1, { keeps: true })],
    b: ["Go to the best", () => open(series.bestRow)],
    p: ["Parent of the best", () => open(parents.get(selected()) ?? -1)],
  }, signal);

  livePage(root, signal, {
    name: "tag-page",
    label: `Loading ${tag}`,
    head: h("h1.visually-hidden", tag),
    body,
    load,
    pause: NEWS_MS,
    concerns: (event) => HISTORY.has(event.kind) && (event.kind === "resumed" || event.tag === tag),
  });
  const refreshRows = throttled(loadRows, ROWS_MS, signal);
  // The last hour goes on without events.
  every(MINUTE_MS, () => !body.hidden && !document.hidden && showStrip(strip, series, active), signal);
  live.subscribe((event) => (event.kind === "resumed" || event.tag === tag) && refreshRows(), signal);
  return update;
}

// ---- what of the page's state is in its address, and back

/** { statuses, category, sort, q, fit, x, since } of a query; unknown values read as absent. */
function readState(query) {
  const text = (name) => query.get(name) ?? "";
  const one = (name, known, fallback) => (known.includes(text(name)) ? text(name) : fallback);
  return {
    statuses: text("status").split(",").filter((word) => STATUSES.includes(word)),
    category: text("cat"),
    sort: SORTS[text("sort")] ?? "newest",
    q: text("q"),
    fit: one("fit", ["progress", "recent", "all"], "progress"),
    x: one("x", ["order", "time", "log"], null),
    since: Number.isNaN(Date.parse(text("since"))) ? "" : text("since"),
  };
}

/** The query that `readState` reads as `state`; defaults are left out. */
function writeState(state) {
  const pairs = {
    status: state.statuses.join(","),
    cat: state.category,
    sort: state.sort !== "newest" && Object.keys(SORTS).find((name) => SORTS[name] === state.sort),
    q: state.q,
    fit: state.fit !== "progress" && state.fit,
    x: state.x,
    since: state.since,
  };
  const given = Object.entries(pairs).filter(([, value]) => value);
  return given.length ? `?${new URLSearchParams(given)}`.replaceAll("%2C", ",") : "";
}
