// The filters of the table of runs: chips of statuses, a category, a search.

import { h, replace, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { mark } from "../lib/parts.js";
import { plain } from "../lib/visible.js";
import { KEEP, NEAR, TIMEOUT } from "./series.js";

const TYPING_MS = 250;
const CHIPS = { keep: "keep", near: "near miss", discard: "discard", crash: "crash", timeout: "timeout" };

/**
 * `change(part)` is called with what the person chose of { statuses, category, q, since }; with what is
 * typed once the typing pauses or the field is left.
 */
export function filters({ change, signal }) {
  const search = h("input", {
    type: "search", id: "search", placeholder: "Search changes  /", "aria-label": "Search the descriptions of runs",
    spellcheck: "false",
    oninput: type,
    onblur: () => timer !== null && submit(),
    onkeydown: (event) => event.key === "Escape" && search.blur(),
  });
  const category = h("select", { "aria-label": "Category", onchange: () => change({ category: category.value }) });
  const chips = Object.entries(CHIPS).map(([name, label]) => {
    const number = h("span.muted.mono");
    const shape = mark(name === "near" ? "discard" : name);
    return { name, number, button: h("button.chip", { onclick: () => toggle(name) }, shape, label, number) };
  });
  const since = h("button.chip", { "aria-pressed": "true", onclick: () => change({ since: "" }) });
  const clear = h("button.plain", { onclick: () => change({ statuses: [], category: "", q: "", since: "" }) }, "Clear");
  let statuses = [];
  let timer = null;
  let knownNames = "";

  function toggle(name) {
    change({ statuses: statuses.includes(name) ? statuses.filter((other) => other !== name) : [...statuses, name] });
  }

  function type() {
    clearTimeout(timer);
    timer = setTimeout(submit, TYPING_MS);
  }

  function submit() {
    clearTimeout(timer);
    timer = null;
    if (signal.aborted) return; // a page that is left takes the focus from its field
    change({ q: search.value.trim() });
  }

  function show(state, series) {
    ({ statuses } = state);
    const timeouts = series.counts[TIMEOUT];
    const numbers = {
      keep: series.counts[KEEP], near: series.counts[NEAR], discard: series.discards,
      crash: series.crashes - timeouts, timeout: timeouts,
    };
    for (const { name, number, button } of chips) {
      const pressed = statuses.includes(name);
      button.ariaPressed = String(pressed);
      button.hidden = numbers[name] === 0 && !pressed;
      setText(number, count(numbers[name]));
    }
    since.hidden = !state.since;
    setText(since, `since ${state.since}  ×`);
    if (document.activeElement !== search) search.value = state.q;
    showCategories(state.category, series);
    clear.hidden = !(statuses.length || state.category || state.q || state.since);
  }

  function showCategories(chosen, series) {
    const names = [...new Set([...series.categories, chosen].filter(Boolean))].sort();
    if (knownNames !== names.join("\n")) {
      knownNames = names.join("\n");
      const options = names.map((name) => h("option", { value: name }, plain(name)));
      replace(category, h("option", { value: "" }, "All categories"), options);
    }
    category.value = chosen;
  }

  const group = h("div.chips", { role: "group", "aria-label": "Verdicts" }, chips.map(({ button }) => button), since);
  return { elements: [group, category, search, clear], search, show };
}
