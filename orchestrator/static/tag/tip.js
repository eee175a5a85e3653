// The tooltip of a run under the cursor.

import { h, replace, setStyle } from "../lib/dom.js";
import { bpb, count, delta, deltaClass } from "../lib/format.js";
import { mark } from "../lib/parts.js";
import { prose, visible } from "../lib/visible.js";
import { NEAR, WORDS } from "./series.js";

const REST_MS = 120;
const GAP = 14;

/** `describe(id)` resolves to the run's description; it is asked for once the cursor rests. */
export function tip(describe) {
  const element = h("div.tip", { "aria-hidden": "true", hidden: true });
  let timer = null;
  let shown = null; // the run's id

  function show(series, row, place) {
    const id = series.id(row);
    if (shown !== id) {
      shown = id;
      clearTimeout(timer);
      const text = series.texts.get(row);
      replace(element, content(series, row, text));
      if (!text) timer = setTimeout(() => addText(series, row, place), REST_MS);
    }
    element.hidden = false;
    move(place);
  }

  async function addText(series, row, place) {
    const id = series.id(row);
    const text = await describe(id).catch(() => "");
    if (shown !== id || !text) return;
    replace(element, content(series, row, text));
    move(place);
  }

  function move({ x, y, width, height }) {
    const { offsetWidth, offsetHeight } = element;
    const left = x + GAP + offsetWidth > width ? x - GAP - offsetWidth : x + GAP;
    const top = Math.min(Math.max(4, y - offsetHeight - 12), height - offsetHeight - 4);
    setStyle(element, { transform: `translate(${Math.max(2, left)}px, ${top}px)` });
  }

  function hide() {
    clearTimeout(timer);
    shown = null;
    element.hidden = true;
  }

  return { element, show, hide };
}

function content(series, row, text) {
  const word = WORDS[series.status[row]];
  const shownWord = series.status[row] === NEAR ? "near miss" : word;
  const [value, before] = [series.bpb[row], series.before[row]];
  const versus = Number.isNaN(before) ? h("span.muted", "baseline") : difference(value - before);
  const guess = series.race && word === "keep" && h("span.muted.sans", " estimate");
  return [
    h("div.line", mark(word), h("b.mono", `#${count(row + 1)}`), ` ${shownWord} · `, visible(series.categoryOf(row))),
    Number.isNaN(value) ? h("div.muted", "no result") : h("div.mono", h("b", bpb(value)), guess, " ", versus),
    text && h("div.text", prose(text)),
  ];
}

const difference = (by) =>
  [h("span", { class: deltaClass(by) }, delta(by)), h("span.muted.sans", " vs best then")];
