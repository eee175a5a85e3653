// One row a tag: how far it got, what the last hours brought, whether it goes on.

import { h } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { bpb, count, delta, deltaClass, number, percent, time } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";
import { sparkline } from "./spark.js";

const ORDER = ["running", "queued", "paused", "idle"];

const COLUMNS = [
  ["Tag"], ["State"], ["Running best"], ["Best", "num"], ["Δ since", "num"], ["Δ baseline", "num"],
  ["Runs", "num"], ["Since: runs", "num"], ["keep", "num"], ["crash", "num"], ["Last keep"], ["Runs / GPU-h", "num"], ["Mode"],
];

export function tagTable() {
  const rows = h("tbody");
  const element = h(
    "section",
    { class: "panel" },
    h("header", {}, h("h2", {}, "Tags")),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Tags" },
      h(
        "table",
        { class: "tags" },
        h("thead", {}, h("tr", {}, COLUMNS.map(([label, kind]) => h("th", { scope: "col", class: kind }, label)))),
        rows,
      ),
    ),
  );
  return {
    element,
    update({ tags, now }) {
      const sorted = [...tags].sort(
        (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) ||
          (b.last_finished_at ?? b.created_at).localeCompare(a.last_finished_at ?? a.created_at),
      );
      // The line is carried on to now, but a row is not drawn anew for each second that passes.
      const minute = now.slice(0, 16);
      keyed(rows, sorted.map((tag) => ({ tag, now: tag.state === "idle" ? null : `${minute}:00Z` })), ({ tag }) => tag.name, row);
    },
  };
}

function row({ tag, now }) {
  const { counts, since } = tag;
  const more = since.whole ? "" : "+";
  return h(
    "tr",
    {},
    h("th", { scope: "row", class: "name" }, h("a", { href: `/t/${encodeURIComponent(tag.name)}`, data: { focus: "name" } }, tag.name)),
    h("td", {}, state(tag)),
    h("td", { class: "spark-cell" }, sparkline(tag.spark, now ?? tag.last_finished_at)),
    h("td", { class: "num strong" }, tag.best_experiment_id ? h("a", { href: `/e/${tag.best_experiment_id}`, data: { focus: "best" } }, bpb(tag.best_val_bpb)) : "—"),
    h("td", { class: `num ${deltaClass(since.gain)}` }, delta(since.gain, { same: "±0" })),
    h("td", { class: `num ${deltaClass(tag.gain)}` }, delta(tag.gain, { same: "±0" })),
    h("td", { class: "num" }, count(counts.finished)),
    h("td", { class: "num" }, count(since.finished) + more),
    h("td", { class: "num" }, count(since.keep) + more),
    h("td", { class: "num" }, since.finished ? percent(since.crash_rate) : "—"),
    h("td", { class: "last" }, lastKeep(tag.last_keep)),
    h("td", { class: "num" }, number(tag.per_gpu_hour, tag.per_gpu_hour < 100 ? 1 : 0)),
    h("td", { title: plain(tag.mode_reason) }, tag.mode, tag.pinned && h("span", { class: "muted" }, " · pinned")),
  );
}

function state({ state: word, counts }) {
  const note = word === "running" ? `${count(counts.running)} running` : word === "queued" ? `${count(counts.queued)} queued` : word;
  const queued = word === "running" && counts.queued ? h("span", { class: "muted" }, ` +${count(counts.queued)}`) : null;
  const shape = word === "paused" ? "cancelled" : word === "idle" ? "discard" : word;
  return h("span", { class: "status" }, mark(shape), h("span", {}, note, queued));
}

function lastKeep(keep) {
  if (!keep) return "—";
  const ago = keep.runs_ago === 0 ? "the last run" : `${count(keep.runs_ago)}${keep.whole ? "" : "+"} runs ago`;
  return [
    h("a", { href: `/e/${keep.experiment_id}`, class: "cut", title: plain(keep.description), data: { focus: "keep" } }, plain(keep.description) || "keep"),
    h("span", { class: "muted" }, `${ago}, `, time(keep.at)),
  ];
}
