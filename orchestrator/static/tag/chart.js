// The progress chart: every decided run, the running best, what was kept. For the keyboard and for
// screen readers it is a slider whose value is a run.

import { h, replace, svg } from "../lib/dom.js";
import { bpb, count, delta, serverNow } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { overlay } from "./overlay.js";
import { paint } from "./paint.js";
import { WORDS, failed } from "./series.js";
import { View } from "./view.js";
import { tip } from "./tip.js";

const DRAG_PX = 6;
const CLICK_PX = 12;

/**
 * `options()` returns { x, fit, noise }; `describe(id)` resolves to a run's text. `resetButton` is for the
 * frame of the chart: it shows while the chart is zoomed.
 */
export function progressChart(series, { options, describe, signal }) {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const marks = svg("svg", { "aria-hidden": "true" });
  const cross = svg("svg.cross", { "aria-hidden": "true" });
  const tooltip = tip(describe);
  const resetButton = h("button.chip", { hidden: true, onclick: resetZoom }, "Reset zoom");
  const element = h("div.plot", {
    tabindex: "0", role: "slider", "aria-label": "Runs in the order of verdicts", "aria-orientation": "horizontal",
    "aria-valuemin": "1", "aria-valuemax": "1", "aria-valuenow": "1",
    onpointermove: drag,
    onpointerdown: press,
    onpointerup: release,
    onpointercancel: () => {
      pressed = null;
      hide();
    },
    onpointerleave: () => !pressed && document.activeElement !== element && hide(),
    ondblclick: resetZoom,
    onkeydown: key,
    onfocus: () => current < 0 && show(start()),
    onblur: hide,
  }, canvas, marks, cross, tooltip.element);
  let view = null;
  let zoom = null; // a range of x in the units of the scale
  let current = -1; // the row under the cursor
  let pressed = null; // where the pointer went down, and where it was dragged to
  let frame = 0;

  /** Draw with the next frame, however often it is called. */
  function draw() {
    frame ||= requestAnimationFrame(drawNow);
  }

  function drawNow() {
    cancelAnimationFrame(frame);
    frame = 0;
    const { clientWidth: width, clientHeight: height } = element;
    if (!width) return;
    const { x, fit, noise } = options();
    view = new View(series, { x, fit, zoom, width, height, now: serverNow() });
    paint(canvas, view);
    overlay(marks, view, noise);
    element.ariaValueMax = Math.max(1, series.length);
    if (current >= 0) markCurrent();
  }

  function setZoom(range) {
    zoom = range;
    resetButton.hidden = zoom === null;
    draw();
  }

  /** Show all again, as after a change of scale: a zoom of the old one means nothing. */
  function resetZoom() {
    setZoom(null);
  }

  const start = () => series.lastKeep?.row ?? series.length - 1;

  /** Move the cursor to a row. */
  function show(row) {
    if (row < 0 || row >= series.length) return;
    current = row;
    element.ariaValueNow = row + 1;
    element.ariaValueText = spoken(row);
    if (view) markCurrent();
  }

  function hide() {
    current = -1;
    replace(cross);
    tooltip.hide();
  }

  /** Move the cursor `by` runs, or to the next keep in that direction. */
  function step(by, { keeps = false } = {}) {
    const row = current < 0 ? start() : current;
    const rows = series.keeps.map((keep) => keep.row);
    const keep = by > 0 ? rows.find((other) => other > row) : rows.findLast((other) => other < row);
    show(keeps ? (keep ?? row) : Math.min(series.length - 1, Math.max(0, row + by)));
  }

  function spoken(row) {
    const code = series.status[row];
    const value = series.bpb[row];
    const difference = delta(value - series.before[row], { same: "equal to the best" });
    const result = Number.isNaN(value) ? "" : `, ${bpb(value)}, ${difference} against the best then`;
    return `Run ${count(row + 1)}, ${WORDS[code]}${result}, ${series.categoryOf(row)}`;
  }

  function markCurrent() {
    if (!view.range && !failed(series.status[current])) return;
    const { x, y } = view.point(current);
    const { area, width, height } = view;
    cross.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (x < area.left - 2 || x > area.right + 2) {
      replace(cross);
      tooltip.hide();
      return;
    }
    replace(cross,
      svg("line", { x1: x, x2: x, y1: area.top - 6, y2: area.lanes + 36 }),
      svg("circle", { cx: x, cy: y, r: 7 }),
    );
    tooltip.show(series, current, { x, y, width, height });
  }

  const open = (row) => row >= 0 && navigate(`/e/${series.id(row)}`);

  // ---- pointer: hover shows a run, a click opens it, a drag zooms

  function place(event) {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  function press(event) {
    if (event.button !== 0 || !view || event.pointerType === "touch") return;
    pressed = { from: place(event).x, to: null };
    element.setPointerCapture(event.pointerId);
  }

  function drag(event) {
    if (!view) return;
    const { x, y } = place(event);
    if (pressed && Math.abs(x - pressed.from) > DRAG_PX) pressed.to = x;
    if (pressed?.to != null) showSelection();
    else show(view.nearest(x, y));
  }

  function showSelection() {
    const { area } = view;
    const [left, right] = sorted(pressed.from, pressed.to);
    tooltip.hide();
    const height = area.lanes + 42 - area.top;
    replace(cross, svg("rect.selection", { x: left, width: right - left, y: area.top - 6, height }));
  }

  function release(event) {
    if (!pressed) return;
    const { from, to } = pressed;
    pressed = null;
    if (to === null) {
      const { x, y } = place(event);
      open(view.nearest(x, y, CLICK_PX));
      return;
    }
    const [left, right] = sorted(view.unitAt(from), view.unitAt(to));
    hide();
    setZoom([Math.max(left, view.from), Math.min(right, view.to)]);
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keeps = event.shiftKey;
    const page = Math.max(10, Math.round(series.length / 50));
    const action = {
      ArrowRight: () => step(1, { keeps }),
      ArrowLeft: () => step(-1, { keeps }),
      PageUp: () => step(page),
      PageDown: () => step(-page),
      Home: () => show(0),
      End: () => show(series.length - 1),
      Enter: () => open(current),
      Escape: resetZoom,
    }[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  const observer = new ResizeObserver(draw);
  observer.observe(element);
  addEventListener("themechange", draw, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal });
  signal.addEventListener("abort", () => {
    observer.disconnect();
    cancelAnimationFrame(frame);
  });
  return { element, resetButton, draw, drawNow, resetZoom, step, current: () => current };
}

const sorted = (a, b) => (a < b ? [a, b] : [b, a]);
