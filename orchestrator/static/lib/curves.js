// Learning curves in one chart with a shared crosshair. x is the share of the run that is done, y the
// smoothed training loss, without the steep beginning, or every difference that matters would be a hair wide.

import { h, replace, setStyle, setText, svg } from "./dom.js";
import { NONE, delta, ticks } from "./format.js";
import { headings, panel, scrollable } from "./parts.js";
import { remark } from "./states.js";

const HEIGHT = 230;
const MARGIN = { left: 44, right: 14, top: 10, bottom: 22 };
const STEEP_PERCENT = 15;
const TABLE_PERCENT = [1, 5, 10, 25, 50, 75, 100];
const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -1000, End: 1000 };

const shownLoss = (value) => (value === null ? NONE : value.toFixed(4));
const end = ({ points }) => points.at(-1);

/**
 * A chart of `series`: [{ label, kind, letter?, points: [{ percent, loss }] }]. `kind` is a class: this,
 * parent, then, best, or run-0 … run-7. The others are measured against the first. Returns { element,
 * update(series) }.
 */
export function curveChart({ label, height = HEIGHT, empty = "No learning curve yet.", signal }) {
  const caption = h("figcaption.visually-hidden");
  const plot = h("div.plot");
  const legend = h("ul.curve-legend");
  const table = scrollable("div.scroll.curve-table", `${label} as a table`);
  const whole = h("input", { type: "checkbox", onchange: draw });
  const element = h("figure.curves",
    caption,
    plot,
    legend,
    h("div.curve-foot", h("label", whole, " From the first step"), h("details", h("summary", "As a table"), table)),
  );
  // Crosshair and slider keep their elements, and with them focus and pointer, while a run goes on.
  const line = h("div.crosshair", { hidden: true });
  const slider = h("div.curve-slider", {
    role: "slider", tabindex: "0", "aria-label": `${label}: progress under the crosshair`, "aria-valuemin": "0",
    onpointermove: (event) => move(scale.percent(event.clientX - plot.getBoundingClientRect().left)),
    onpointerleave: () => move(null),
    onkeydown: press,
  });
  let shown = [];
  let scale = null;
  let at = null; // the percent under the crosshair
  let width = 0;

  function update(series) {
    shown = series.filter(({ points }) => points.length);
    draw();
  }

  function draw() {
    width = plot.clientWidth;
    if (!width) return;
    setText(caption, summary(label, shown));
    if (!shown.length) {
      replace(plot, remark(empty));
      replace(legend);
      replace(table);
      return;
    }
    scale = scales(shown, width, height, whole.checked);
    if (slider.parentNode === plot) plot.firstElementChild.replaceWith(picture(shown, scale));
    else replace(plot, picture(shown, scale), line, slider);
    slider.ariaValueMax = Math.round(scale.end);
    showCrosshair();
    replace(table, asTable(shown));
  }

  function move(percent) {
    at = percent === null ? null : Math.min(scale.end, Math.max(0, percent));
    showCrosshair();
  }

  function press(event) {
    const step = STEPS[event.key];
    if (event.key === "Escape") move(null);
    else if (step) move((at ?? scale.end) + step);
    else return;
    event.preventDefault();
  }

  function showCrosshair() {
    line.hidden = at === null;
    if (at !== null) setStyle(line, { left: `${scale.x(at)}px` });
    // Without a crosshair: as far as the shortest curve has come, where all can be compared.
    const percent = at ?? Math.min(...shown.map((one) => end(one).percent));
    const values = shown.map(({ points }) => lossAt(points, percent));
    const place = `${percent.toFixed(percent < 10 ? 1 : 0)} % of the run`;
    replace(legend,
      shown.map((one, index) => legendItem(one, values[index], index ? values[0] : null)),
      h("li.muted.where", at === null ? `at ${place}` : place),
    );
    const spoken = shown.map((one, index) => `${one.label} ${shownLoss(values[index])}`);
    slider.ariaValueNow = Math.round(percent);
    slider.ariaValueText = `${place}: ${spoken.join(", ")}`;
  }

  const observer = new ResizeObserver(() => plot.clientWidth !== width && draw());
  observer.observe(plot);
  signal.addEventListener("abort", () => observer.disconnect());
  return { element, update };
}

/** The chart in its panel, as the pages show it. */
export const curvePanel = (chart) =>
  panel("Learning curves", { note: h("span.muted", "training loss at equal progress") }, h("div.body", chart.element));

