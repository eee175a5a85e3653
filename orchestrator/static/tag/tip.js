// The tooltip of a run under the cursor.

import { h, replace, setStyle } from "../lib/dom.js";
import { bpb, count, delta, deltaClass } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { visible } from "../lib/visible.js";

const REST_MS = 120;
const GAP = 14;

/** `describe(id)` resolves to the run's description; it is asked for once the cursor rests. */
export function tip(describe) {
  const element = h("div.tip", { "aria-hidden": "true", hidden: true });
  let timer = null;
  let shown = null; // the id of the run

  function show(run, place) {
    if (shown !== run.id) {
      shown = run.id;
      clearTimeout(timer);
      replace(element, content(run, run.text));
      if (!run.text) timer = setTimeout(() => addText(run, place), REST_MS);
    }
    element.hidden = false;
    move(place);
  }

  async function addText(run, place) {
    const text = await describe(run.id).catch(() => "");
    if (shown !== run.id || !text) return;
    replace(element, content(run, text));
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

const content = (run, text) => [
  h("div.line", mark(run.status), h("b.mono", `#${count(run.n)}`), ` ${run.word} · `, visible(run.category)),
  Number.isNaN(run.val_bpb) ? h("div.muted", "no result") : h("div.mono", h("b", bpb(run.val_bpb)), " ", versus(run)),
  text && h("div.text", visible(text)),
];

function versus({ val_bpb: value, before }) {
  if (Number.isNaN(before)) return h("span.muted", "baseline");
  const difference = value - before;
  return [h("span", { class: deltaClass(difference) }, delta(difference)), h("span.muted.sans", " vs best then")];
}
