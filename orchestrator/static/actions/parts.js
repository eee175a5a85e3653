// What the panels of the Actions page share.

import { h } from "../lib/dom.js";

/** A panel with a heading; answers { element, body, note }. */
export function panel(title, ...end) {
  const body = h("div", { class: "panel-body" });
  const note = h("span", { class: "muted" });
  const element = h("section", { class: "panel" }, h("header", {}, h("h2", {}, title), note, end.length > 0 && h("span", { class: "end" }, end)), body);
  return { element, body, note };
}

/** A button that runs a steering action and then `changed`. */
export function action(label, run, changed, { kind = null, name = label, describe = null } = {}) {
  return h(
    "button",
    {
      type: "button", class: kind, data: { focus: name }, "aria-label": describe,
      on: { click: () => run().then((answer) => answer && changed()) },
    },
    label,
  );
}
