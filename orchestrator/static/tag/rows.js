// The columns of the table of runs, and one row of it.

import { h } from "../lib/dom.js";
import { NONE, bpb, count, delta, deltaClass, gigabytes, headline, time } from "../lib/format.js";
import * as selection from "../lib/selection.js";
import { badge } from "../lib/parts.js";
import { plain, visible } from "../lib/visible.js";

/** { name, kind, cell(run) }; `sorts` are the two orders of a column, the first to be tried first. */
export const COLUMNS = [
  { name: "Run", sorts: ["newest", "oldest"] },
  { name: "Verdict", cell: verdict },
  { name: "val_bpb", kind: "num", sorts: ["best", "worst"], cell: (run) => bpb(run.val_bpb) },
  { name: "Δ best then", kind: "num", cell: difference },
  { name: "Category", kind: "category cut", cell: (run) => visible(run.category) },
  { name: "Change", cell: change },
  { name: "VRAM GB", kind: "num wide", cell: (run) => gigabytes(run.peak_vram_mb) },
  { name: "Decided", kind: "num when", cell: when },
];

/** A <tr> for a run; `pick(id)` selects it for comparing. */
export function row(run, pick) {
  const { id, n } = run;
  const isActive = run.status === "running" || run.status === "queued";
  const box = h("input", {
    type: "checkbox", "aria-label": `Compare run ${n ?? id}`, checked: selection.has(id), tabindex: "-1",
    data: { focus: "pick" }, onchange: () => pick(id),
  });
  const name = n === null ? ["…", h("span.visually-hidden", id)] : `#${count(n)}`;
  const link = h("a.mono", { href: `/e/${id}`, title: id, data: { focus: "link" } }, name);
  return h("tr", { tabindex: "-1", data: { id, focus: "row" }, class: isActive ? "active" : null },
    h("td.pick", box),
    h("th.run", { scope: "row" }, link),
    COLUMNS.slice(1).map(({ kind, cell }) => h("td", { class: kind }, cell(run))),
  );
}

function verdict({ status, near, reason }) {
  return badge(status, near ? "near miss" : reason === "infra_lost" ? "lost" : status);
}

function difference(run) {
  if (run.val_bpb === null) return h("span.none", NONE);
  if (run.best_before === null) return h("span.muted", "baseline");
  const by = run.val_bpb - run.best_before;
  return h("span", { class: deltaClass(by) }, delta(by));
}

function change(run) {
  const error = run.error && headline(run.error);
  const title = [run.description, error].filter(Boolean).map(plain).join("\n");
  return h("div.both", { title },
    h("span.cut", visible(run.description)),
    error && h("span.cut.error", visible(error)),
  );
}

function when(run) {
  if (run.status === "running") return [h("span.muted", "started "), time(run.started_at ?? run.created_at)];
  if (run.status === "queued") return [h("span.muted", "queued "), time(run.created_at)];
  return time(run.finished_at);
}
