// What of the runs is shown: chips of statuses, a category, a search.

import { h, replace, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";
import { KEEP, NEAR } from "./series.js";

const TYPING_MS = 250;
const CHIPS = ["keep", "near", "discard", "crash", "timeout"];
const SHAPE = { near: "discard" };

/**
 * `change(part)` is called with what the person chose of { statuses, category, q, since }; what is
 * typed once the typing rests or the field is left.
 */
export function filters({ change }) {
  const search = h("input", {
    type: "search", id: "search", placeholder: "Search changes  /", "aria-label": "Search the descriptions of runs", spellcheck: "false",
  });
  const category = h("select", { "aria-label": "Category" });
  const chips = new Map(CHIPS.map((name) => [name, chip(name)]));
  const since = h("button", { type: "button", class: "chip", "aria-pressed": "true", hidden: true, on: { click: () => change({ since: "" }) } });
  const reset = h("button", {
    type: "button", class: "plain", hidden: true, on: { click: () => change({ statuses: [], category: "", q: "", since: "" }) },
  }, "Clear");
  let state = null;
  let timer = null;
  let known = "";

  function chip(name) {
    const number = h("span", { class: "muted mono" });
    const button = h("button", { type: "button", class: "chip", "aria-pressed": "false", on: { click: () => toggle(name) } },
      mark(SHAPE[name] ?? name), name === "near" ? "near miss" : name, number);
    return { button, number };
  }

  function toggle(name) {
    const on = state.statuses.includes(name);
    change({ statuses: on ? state.statuses.filter((other) => other !== name) : [...state.statuses, name] });
  }

  function typed() {
    forget();
    change({ q: search.value.trim() });
  }

  function forget() {
    clearTimeout(timer);
    timer = null;
  }

  search.addEventListener("input", () => {
    forget();
    timer = setTimeout(typed, TYPING_MS);
  });
  search.addEventListener("blur", () => timer !== null && typed());
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") search.blur();
  });
  category.addEventListener("change", () => change({ category: category.value }));

  return {
    elements: [h("div", { class: "chips", role: "group", "aria-label": "Verdicts" }, [...chips.values()].map(({ button }) => button), since), category, search, reset],
    search,
    destroy: forget,
    show(next, series) {
      state = next;
      const numbers = {
        keep: series.counts[KEEP], near: series.counts[NEAR], discard: series.discards,
        crash: series.crashes - series.counts[4], timeout: series.counts[4],
      };
      for (const [name, { button, number }] of chips) {
        button.setAttribute("aria-pressed", String(next.statuses.includes(name)));
        button.hidden = numbers[name] === 0 && !next.statuses.includes(name);
        setText(number, count(numbers[name]));
      }
      since.hidden = !next.since;
      setText(since, `since ${next.since}  ×`);
      if (document.activeElement !== search) search.value = next.q;
      const names = [...new Set([...series.categories, next.category].filter(Boolean))].sort();
      if (known !== names.join("\n")) {
        known = names.join("\n");
        replace(category, h("option", { value: "" }, "All categories"), names.map((name) => h("option", { value: name }, plain(name))));
      }
      category.value = next.category;
      reset.hidden = !(next.statuses.length || next.category || next.q || next.since);
    },
  };
}