function legendItem({ label, kind, letter }, value, base) {
  const difference = base !== null && value !== null && delta(value - base, { digits: 4, same: "±0" });
  return h("li",
    h(`i.key.${kind}`, { "aria-hidden": "true" }),
    letter && h("b", letter),
    h("span.name.cut", { title: label }, label),
    h("span.mono", shownLoss(value)),
    difference && h("span.mono.muted", difference),
  );
}

/** The loss at a progress, between the two points around it; null outside the curve. */
export function lossAt(points, percent) {
  if (!points.length || percent < points[0].percent || percent > points.at(-1).percent) return null;
  const after = points.findIndex((point) => point.percent > percent);
  if (after < 0) return points.at(-1).loss;
  const [a, b] = [points[after - 1], points[after]];
  return a.loss + ((b.loss - a.loss) * (percent - a.percent)) / (b.percent - a.percent);
}

function scales(shown, width, height, whole) {
  const furthest = Math.max(...shown.map((one) => end(one).percent));
  const last = Math.max(100, furthest);
  // While all curves are young the steep part is all there is.
  const from = whole || furthest < 2 * STEEP_PERCENT ? 0 : STEEP_PERCENT;
  const losses = shown.flatMap(({ points }) => {
    const late = points.filter(({ percent }) => percent >= from);
    return (late.length ? late : points.slice(-1)).map(({ loss }) => loss);
  });
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  const pad = (most - least || Math.abs(most) * 0.02 || 1) * 0.06;
  const [low, high] = [least - pad, most + pad];
  const inner = {
    width: Math.max(10, width - MARGIN.left - MARGIN.right),
    height: height - MARGIN.top - MARGIN.bottom,
  };
  return {
    width, height, end: last, low, high,
    x: (percent) => MARGIN.left + (inner.width * percent) / last,
    y: (value) => MARGIN.top + (inner.height * (high - value)) / (high - low),
    percent: (x) => ((x - MARGIN.left) / inner.width) * last,
  };
}

function picture(shown, scale) {
  const { width, height, x, y } = scale;
  const bottom = height - MARGIN.bottom;
  const right = width - MARGIN.right;
  const clip = `clip-${Math.round(width)}-${height}`;
  const { values, decimals } = ticks(scale.low, scale.high, 4);
  const across = values.map((value) => [
    svg("line.grid", { x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }),
    svg("text.tick", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(decimals)),
  ]);
  const down = [0, 25, 50, 75, 100].map((percent) => {
    const anchor = percent === 100 ? "end" : "middle";
    return svg("text.tick", { x: x(percent), y: height - 6, "text-anchor": anchor }, `${percent} %`);
  });
  // The first is what the page is about: it is drawn last, on top.
  const curves = shown.toReversed().map(({ points, kind }) => {
    const { percent, loss } = points.at(-1);
    const path = points.map((point) => `${x(point.percent).toFixed(1)},${y(point.loss).toFixed(1)}`);
    return [
      svg(`polyline.curve.${kind}`, { points: path.join(" ") }),
      svg(`circle.curve-end.${kind}`, { cx: x(percent), cy: y(loss), r: 3 }),
    ];
  });
  const area = {
    x: MARGIN.left, y: MARGIN.top - 4, width: right - MARGIN.left + 4, height: bottom - MARGIN.top + 8,
  };
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("clipPath", { id: clip }, svg("rect", area)),
    across,
    svg("line.axis", { x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }),
    down,
    svg("g", { "clip-path": `url(#${clip})` }, curves),
  );
}

function summary(label, shown) {
  if (!shown.length) return `${label}: none yet.`;
  const ends = shown.map((one) => `${one.label} ${shownLoss(end(one).loss)} at ${Math.round(end(one).percent)} %`);
  return `${label}. Last training loss: ${ends.join("; ")}.`;
}

function asTable(shown) {
  const columns = ["Progress", ...shown.map(({ label }) => ({ name: label, kind: "num" }))];
  // A curve that ends within a percent before the place shows its end.
  const near = ({ points }, percent) => {
    const last = points.at(-1).percent;
    return lossAt(points, last < percent && percent - last < 1 ? last : percent);
  };
  const row = (percent) =>
    h("tr", h("th", { scope: "row" }, `${percent} %`), shown.map((one) => h("td.num", shownLoss(near(one, percent)))));
  return h("table", headings(columns), h("tbody", TABLE_PERCENT.map(row)));
}
