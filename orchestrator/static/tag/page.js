// The Tag page: how is the search going? One answer of columns feeds the strip, the chart and the
// side; the table asks for its rows by page.

import { h, replace } from "../lib/dom.js";
import { get } from "../lib/api.js";
import * as selection from "../lib/selection.js";
import { failed, loading } from "../lib/states.js";
import { sheet } from "../lib/sheet.js";
import { throttled } from "../lib/throttle.js";
import { Chart } from "./chart.js";
import { chartPanel } from "./chartpanel.js";
import { categories, lineage, nearMisses, strategy } from "./panels.js";
import { Series } from "./series.js";
import * as urls from "./state.js";
import { strip } from "./strip.js";
import { runsTable } from "./table.js";

const NEWS_MS = 1000;
const ROWS_MS = 1500;
const HISTORY = new Set(["decided", "strategy", "resumed", "steered"]);

await sheet("/static/tag/style.css");

export function mount(root, { tag, query }, ctx) {
  return new TagPage(root, tag, query, ctx);
}

class TagPage {
  constructor(root, tag, query, ctx) {
    performance.mark("tag:start");
    ctx.setTitle(tag);
    this.root = root;
    this.tag = tag;
    this.ctx = ctx;
    this.state = urls.read(query);
    this.series = new Series(tag);
    this.active = { running: null, queued: null };
    this.parents = new Map();
    this.closed = new AbortController();
    this.#build();
    this.news = throttled(() => this.#news(), NEWS_MS);
    this.rows = throttled(() => this.#rows(), ROWS_MS);
    this.off = [ctx.live.subscribe((event) => this.#heard(event)), ctx.keys.bind(this.#keys())];
    this.#start();
  }

  unmount() {
    this.closed.abort();
    for (const off of this.off) off();
    this.news.cancel();
    this.rows.cancel();
    this.table.destroy();
    this.chart.destroy();
  }

  /** The address changed: back or forward, or our own filter. */
  update({ query }) {
    const before = this.state;
    this.state = urls.read(query);
    if (before.x !== this.state.x || before.fit !== this.state.fit) this.chart.rescale();
    this.panel.show(this.state, this.series);
    const same = ["category", "sort", "q", "since"].every((name) => before[name] === this.state[name]);
    if (!same || before.statuses.join() !== this.state.statuses.join()) {
      this.table.load().catch(() => {});
      this.categories.show(this.series, this.state.category);
    }
    this.table.redraw();
  }

  change(part) {
    this.ctx.navigate(`${location.pathname}${urls.write({ ...this.state, ...part })}`, { replace: true });
  }

  // ---- parts

  #build() {
    const open = (id) => this.ctx.navigate(id ? `/e/${id}` : selection.compareUrl());
    this.strip = strip();
    this.chart = new Chart(this.series, {
      options: () => ({ x: this.panel.x(this.state, this.series), fit: this.state.fit }),
      open,
      describe: (id) => this.#describe(id),
      onZoom: (on) => this.panel.zoomed(on),
    });
    this.panel = chartPanel(this.chart, { change: (part) => this.change(part) });
    this.categories = categories({ choose: (category) => this.change({ category }) });
    this.misses = nearMisses();
    this.lineage = lineage();
    this.strategy = strategy();
    this.table = runsTable({
      tag: this.tag, series: this.series, state: () => this.state, change: (part) => this.change(part), open,
    });
    this.heading = h("h1", { class: "visually-hidden" }, this.tag);
    this.problem = h("p", { class: "problem", role: "alert" });
    this.waiting = h("div");
    this.body = h("div", { class: "tag-page", hidden: true },
      this.strip.element,
      this.panel.element,
      h("div", { class: "columns" },
        this.table.element,
        h("div", { class: "side" }, this.categories.element, this.misses.element, this.lineage.element, this.strategy.element)),
    );
    replace(this.root, this.heading, this.problem, this.waiting, this.body);
  }

  async #start() {
    const done = loading(this.waiting, { lines: 8, label: `Loading ${this.tag}` });
    const rows = this.#rows().catch(() => {});
    try {
      await this.#news();
      done();
      replace(this.waiting);
    } catch (error) {
      done();
      if (!this.closed.signal.aborted) replace(this.waiting, failed(error, () => this.#start()));
      return;
    }
    await rows;
    if (!this.closed.signal.aborted) performance.mark("tag:complete");
  }

  // ---- data

  #heard({ kind, tag }) {
    if (kind !== "resumed" && tag !== this.tag) return;
    if (HISTORY.has(kind)) this.news();
    this.rows();
  }

  /** What was decided since the last time. */
  async #news() {
    const answer = await get("/api/report/series", { tag: this.tag, since: this.series.cursor }, { signal: this.closed.signal });
    const { anew, added } = this.series.apply(answer);
    if (this.closed.signal.aborted) return;
    this.#draw();
    if (anew || added) await this.#around();
  }

  #draw() {
    const first = this.body.hidden;
    this.body.hidden = false;
    this.problem.textContent = "";
    this.strip.show(this.series, this.active);
    this.panel.show(this.state, this.series);
    this.panel.empty(this.series, this.active, this.tag);
    if (first) this.chart.drawNow();
    else this.chart.draw();
    if (first) performance.mark("tag:chart");
    this.categories.show(this.series, this.state.category);
    this.lineage.show(this.series, this.parents);
    this.strategy.show(this.series);
    if (first) this.table.redraw();
  }

  /** What the columns do not hold: near misses' texts, keeps' parents, how much is chance. */
  async #around() {
    const best = this.series.lastKeep;
    const ask = (query) => get("/api/report/runs", { tag: this.tag, ...query }, { signal: this.closed.signal });
    const [near, keeps, around] = await Promise.all([
      this.series.counts[1] ? ask({ status: "near", sort: "best", limit: 6 }) : { rows: [] },
      ask({ status: "keep" }),
      best ? get(`/api/experiment/${this.series.id(best.row)}/surroundings`, {}, { signal: this.closed.signal }) : { noise: null },
    ]);
    this.misses.show(near.rows, this.series);
    for (const { n, parent_id: parent } of keeps.rows) {
      if (n !== null && parent) this.parents.set(n - 1, this.series.rowOf(parent));
    }
    this.lineage.show(this.series, this.parents);
    this.chart.noise = around.noise;
    this.panel.show(this.state, this.series);
    this.chart.draw();
  }

