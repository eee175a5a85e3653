// One row of the table of runs.

import { h } from "../lib/dom.js";
import { bpb, count, delta, deltaClass, gigabytes, headline, time } from "../lib/format.js";
import * as selection from "../lib/selection.js";
import { badge } from "../lib/status.js";
import { plain, visible } from "../lib/visible.js";

export const COLUMNS = [
  { name: "Run", sorts: ["newest", "oldest"] },
  { name: "Verdict" },
  { name: "val_bpb", number: true, sorts: ["best", "worst"] },
  { name: "Δ best then", number: true },
  { name: "Category", class: "category" },
  { name: "Change" },
  { name: "VRAM GB", number: true, class: "wide" },
  { name: "Decided", number: true },
];

const isActive = (run) => run.status === "running" || run.status === "queued";
const label = (run) => (run.n === null ? `run ${run.id}` : `run ${run.n}`);

/** A <tr> for a run; `pick(id)` selects it for comparing. */
export function row(run, pick) {
  const box = h("input", {
    type: "checkbox", "aria-label": `Compare ${label(run)}`, checked: selection.has(run.id), tabindex: "-1",
    data: { focus: "pick" }, on: { change: () => pick(run.id) },
  });
  return h("tr", { tabindex: "-1", data: { id: run.id, focus: "row" }, class: isActive(run) ? "active" : null },
    h("td", { class: "pick" }, box),
    h("th", { scope: "row", class: "run" }, h("a", { class: "mono", href: `/e/${run.id}`, title: run.id, data: { focus: "link" } },
      run.n === null ? "…" : `#${count(run.n)}`, run.n === null && h("span", { class: "visually-hidden" }, run.id))),
    h("td", {}, badge(run.status, run.near ? "near miss" : run.reason === "infra_lost" ? "lost" : run.status)),
    h("td", { class: "num" }, bpb(run.val_bpb)),
    h("td", { class: "num" }, difference(run)),
    h("td", { class: "category cut" }, visible(run.category)),
    h("td", { class: "change" }, change(run)),
    h("td", { class: "num wide" }, gigabytes(run.peak_vram_mb)),
    h("td", { class: "num when" }, when(run)),
  );
}

function difference(run) {
  if (run.val_bpb === null) return h("span", { class: "none" }, "—");
  if (run.best_before === null) return h("span", { class: "muted" }, "baseline");
  const by = run.val_bpb - run.best_before;
  return h("span", { class: deltaClass(by) }, delta(by));
}

function change(run) {
  const text = plain(run.description);
  const error = run.error ? headline(run.error) : null;
  return h("div", { class: "both", title: error ? `${text}\n${plain(error)}` : text },
    h("span", { class: "cut" }, visible(run.description)), error && h("span", { class: "cut error" }, visible(error)));
}

function when(run) {
  if (run.status === "running") return [h("span", { class: "muted" }, "started "), time(run.started_at ?? run.created_at)];
  if (run.status === "queued") return [h("span", { class: "muted" }, "queued "), time(run.created_at)];
  return time(run.finished_at);
}
