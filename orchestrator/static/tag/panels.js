// The side: what worked (categories), what nearly did (near misses), how the best came about
// (lineage), and how the strategy changed.

import { h, keyed } from "../lib/dom.js";
import { NONE, bpb, count, delta, percent, plural, time } from "../lib/format.js";
import { foldedList, headings, mark, panel } from "../lib/parts.js";
import { plain, prose, visible } from "../lib/visible.js";
import { DISCARD, NEAR, failed } from "./series.js";

const NEAR_SHOWN = 6;
const LINEAGE_SHOWN = 12;
const CHOICES_SHOWN = 6;

const runLink = (id, n) => h("a.mono", { href: `/e/${id}` }, `#${count(n)}`);

/** Categories by what they have gained; a click filters the runs. */
export function categories(choose) {
  const rows = h("tbody");
  const columns = ["Category", ...["Runs", "Keep", "Crash", "Gain"].map((name) => ({ name, kind: "num" }))];
  const table = h("div.scroll", h("table.categories", headings(columns), rows));

  function row({ name, runs, keep, crash, gain, share, chosen }) {
    const attributes = {
      "aria-pressed": String(chosen), data: { focus: "choose" }, title: `Show the runs of ${plain(name)}`,
      onclick: () => choose(chosen ? "" : name),
    };
    return h("tr", { class: chosen ? "chosen" : null },
      h("th", { scope: "row" }, h("button.link.cut", attributes, visible(name))),
      h("td.num", count(runs)),
      h("td.num", count(keep)),
      h("td.num", crash ? percent(crash / runs) : NONE),
      h("td.num.gain",
        h("i", { "aria-hidden": "true", style: { width: `${share * 100}%` } }),
        h("span", gain > 0 ? delta(-gain) : NONE),
      ),
    );
  }

  function show(series, chosen) {
    const found = series.byCategory();
    const most = Math.max(...found.map(({ gain }) => gain), 1e-9);
    const items = found.map((one) => ({ ...one, share: Math.max(0, one.gain) / most, chosen: one.name === chosen }));
    keyed(rows, items, ({ name }) => name, row);
  }

  return { element: panel("Categories, by total gain", { id: "categories-title" }, table), show };
}

/** Discards that came closest to the best now; under `race`, to the champion of their day. */
export function nearMisses() {
  const list = h("ol.rows");
  const note = h("p.body.muted");
  const row = (run) => h("li",
    runLink(run.id, run.n),
    h("span.cut.grow", { title: plain(run.description) }, prose(run.description)),
    h("span.muted.cat.cut", visible(run.category)),
    h("span.mono.num", { title: `${bpb(run.val_bpb)}; behind ${run.of}` }, delta(run.behind)),
  );
  return {
    element: panel("Near misses, nearest to the best", { id: "near-title" }, list, note),
    show(runs, series) {
      note.hidden = runs.length > 0;
      note.textContent = `None yet: no discarded run came within ${series.threshold} of the best.`;
      const items = runs.slice(0, NEAR_SHOWN).map((run) => series.race
        ? { ...run, behind: run.delta === null ? run.val_bpb - run.best_before : -run.delta, of: "the best then" }
        : { ...run, behind: run.val_bpb - series.best, of: "today's best" });
      keyed(list, items, ({ id }) => id, row);
    },
  };
}

/** The keeps, newest first; what failed between them folds into counts. */
export function lineage() {
  const list = h("ol.spine");
  const none = h("p.body.muted", "Starts with the first result.");
  const rest = h("div.body.tail");
  const showFolded = foldedList(list, rest, LINEAGE_SHOWN, ({ id }) => id, keepRow);
  return {
    element: panel("Lineage", { id: "lineage-title" }, list, none, rest),
    /** `parents` maps a keep's row to its parent's row, as far as known. */
    show(series, parents) {
      none.hidden = series.keeps.length > 0;
      showFolded(series.keeps.map((keep, index) => ({
        ...keep,
        id: series.id(keep.row),
        isFirst: index === 0,
        branch: branchOf(series, parents, index),
        failures: failuresBetween(series, keep.row, series.keeps[index + 1]?.row ?? series.length),
      })).reverse());
    },
  };
}

/** The number of a keep's parent where that is not the keep before it; null otherwise. */
function branchOf(series, parents, index) {
  const parent = parents.get(series.keeps[index].row);
  if (parent === undefined || parent < 0 || index === 0) return null;
  return parent === series.keeps[index - 1].row ? null : parent + 1;
}

/** What was decided while a keep was the best, in words. */
function failuresBetween(series, from, to) {
  const codes = series.status.slice(from + 1, to);
  const counted = (test, word) => {
    const n = codes.filter(test).length;
    return n > 0 && `${count(n)} ${word}`;
  };
  return [
    counted((code) => code === DISCARD, "discarded"),
    counted((code) => code === NEAR, "near"),
    counted(failed, "crashed"),
  ].filter(Boolean).join(" · ");
}

function keepRow({ id, row, text, bpb: value, gain, isFirst, branch, failures, provisional }) {
  const parent = { title: "Its parent is not the keep before it" };
  return h("li",
    failures && h("div.failures.muted", failures),
    h("div.node",
      mark(provisional ? "provisional" : "keep"),
      runLink(id, row + 1),
      h("span.cut.grow", { title: plain(text) }, prose(text)),
      branch && h("span.muted", parent, `from #${count(branch)}`),
      h("span.mono.num", { title: bpb(value) }, isFirst ? bpb(value) : delta(-gain)),
    ),
  );
}

/** Each change of strategy, with the reason given then. */
export function strategy() {
  const list = h("ol.choices");
  const rest = h("div.body.tail");
  const showFolded = foldedList(list, rest, CHOICES_SHOWN, ({ after, at }) => `${after} ${at}`, choiceRow);
  return {
    element: panel("Strategy, latest first", { id: "strategy-title" }, list, rest),
    show({ choices, length }) {
      showFolded(choices.map((choice, index) => (
        { ...choice, runs: (choices[index + 1]?.after ?? length) - choice.after }
      )).reverse());
    },
  };
}

function choiceRow({ mode, pinned, runs, after, at, reason }) {
  const extent = runs === 0 ? "for the next run" : `for ${plural(runs, "run")}, from #${count(after + 1)}`;
  return h("li",
    h("div.line",
      h("b", mode),
      pinned && h("span.pin", "pinned"),
      h("span.muted", extent),
      h("span.end.muted", time(at)),
    ),
    h("div.muted", prose(reason)),
  );
}
