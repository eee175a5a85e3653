// Learning curves over each other at equal progress: an SVG with a shared crosshair.
//
// x is the share of the run that is done, y the smoothed training loss. The steep beginning is left
// out of the range of y (not of the picture), or every difference that matters would be a hair wide.

import { h, replace, svg } from "./dom.js";
import { delta } from "./format.js";

const HEIGHT = 230;
const MARGIN = { left: 44, right: 14, top: 10, bottom: 22 };
const STEEP_PERCENT = 15;
const TABLE_PERCENT = [1, 5, 10, 25, 50, 75, 100];

/**
 * A chart of `series`: [{ id, label, kind, points: [{ percent, loss }] }]. `kind` is a class (this,
 * parent, best, or run-0 … run-7); the first series is what the others are measured against.
 * Answers { element, update(series), close() }.
 */
export function curveChart({ label, height = HEIGHT, empty = "No learning curve yet." }) {
  const plot = h("div", { class: "plot" });
  const legend = h("ul", { class: "curve-legend" });
  const table = h("div", { class: "curve-table" });
  const range = h("input", { type: "checkbox" });
  const element = h(
    "figure",
    { class: "curves" },
    h("figcaption", { class: "visually-hidden" }),
    plot,
    legend,
    h(
      "div",
      { class: "curve-foot" },
      h("label", {}, range, " From the first step"),
      h("details", {}, h("summary", {}, "As a table"), table),
    ),
  );
  // The crosshair stays through each drawing, with focus and pointer, while a run goes on.
  const line = h("div", { class: "crosshair", hidden: true });
  const slider = h("div", { class: "curve-slider", role: "slider", tabindex: "0", "aria-label": `${label}: progress under the crosshair`, "aria-valuemin": "0" });
  const state = { series: [], shown: [], scale: null, at: null, width: 0 };

  function draw() {
    state.width = plot.clientWidth;
    if (!state.width) return;
    const shown = (state.shown = state.series.filter(({ points }) => points.length));
    element.querySelector("figcaption").textContent = summary(label, shown);
    if (!shown.length) {
      replace(plot, h("p", { class: "state muted" }, empty));
      replace(legend);
      replace(table);
      return;
    }
    const scale = (state.scale = scales(shown, state.width, height, range.checked));
    if (slider.parentNode === plot) plot.firstElementChild.replaceWith(picture(shown, scale));
    else replace(plot, picture(shown, scale), line, slider);
    slider.setAttribute("aria-valuemax", String(Math.round(scale.end)));
    showAt();
    replace(table, asTable(shown));
  }

  function move(percent) {
    state.at = percent === null ? null : Math.min(state.scale.end, Math.max(0, percent));
    showAt();
  }

  function showAt() {
    const { shown, scale } = state;
    line.hidden = state.at === null;
    if (state.at !== null) line.style.setProperty("left", `${scale.x(state.at)}px`);
    const percent = state.at ?? common(shown);
    const values = shown.map((one) => at(one.points, percent));
    const where = `${percent.toFixed(percent < 10 ? 1 : 0)} % of the run`;
    replace(
      legend,
      shown.map((one, index) => legendItem(one, values[index], index ? values[0] : null)),
      h("li", { class: "muted where" }, state.at === null ? `at ${where}` : where),
    );
    slider.setAttribute("aria-valuenow", String(Math.round(percent)));
    slider.setAttribute(
      "aria-valuetext",
      `${where}: ${shown.map((one, index) => `${one.label} ${loss(values[index])}`).join(", ")}`,
    );
  }

  slider.addEventListener("pointermove", (event) => {
    move(state.scale.percent(event.clientX - slider.getBoundingClientRect().left + MARGIN.left));
  });
  slider.addEventListener("pointerleave", () => move(null));
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -1000, End: 1000 }[event.key];
    if (event.key === "Escape") move(null);
    else if (step) move((state.at ?? state.scale.end) + step);
    else return;
    event.preventDefault();
  });
  range.addEventListener("change", draw);
  const observer = new ResizeObserver(() => plot.clientWidth !== state.width && draw());
  observer.observe(plot);
  return {
    element,
    update(series) {
      state.series = series;
      draw();
    },
    close: () => observer.disconnect(),
  };
}

const loss = (value) => (value === null ? "—" : value.toFixed(4));

