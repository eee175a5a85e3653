// What the crosshair says of a run.

import { h, replace } from "../lib/dom.js";
import { bpb, count, delta, deltaClass } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { visible } from "../lib/visible.js";

const REST_MS = 120;

/** `describe(id)` resolves to the run's description; asked for once the crosshair rests. */
export function tip(describe) {
  const element = h("div", { class: "tip", "aria-hidden": "true", hidden: true });
  let timer = null;
  let shown = null;

  function show(run, place) {
    if (shown !== run.id) {
      shown = run.id;
      clearTimeout(timer);
      draw(run, run.text);
      if (!run.text) timer = setTimeout(async () => {
        const text = await describe(run.id).catch(() => "");
        if (shown === run.id && text) {
          draw(run, text);
          move(place);
        }
      }, REST_MS);
    }
    element.hidden = false;
    move(place);
  }

  function draw(run, text) {
    const versus = run.val_bpb - run.before;
    replace(
      element,
      h("div", { class: "line" }, mark(run.status), h("b", { class: "mono" }, `#${count(run.n)}`), ` ${run.near ? "near miss" : run.status} · `, visible(run.category)),
      Number.isNaN(run.val_bpb)
        ? h("div", { class: "muted" }, "no result")
        : h("div", { class: "mono" }, h("b", {}, bpb(run.val_bpb)), " ", Number.isNaN(run.before)
          ? h("span", { class: "muted" }, "baseline")
          : [h("span", { class: deltaClass(versus) }, delta(versus)), h("span", { class: "muted sans" }, " vs best then")]),
      text && h("div", { class: "text" }, visible(text)),
    );
  }

  function move({ x, y, width, height }) {
    const { offsetWidth, offsetHeight } = element;
    const left = x + 14 + offsetWidth > width ? x - 14 - offsetWidth : x + 14;
    const top = Math.min(Math.max(4, y - offsetHeight - 12), height - offsetHeight - 4);
    element.style.setProperty("transform", `translate(${Math.max(2, left)}px, ${top}px)`);
  }

  function hide() {
    clearTimeout(timer);
    shown = null;
    element.hidden = true;
  }

  return { element, show, hide };
}
