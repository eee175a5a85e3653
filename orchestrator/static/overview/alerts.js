// What is wrong now, each with the way to what it is about.

import { h, svg } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { plain } from "../lib/visible.js";

const WORD = { error: "Error", warning: "Warning" };

export function alertList() {
  const list = h("ul", { class: "alerts", "aria-label": "Alerts" });
  const element = h("section", { hidden: true }, list);
  return {
    element,
    update(alerts) {
      element.hidden = alerts.length === 0;
      keyed(list, alerts, ({ kind, subject }) => `${kind} ${subject}`, row);
    },
  };
}

function row({ kind, severity, subject, text }) {
  return h(
    "li",
    { class: severity },
    sign(severity),
    h("span", { class: "visually-hidden" }, `${WORD[severity]}: `),
    subject && h("a", { href: place(kind, subject) }, subject),
    h("span", {}, plain(text)),
  );
}

function place(kind, subject) {
  return kind.startsWith("gpu") ? `#gpu-${encodeURIComponent(subject)}` : `/t/${encodeURIComponent(subject)}`;
}

function sign(severity) {
  const shape = severity === "error"
    ? svg("path", { d: "M5 1.5h4L12.5 5v4L9 12.5H5L1.5 9V5z M7 4v4 M7 9.6v.9", fill: "none", stroke: "currentColor", "stroke-width": 1.5 })
    : svg("path", { d: "M7 2 12.5 12h-11z M7 6v3 M7 10.2v.6", fill: "none", stroke: "currentColor", "stroke-width": 1.5 });
  return svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" }, shape);
}