function legendItem({ label, kind, letter }, value, base) {
  return h(
    "li",
    {},
    h("i", { class: `key ${kind}`, "aria-hidden": "true" }),
    letter && h("b", {}, letter),
    h("span", { class: "name", title: label }, label),
    h("span", { class: "mono" }, loss(value)),
    base !== null && value !== null && h("span", { class: "mono muted" }, delta(value - base, { digits: 4, same: "±0" })),
  );
}

/** How far the shortest curve has come: up to there all can be compared. */
function common(shown) {
  return Math.min(...shown.map(({ points }) => points.at(-1).percent));
}

/** The loss at a progress, between the two points around it; null outside the curve. */
export function at(points, percent) {
  if (!points.length || percent < points[0].percent || percent > points.at(-1).percent) return null;
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle].percent <= percent) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  if (b.percent === a.percent) return b.loss;
  return a.loss + ((b.loss - a.loss) * (percent - a.percent)) / (b.percent - a.percent);
}

/** The same, but a curve that ends within a percent of the place answers with its end. */
function nearEnd(points, percent) {
  const last = points.at(-1).percent;
  return at(points, last < percent && percent - last < 1 ? last : percent);
}

function scales(shown, width, height, whole) {
  const end = Math.max(100, ...shown.map(({ points }) => points.at(-1).percent));
  const furthest = Math.max(...shown.map(({ points }) => points.at(-1).percent));
  // While all curves are young the steep part is all there is.
  const from = whole || furthest < 2 * STEEP_PERCENT ? 0 : STEEP_PERCENT;
  const seen = shown.flatMap(({ points }) => {
    const late = points.filter(({ percent }) => percent >= from);
    return late.length ? late : points.slice(-1);
  });
  let low = Math.min(...seen.map(({ loss: value }) => value));
  let high = Math.max(...seen.map(({ loss: value }) => value));
  const pad = (high - low || Math.abs(high) * 0.02 || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const inner = { width: Math.max(10, width - MARGIN.left - MARGIN.right), height: height - MARGIN.top - MARGIN.bottom };
  return {
    width, height, end, low, high,
    x: (percent) => MARGIN.left + (inner.width * percent) / end,
    y: (value) => MARGIN.top + (inner.height * (high - value)) / (high - low),
    percent: (x) => ((x - MARGIN.left) / inner.width) * end,
  };
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n += 1) found.push({ value: n * step, text: (n * step).toFixed(digits) });
  return found;
}

function picture(shown, scale) {
  const { width, height } = scale;
  const bottom = height - MARGIN.bottom;
  const clip = `clip-${Math.round(width)}-${height}`;
  const across = ticks(scale.low, scale.high, 4).map(({ value, text }) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(value), y2: scale.y(value) }),
    svg("text", { class: "tick", x: MARGIN.left - 6, y: scale.y(value) + 4, "text-anchor": "end" }, text),
  ]);
  const down = [0, 25, 50, 75, 100].map((percent) =>
    svg("text", { class: "tick", x: scale.x(percent), y: height - 6, "text-anchor": percent === 100 ? "end" : "middle" }, `${percent} %`),
  );
  // The first is what the page is about: drawn last, on top.
  const lines = [...shown].reverse().map(({ points, kind }) => {
    const last = points.at(-1);
    return [
      svg("polyline", { class: `curve ${kind}`, points: points.map((p) => `${scale.x(p.percent).toFixed(1)},${scale.y(p.loss).toFixed(1)}`).join(" ") }),
      svg("circle", { class: `curve-end ${kind}`, cx: scale.x(last.percent), cy: scale.y(last.loss), r: 3 }),
    ];
  });
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("clipPath", { id: clip }, svg("rect", { x: MARGIN.left, y: MARGIN.top - 4, width: width - MARGIN.left - MARGIN.right + 4, height: bottom - MARGIN.top + 8 })),
    across,
    svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
    down,
    svg("g", { "clip-path": `url(#${clip})` }, lines),
  );
}

function summary(label, shown) {
  if (!shown.length) return `${label}: none yet.`;
  const ends = shown.map(({ label: name, points }) => {
    const last = points.at(-1);
    return `${name} ${loss(last.loss)} at ${Math.round(last.percent)} %`;
  });
  return `${label}. Last training loss: ${ends.join("; ")}.`;
}

function asTable(shown) {
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Progress"), shown.map(({ label }) => h("th", { scope: "col", class: "num" }, label)))),
    h(
      "tbody",
      {},
      TABLE_PERCENT.map((percent) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, `${percent} %`),
          shown.map(({ points }) => h("td", { class: "num" }, loss(nearEnd(points, percent)))),
        ),
      ),
    ),
  );
}