  async #rows() {
    const answer = await this.table.refresh();
    if (!answer) return;
    const { running, queued } = answer;
    this.active = { running, queued };
    if (!this.body.hidden) {
      this.strip.show(this.series, this.active);
      this.panel.empty(this.series, this.active, this.tag);
    }
  }

  async #describe(id) {
    const { rows } = await get("/api/report/runs", { tag: this.tag, ids: id }, { signal: this.closed.signal });
    return rows[0]?.description ?? "";
  }

  #keys() {
    return {
      ...this.table.keys,
      ArrowLeft: ["Run before, on the chart", () => this.chart.step(-1)],
      ArrowRight: ["Next run", () => this.chart.step(1)],
      "Shift+ArrowLeft": ["Keep before", () => this.chart.step(-1, { keeps: true })],
      "Shift+ArrowRight": ["Next keep", () => this.chart.step(1, { keeps: true })],
      b: ["Go to the best", () => (this.series.lastKeep ? this.ctx.navigate(`/e/${this.series.id(this.series.lastKeep.row)}`) : false)],
      p: ["Parent of the best", () => this.#parentOfBest()],
    };
  }

  #parentOfBest() {
    const row = this.chart.row >= 0 ? this.chart.row : this.series.lastKeep?.row;
    const parent = this.parents.get(row);
    if (parent === undefined || parent < 0) return false;
    return this.ctx.navigate(`/e/${this.series.id(parent)}`);
  }
}
