// One row for each tag: how far it got, what the last hours brought, whether it goes on.

import { h, keyed, svg } from "../lib/dom.js";
import { NONE, bpb, count, delta, deltaClass, milliseconds, number, percent, plural, time } from "../lib/format.js";
import { headings, mark, panel, scrollable } from "../lib/parts.js";
import { plain, prose } from "../lib/visible.js";

const ORDER = ["running", "queued", "paused", "idle"];
const SHAPES = { paused: "cancelled", idle: "discard" };
const SPARK = { width: 132, height: 24, pad: 3 };
const num = (name) => ({ name, kind: "num" });
const COLUMNS = [
  "Tag", "State", "Running best", num("Best"), num("Δ since"), num("Δ baseline"), num("Runs"), num("Since: runs"),
  num("keep"), num("crash"), "Last keep", num("Runs / GPU\u2011h"), "Mode",
];

const lastActive = (tag) => tag.last_finished_at ?? tag.created_at;

export function tagTable() {
  const rows = h("tbody");
  const table = scrollable("div.scroll", "Tags", h("table.tags", headings(COLUMNS), rows));
  return {
    element: panel("Tags", {}, table),
    update({ tags, now }) {
      const sorted = tags.toSorted((a, b) =>
        ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || lastActive(b).localeCompare(lastActive(a)));
      // The line ends now, but to the minute: a row is not rendered again for each second.
      const minute = `${now.slice(0, 16)}:00Z`;
      const items = sorted.map((tag) => ({ tag, until: tag.state === "idle" ? tag.last_finished_at : minute }));
      keyed(rows, items, ({ tag }) => tag.name, row);
    },
  };
}

function row({ tag, until }) {
  const { name, counts, since, best_experiment_id: best } = tag;
  return h("tr",
    h("th.name", { scope: "row" }, h("a", { href: `/t/${encodeURIComponent(name)}`, data: { focus: "name" } }, name)),
    h("td", state(tag)),
    h("td.spark-cell", sparkline(tag.spark, until)),
    h("td.num.strong", { title: best && tag.best_is_estimate ? "an estimate from all its runs" : null },
      best ? h("a", { href: `/e/${best}`, data: { focus: "best" } }, bpb(tag.best_val_bpb)) : NONE),
    h("td", { class: `num ${deltaClass(since.gain)}` }, delta(since.gain, { same: "±0" })),
    h("td", { class: `num ${deltaClass(tag.gain)}` }, delta(tag.gain, { same: "±0" })),
    h("td.num", count(counts.finished)),
    h("td.num", count(since.finished)),
    h("td.num", count(since.keep)),
    h("td.num", since.finished ? percent(since.crash_rate) : NONE),
    h("td.last", lastKeep(tag.last_keep)),
    h("td.num", number(tag.per_gpu_hour, tag.per_gpu_hour < 100 ? 1 : 0)),
    h("td", { title: plain(tag.mode_reason) }, tag.mode, tag.pinned && h("span.muted", " pinned")),
  );
}

function state({ state: word, counts }) {
  const counted = word === "running" || word === "queued";
  const queued = word === "running" && counts.queued > 0 && h("span.muted", ` +${count(counts.queued)}`);
  const text = counted ? `${count(counts[word])} ${word}` : word;
  return h("span.status", mark(SHAPES[word] ?? word), h("span", text, queued));
}

function lastKeep(keep) {
  if (!keep) return NONE;
  const ago = keep.runs_ago === 0 ? "the last run" : `${plural(keep.runs_ago, "run")} ago`;
  const text = plain(keep.description);
  return [
    h("a.clamp", { href: `/e/${keep.experiment_id}`, title: text, data: { focus: "keep" } }, text ? prose(keep.description) : "keep"),
    h("span.muted", `${ago}, `, time(keep.at)),
  ];
}

/** A tag's running best as a line of a few pixels: a step at each of its keeps `points`, up to `until`. */
function sparkline(points, until) {
  const label = points.length
    ? `Running best from ${bpb(points[0].val_bpb)} to ${bpb(points.at(-1).val_bpb)} in ${points.length} steps shown`
    : "No result yet";
  const { width, height } = SPARK;
  return svg("svg.spark", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    points.length > 0 && line(points, until),
  );
}

function line(points, until) {
  const { width, height, pad } = SPARK;
  const times = points.map(({ at }) => milliseconds(at));
  const values = points.map(({ val_bpb: value }) => value);
  const [first, last] = [times[0], times.at(-1)];
  const length = Math.max(last, until ? milliseconds(until) : 0) - first;
  const [top, bottom] = [values[0], values.at(-1)];
  const x = (at) => pad + ((width - 2 * pad) * (at - first)) / (length || 1);
  const y = (value) => pad + (height - 2 * pad) * (top - bottom ? (top - value) / (top - bottom) : 0.5);
  const steps = values.slice(1).map((value, index) => `H${x(times[index + 1]).toFixed(1)}V${y(value).toFixed(1)}`);
  const path = `M${x(first).toFixed(1)} ${y(top).toFixed(1)}${steps.join("")}H${width - pad}`;
  return [
    svg("path.spark-area", { d: `${path}V${height}H${pad}Z` }),
    svg("path.spark-line", { d: path }),
    svg("circle.spark-end", { cx: x(last), cy: y(bottom), r: 2.2 }),
  ];
}
