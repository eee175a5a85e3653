// The side: what worked (categories), what nearly did (near misses), how the best came about
// (lineage), and how the search was steered (strategy).

import { h, replace } from "../lib/dom.js";
import { bpb, count, delta, percent, time } from "../lib/format.js";
import { keyed } from "../lib/keyed.js";
import { mark } from "../lib/status.js";
import { plain, visible } from "../lib/visible.js";
import { DISCARD, NEAR, failed } from "./series.js";

const NEAR_SHOWN = 6;
const SPINE_SHOWN = 12;
const CHOICES_SHOWN = 6;

function panel(title, body, { id, end } = {}) {
  const heading = h("h2", { id }, title);
  return h("section", { class: "panel", "aria-labelledby": id }, h("header", {}, heading, end && h("div", { class: "end" }, end)), body);
}

const more = (words, show) => h("button", { type: "button", class: "plain more", on: { click: show } }, words);

/** Categories by what they have gained; a click filters the runs. */
export function categories({ choose }) {
  const rows = h("tbody");
  const table = h(
    "table", { class: "categories" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Category"),
      ["Runs", "Keep", "Crash", "Gain"].map((name) => h("th", { scope: "col", class: "num" }, name)))),
    rows,
  );
  const element = panel("Categories, by total gain", h("div", { class: "scroll" }, table), { id: "categories-title" });

  function show(series, chosen) {
    const found = series.byCategory();
    const most = Math.max(...found.map((one) => one.gain), 1e-9);
    keyed(rows, found.map((one) => ({ ...one, share: one.gain / most, chosen: one.name === chosen })), (one) => one.name, (one) =>
      h("tr", { class: one.chosen ? "chosen" : null },
        h("th", { scope: "row" }, h("button", {
          type: "button", class: "link cut", "aria-pressed": String(one.chosen), data: { focus: "choose" },
          title: `Show the runs of ${plain(one.name)}`, on: { click: () => choose(one.chosen ? "" : one.name) },
        }, visible(one.name))),
        h("td", { class: "num" }, count(one.runs)),
        h("td", { class: "num" }, count(one.keep)),
        h("td", { class: "num" }, one.crash ? percent(one.crash / one.runs) : "—"),
        h("td", { class: "num gain" },
          h("i", { "aria-hidden": "true", style: { width: `${(one.gain > 0 ? one.share : 0) * 100}%` } }),
          h("span", {}, one.gain > 0 ? delta(-one.gain) : "—")),
      ));
  }
  return { element, show };
}

/** Discards that came closest to today's best. */
export function nearMisses() {
  const list = h("ol", { class: "rows" });
  const note = h("p", { class: "body muted" });
  const element = panel("Near misses, nearest to the best", [list, note], { id: "near-title" });
  return {
    element,
    show(rows, series) {
      note.hidden = rows.length > 0;
      note.textContent = `None yet: no discarded run came within ${series.threshold} of the best.`;
      keyed(list, rows.slice(0, NEAR_SHOWN).map((row) => ({ ...row, behind: row.val_bpb - series.best })), (row) => row.id, (row) =>
        h("li", {},
          h("a", { class: "mono", href: `/e/${row.id}` }, `#${count(row.n)}`),
          h("span", { class: "cut grow", title: plain(row.description) }, visible(row.description)),
          h("span", { class: "muted cat cut" }, visible(row.category)),
          h("span", { class: "mono num", title: `${bpb(row.val_bpb)}; behind today's best` }, delta(row.behind)),
        ));
    },
  };
}

/** The spine of keeps, newest first; what failed on the way folds into counts. */
export function lineage() {
  const list = h("ol", { class: "spine" });
  const rest = h("div", { class: "body tail" });
  const element = panel("Lineage", [list, rest], { id: "lineage-title" });
  let all = false;
  let latest = null;

  /** `parents` maps a keep's row to its parent's row, as far as known. */
  function show(series, parents) {
    latest = [series, parents];
    const keeps = series.keeps.map((keep, index) => ({
      n: keep.row + 1,
      id: series.id(keep.row),
      text: keep.text,
      bpb: keep.bpb,
      gain: keep.gain,
      first: index === 0,
      branch: branchOf(series, parents, index),
      ...since(series, keep.row, series.keeps[index + 1]?.row ?? series.length),
    })).reverse();
    const shown = all ? keeps : keeps.slice(0, SPINE_SHOWN);
    keyed(list, shown, (keep) => keep.id, node);
    const hidden = keeps.length - shown.length;
    replace(rest, keeps.length === 0 && h("p", { class: "muted" }, "Starts with the first result."),
      hidden > 0 && more(`Show ${count(hidden)} older`, () => {
        all = true;
        show(...latest);
      }));
  }
  return { element, show };
}

/** The number of a parent that is not the keep before, which is where a branch began. */
function branchOf(series, parents, index) {
  const parent = parents.get(series.keeps[index].row);
  if (parent === undefined || parent < 0 || index === 0) return null;
  return parent === series.keeps[index - 1].row ? null : parent + 1;
}

/** What was decided while this keep was the best. */
function since(series, from, to) {
  const found = { discarded: 0, near: 0, crashed: 0 };
  for (let row = from + 1; row < to; row++) {
    const code = series.status[row];
    if (code === DISCARD) found.discarded++;
    else if (code === NEAR) found.near++;
    else if (failed(code)) found.crashed++;
  }
  return found;
}

function node(keep) {
  const failures = [
    keep.discarded && `${count(keep.discarded)} discarded`,
    keep.near && `${count(keep.near)} near`,
    keep.crashed && `${count(keep.crashed)} crashed`,
  ].filter(Boolean);
  return h("li", {},
    failures.length > 0 && h("div", { class: "failures muted" }, failures.join(" · ")),
    h("div", { class: "node" },
      mark("keep"),
      h("a", { class: "mono", href: `/e/${keep.id}` }, `#${count(keep.n)}`),
      h("span", { class: "cut grow", title: plain(keep.text) }, visible(keep.text) ?? ""),
      keep.branch && h("span", { class: "muted", title: "Its parent is not the keep before it" }, `from #${count(keep.branch)}`),
      h("span", { class: "mono num", title: bpb(keep.bpb) }, keep.first ? bpb(keep.bpb) : delta(-keep.gain)),
    ));
}

/** Each change of mode, with the reason given then. */
export function strategy() {
  const list = h("ol", { class: "choices" });
  const rest = h("div", { class: "body tail" });
  const element = panel("Strategy, latest first", [list, rest], { id: "strategy-title" });
  let all = false;
  let latest = null;

  function show(series) {
    latest = series;
    const choices = series.choices.map((choice, index) => ({
      ...choice, runs: (series.choices[index + 1]?.after ?? series.length) - choice.after,
    })).reverse();
    const shown = all ? choices : choices.slice(0, CHOICES_SHOWN);
    keyed(list, shown, (choice) => `${choice.after} ${choice.at}`, (choice) =>
      h("li", {},
        h("div", { class: "line" },
          h("b", {}, choice.mode), choice.pinned && h("span", { class: "pin" }, "pinned"),
          h("span", { class: "muted" }, choice.runs === 0 ? "for the next run" : `for ${count(choice.runs)} ${choice.runs === 1 ? "run" : "runs"}, from #${count(choice.after + 1)}`),
          h("span", { class: "end muted" }, time(choice.at))),
        h("div", { class: "muted" }, visible(choice.reason)),
      ));
    const hidden = choices.length - shown.length;
    replace(rest, hidden > 0 && more(`Show ${count(hidden)} older`, () => {
      all = true;
      show(latest);
    }));
  }
  return { element, show };
}
