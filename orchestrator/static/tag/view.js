// One frame of the chart: its layout in pixels, and where each run lies in it. Nothing is drawn here.

import { domain, range, unit } from "./scales.js";
import { LANES, failed } from "./series.js";

/** The height of a lane, and the width below which a chart is narrow, in pixels. */
export const LANE = 9;
export const NARROW = 600;
const REACH = 24;

/** Where the parts of a chart of this size lie. */
function layout(width, height) {
  const isNarrow = width < NARROW;
  const bottom = height - LANES.length * LANE - 50;
  return {
    left: isNarrow ? 54 : 66,
    right: width - (isNarrow ? 12 : 20),
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
    Object.assign(this, { series, x, width, height, now });
    this.area = layout(width, height);
    const { left, right, top, bottom } = this.area;
    [this.from, this.to] = zoom ?? domain(series, x, fit, now);
    this.range = range(series, fit);
    this.scaleX = (right - left) / (this.to - this.from || 1);
    if (this.range) this.scaleY = (bottom - top) / (this.range[1] - this.range[0]);
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

  /** The run number at a place in the units of the scale, unless x is time. */
  numberAt(value) {
    return this.x === "log" ? 10 ** value : value;
  }

  /** Rows within the range of x: [first, end). */
  rows() {
    const { series } = this;
    if (this.x === "time") return [series.firstSince(this.from), series.firstSince(this.to + 1)];
    return [
      Math.max(0, Math.ceil(this.numberAt(this.from) - 1e-9) - 1),
      Math.min(series.length, Math.floor(this.numberAt(this.to) + 1e-9)),
    ];
  }

  /** Where a run's mark lies: on the rail of crashes, on that of runs above the range, or between. */
  point(row) {
    const x = this.ofRow(row);
    const { series, area } = this;
    if (failed(series.status[row])) return { x, y: area.crash };
    const value = series.bpb[row];
    return { x, y: value > this.range[1] ? area.rail : this.y(value) };
  }

  /** The run whose mark is nearest to a pixel; -1 where there is none. */
  nearest(px, py, reach = REACH) {
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
    return (this.x === "time" ? this.series.firstSince(value) : Math.floor(this.numberAt(value))) - 1;
  }
}
