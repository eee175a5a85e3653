// The progress chart: every decided run, the running best, what was kept. It is a slider for the
// keyboard and for screen readers: its value is a run.

import { h, replace, svg } from "../lib/dom.js";
import { bpb, count, delta } from "../lib/format.js";
import { serverNow } from "../lib/clock.js";
import { overlay } from "./overlay.js";
import { paint, palette } from "./paint.js";
import { KEEP, NEAR, WORDS, failed } from "./series.js";
import { View } from "./view.js";
import { tip } from "./tip.js";

const HEIGHT = 440;
const HEIGHT_NARROW = 360;
const NARROW = 600;
const DRAG = 6;

export class Chart {
  #series;
  #options;
  #view = null;
  #zoom = null;
  #row = -1;
  #frame = 0;
  #drag = null;
  #observer;

  /** `options()` answers { x, fit }; `open(id)` goes to a run, `describe(id)` resolves to its text. */
  constructor(series, { options, open, describe, onZoom }) {
    this.#series = series;
    this.#options = options;
    this.open = open;
    this.onZoom = onZoom;
    this.noise = null;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.svg = svg("svg", { "aria-hidden": "true" });
    this.cross = svg("svg", { class: "cross", "aria-hidden": "true" });
    this.tip = tip(describe);
    this.element = h(
      "div",
      {
        class: "plot", tabindex: "0", role: "slider", "aria-label": "Runs in the order of verdicts",
        "aria-orientation": "horizontal", "aria-valuemin": "1", "aria-valuemax": "1", "aria-valuenow": "1",
        on: {
          pointermove: (event) => this.#move(event),
          pointerdown: (event) => this.#press(event),
          pointerup: (event) => this.#release(event),
          pointercancel: () => this.#cancel(),
          pointerleave: () => this.#leave(),
          dblclick: () => this.resetZoom(),
          keydown: (event) => this.#key(event),
          focus: () => this.#row < 0 && this.show(this.#start()),
          blur: () => this.hide(),
        },
      },
      this.canvas,
      this.svg,
      this.cross,
      this.tip.element,
    );
    this.#observer = new ResizeObserver(() => this.draw());
    this.#observer.observe(this.element);
    this.redraw = () => this.draw();
    addEventListener("themechange", this.redraw);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.redraw);
  }

  destroy() {
    this.#observer.disconnect();
    removeEventListener("themechange", this.redraw);
    this.scheme.removeEventListener("change", this.redraw);
    cancelAnimationFrame(this.#frame);
  }

  get zoomed() {
    return this.#zoom !== null;
  }

  /** Draw with the next frame, however often it is asked for. */
  draw() {
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const width = this.element.clientWidth;
    if (!width) return;
    const height = width < NARROW ? HEIGHT_NARROW : HEIGHT;
    this.element.style.setProperty("height", `${height}px`);
    this.#view = new View(this.#series, { ...this.#options(), zoom: this.#zoom, width, height, now: serverNow() });
    paint(this.canvas, this.#view, palette());
    overlay(this.svg, this.#view, this.noise);
    this.element.setAttribute("aria-valuemax", Math.max(1, this.#series.length));
    if (this.#row >= 0) this.#mark();
  }

  /** The scale or the fit changed: a zoom of the old one means nothing. */
  rescale() {
    this.resetZoom();
    this.draw();
  }

  resetZoom() {
    if (this.#zoom === null) return;
    this.#zoom = null;
    this.onZoom(false);
    this.draw();
  }

  // ---- the cursor

  #start() {
    return this.#series.lastKeep?.row ?? this.#series.length - 1;
  }

  /** Move the cursor to a row. */
  show(row) {
    if (row < 0 || row >= this.#series.length) return;
    this.#row = row;
    this.element.setAttribute("aria-valuenow", row + 1);
    this.element.setAttribute("aria-valuetext", this.#spoken(row));
    if (this.#view) this.#mark();
  }

  hide() {
    this.#row = -1;
    replace(this.cross);
    this.tip.hide();
  }

  get row() {
    return this.#row;
  }

  /** The row `step` runs (or keeps) on from the cursor. */
  step(step, { keeps = false } = {}) {
    if (!this.#series.length) return;
    const row = this.#row < 0 ? this.#start() : this.#row;
    if (keeps) {
      const rows = this.#series.keeps.map((keep) => keep.row);
      const next = step > 0 ? rows.find((other) => other > row) : rows.findLast((other) => other < row);
      this.show(next ?? row);
    } else {
      this.show(Math.min(this.#series.length - 1, Math.max(0, row + step)));
    }
  }

  #spoken(row) {
    const series = this.#series;
    const word = WORDS[series.status[row]];
    const value = failed(series.status[row]) ? "" : `, ${bpb(series.bpb[row])}, ${delta(series.bpb[row] - series.before[row], { same: "equal to the best" })} against the best then`;
    return `Run ${count(row + 1)}, ${word}${value}, ${series.categories[series.category[row]]}`;
  }

  #mark() {
    const view = this.#view;
    if (!view.range && !failed(this.#series.status[this.#row])) return;
    const { x, y } = view.point(this.#row);
    this.cross.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
    if (x < view.area.left - 2 || x > view.area.right + 2) {
      replace(this.cross);
      this.tip.hide();
      return;
    }
    replace(
      this.cross,
      svg("line", { x1: x, x2: x, y1: view.area.top - 6, y2: view.area.lanes + 36 }),
      svg("circle", { cx: x, cy: y, r: 7 }),
    );
    this.tip.show(this.#about(this.#row), { x, y, width: view.width, height: view.height });
  }

  #about(row) {
    const series = this.#series;
    const code = series.status[row];
    return {
      id: series.id(row),
      n: row + 1,
      status: WORDS[code],
      near: code === NEAR,
      val_bpb: series.bpb[row],
      before: series.before[row],
      category: series.categories[series.category[row]],
      text: code === KEEP ? series.texts.get(row) : null,
    };
  }

  // ---- pointer

  #at(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #move(event) {
    if (!this.#view) return;
    const [x, y] = this.#at(event);
    if (this.#drag && Math.abs(x - this.#drag.x) > DRAG) {
      this.#drag.to = x;
      this.#select();
      return;
    }
    if (this.#drag?.to !== undefined) return;
    const row = this.#view.nearest(x, y);
    if (row >= 0) this.show(row);
  }

  #press(event) {
    if (event.button !== 0 || !this.#view || event.pointerType === "touch") return;
    this.#drag = { x: this.#at(event)[0] };
    this.element.setPointerCapture(event.pointerId);
  }

  #select() {
    const { area } = this.#view;
    const [left, right] = [this.#drag.x, this.#drag.to].sort((a, b) => a - b);
    this.tip.hide();
    replace(
      this.cross,
      svg("rect", { class: "selection", x: left, width: right - left, y: area.top - 6, height: area.lanes + 42 - area.top }),
    );
  }

  #release(event) {
    const drag = this.#drag;
    this.#drag = null;
    if (drag?.to !== undefined) {
      const [from, to] = [drag.x, drag.to].map((px) => this.#view.unitAt(px)).sort((a, b) => a - b);
      this.#zoom = [Math.max(from, this.#view.from), Math.min(to, this.#view.to)];
      this.onZoom(true);
      this.hide();
      this.draw();
      return;
    }
    if (!drag || !this.#view) return;
    const row = this.#view.nearest(...this.#at(event), 12);
    if (row >= 0) this.open(this.#series.id(row));
  }

  #cancel() {
    this.#drag = null;
    this.hide();
  }

  #leave() {
    if (!this.#drag && document.activeElement !== this.element) this.hide();
  }

  // ---- keyboard

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keeps = event.shiftKey;
    const actions = {
      ArrowRight: () => this.step(1, { keeps }),
      ArrowLeft: () => this.step(-1, { keeps }),
      PageUp: () => this.step(Math.max(10, Math.round(this.#series.length / 50))),
      PageDown: () => this.step(-Math.max(10, Math.round(this.#series.length / 50))),
      Home: () => this.show(0),
      End: () => this.show(this.#series.length - 1),
      Enter: () => this.#row >= 0 && this.open(this.#series.id(this.#row)),
      Escape: () => this.resetZoom(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }
}

/** The chart in words, for those who do not see it and for those in a hurry. */
export function summary(series) {
  const { length, best, baseline, crashes } = series;
  if (!length) return "No run has been decided yet.";
  const runs = `${count(length)} ${length === 1 ? "run" : "runs"} decided: ${count(series.counts[KEEP])} kept, ${count(series.discards)} discarded, ${count(crashes)} crashed.`;
  if (Number.isNaN(best)) return `${runs} None has a result yet.`;
  const last = series.lastKeep;
  const since = length - 1 - last.row;
  const gain = last.row === series.keeps[0].row ? "the first result" : `${delta(best - baseline)} against the baseline ${bpb(baseline)}`;
  return `${runs} Best ${bpb(best)}, ${gain}, reached by run ${count(last.row + 1)}${since ? `, ${count(since)} ${since === 1 ? "run" : "runs"} ago` : ", the latest run"}.`;
}

