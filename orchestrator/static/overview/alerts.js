// What is wrong now, each with a link to its tag or GPU.

import { h, keyed, svg } from "../lib/dom.js";
import { prose } from "../lib/visible.js";

const WORDS = { error: "Error", warning: "Warning" };
const SIGNS = {
  error: "M5 1.5h4L12.5 5v4L9 12.5H5L1.5 9V5z M7 4v4 M7 9.6v.9",
  warning: "M7 2 12.5 12h-11z M7 6v3 M7 10.2v.6",
};

export function alertList() {
  const list = h("ul.alerts", { "aria-label": "Alerts" });
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
  const place = encodeURIComponent(subject ?? "");
  const href = kind.startsWith("gpu") ? `#gpu-${place}` : `/t/${place}`;
  return h(`li.${severity}`,
    svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" },
      svg("path", { d: SIGNS[severity], fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
    ),
    h("span.visually-hidden", `${WORDS[severity]}: `),
    subject && h("a", { href }, subject),
    h("span", prose(text)),
  );
}
