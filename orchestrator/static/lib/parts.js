// Parts that several pages are made of: panels, tables, lists, choices, and the mark of a status.

import { h, keyed, replace, svg } from "./dom.js";
import { count } from "./format.js";

/** A part that scrolls, which the keyboard reaches: `selector` is its element. */
export const scrollable = (selector, label, ...content) =>
  h(selector, { tabindex: "0", role: "region", "aria-label": label }, content);

/** A panel under a heading, with `note` beside it and `end` at the far end. */
export function panel(title, { note, end, kind = "", id } = {}, ...content) {
  const header = h("header", h("h2", { id }, title), note, end && h("div.end", end));
  return h(`section.panel${kind}`, { "aria-labelledby": id }, header, content);
}

/** The row of column names of a table: each is a name, or { name, kind } with a class. */
export const headings = (columns) =>
  h("thead", h("tr", columns.map((column) => h("th", { scope: "col", class: column.kind }, column.name ?? column))));

/** A choice of one of `choices`, { value: label }, as joined radio buttons; returns { element, set }. */
export function segments(name, label, choices, choose) {
  const inputs = Object.keys(choices).map((value) =>
    h("input", { type: "radio", name, value, onchange: () => choose(value) }));
  const element = h("div.segments", { role: "radiogroup", "aria-label": label },
    inputs.map((input) => h("label", input, h("span", choices[input.value]))),
  );
  const set = (value) => {
    for (const input of inputs) input.checked = input.value === value;
  };
  return { element, set };
}

/** A keyed list in `list` that shows `most` items and a button for the older rest; returns `show(items)`. */
export function foldedList(list, rest, most, key, render) {
  let all = false;
  return function show(items) {
    const shown = all ? items : items.slice(0, most);
    keyed(list, shown, key, render);
    const hidden = items.length - shown.length;
    const unfold = () => {
      all = true;
      show(items);
    };
    replace(rest, hidden > 0 && h("button.plain.more", { onclick: unfold }, `Show ${count(hidden)} older`));
  };
}

/** A cell of a strip of figures: a label, a value, `extra` below it, and a note in small type. */
export function stripCell(label, value, note, { kind, size = "value", title, extra } = {}) {
  const content = [h(`div.${size}`, value), extra, note && h("div.note.clamp", { title }, note)];
  return h("div", { class: kind }, h("dt", label), h("dd", content));
}

// ---- a run's status as a shape and a word: colour never stands alone

const stroke = { fill: "none", stroke: "currentColor", "stroke-width": 2 };
const circle = (r, style) => ["circle", { cx: 6, cy: 6, r, ...style }];

const SHAPES = {
  keep: circle(4.5, { fill: "currentColor" }),
  provisional: circle(3.8, stroke), // a keep that the rule `race` has not confirmed
  discard: circle(2.5, { fill: "currentColor" }),
  crash: ["path", { d: "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5", ...stroke }],
  running: circle(3.8, stroke),
  queued: circle(3.8, { ...stroke, "stroke-width": 1.5, "stroke-dasharray": "2 2" }),
  cancelled: ["path", { d: "M2.5 6h7", ...stroke }],
  candidate: ["path", { d: "M6 1.5 10.5 6 6 10.5 1.5 6Z", ...stroke, "stroke-width": 1.5 }],
  repeat: circle(2.5, { ...stroke, "stroke-width": 1.5 }),
};

/** The shape alone, hidden from screen readers: the word stands beside it. */
export function mark(status) {
  const kind = status === "timeout" ? "crash" : status;
  const [shape, attributes] = SHAPES[kind] ?? SHAPES.discard;
  return svg(`svg.mark.${kind}`, { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    svg(shape, attributes),
  );
}

/** Shape and word. */
export const badge = (status, word = status) => h("span.status", mark(status), h("span.word", word));
