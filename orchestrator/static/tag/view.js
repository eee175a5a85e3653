// One frame of the chart: its layout in pixels, and where each run lies in it. Nothing is drawn here.

import { domain, range, unit } from "./scales.js";
import { LANES, failed } from "./series.js";

const LANE = 9;
const NARROW = 600;

/** Where the parts of a chart of this size lie. */
function layout(width, height) {
  const narrow = width < NARROW;
  const lanes = LANES.length * LANE;
  const bottom = height - lanes - 50;
  return {
    left: narrow ? 54 : 66,
    right: width - (narrow ? 12 : 20),
    rail: 13, // the middle of the rail of runs above the range
    top: 26,
    bottom,
    crash: bottom + 13,
    lanes: bottom + 24,
    axis: height - 8,
  };
}

export class View {
  /** `zoom` is a range of x in units of the scale, or null for all that `fit` shows. */
  constructor(series, { x, fit, zoom, width, height, now }) {
    this.series = series;
    this.x = x;
    this.fit = fit;
    this.width = width;
    this.height = height;
    this.area = layout(width, height);
    [this.from, this.to] = zoom ?? domain(series, x, fit, now);
    this.range = range(series, fit);
    this.scaleX = (this.area.right - this.area.left) / (this.to - this.from || 1);
    if (this.range) this.scaleY = (this.area.bottom - this.area.top) / (this.range[1] - this.range[0]);
    this.now = now;
  }

  /** Pixels of a place in the units of the scale. */
  px(value) {
    return this.area.left + (value - this.from) * this.scaleX;
  }

  ofRow(row) {
    return this.px(unit(this.series, this.x, row));
  }

  y(value) {
    return this.area.bottom - (value - this.range[0]) * this.scaleY;
  }

  /** The units at a pixel. */
  unitAt(px) {
    return this.from + (px - this.area.left) / this.scaleX;
  }

  /** Rows within the range of x: [first, end). */
  rows() {
    const { series, x } = this;
    if (x === "time") return [series.firstSince(this.from), series.firstSince(this.to + 1)];
    const n = (value) => (x === "log" ? 10 ** value : value);
    return [
      Math.max(0, Math.ceil(n(this.from) - 1e-9) - 1),
      Math.min(series.length, Math.floor(n(this.to) + 1e-9)),
    ];
  }

  /** Where a run's mark lies: on the rail of crashes, on that of runs above the range, or between. */
  point(row) {
    const x = this.ofRow(row);
    if (failed(this.series.status[row])) return { x, y: this.area.crash, rail: "crash" };
    const value = this.series.bpb[row];
    if (value > this.range[1]) return { x, y: this.area.rail, rail: "above" };
    return { x, y: this.y(value), rail: null };
  }

  /** The run whose mark is nearest to a pixel; -1 where there is none. */
  nearest(px, py, reach = 24) {
    if (!this.range) return -1;
    const [first, end] = this.rows();
    const low = Math.max(first, this.#rowBefore(px - reach));
    const high = Math.min(end - 1, this.#rowBefore(px + reach) + 1);
    let found = -1;
    let least = Infinity;
    for (let row = low; row <= high; row++) {
      const { x, y } = this.point(row);
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < least) [least, found] = [distance, row];
    }
    return found;
  }

  #rowBefore(px) {
    const value = this.unitAt(px);
    if (this.x === "time") return this.series.firstSince(value) - 1;
    return Math.floor(this.x === "log" ? 10 ** value : value) - 1;
  }
}
