// Sources and unified diffs as tables of numbered lines. What changed inside a changed line is marked.

import { h, replace, setText } from "../lib/dom.js";
import { experimentPath, getText } from "../lib/api.js";
import { scrollable } from "../lib/parts.js";
import { failed, loading, remark } from "../lib/states.js";
import { visible } from "../lib/visible.js";

// Lines that have less in common are easier to read without marks.
const LEAST_COMMON = 0.3;
const SIGNS = { removed: "−", added: "+", same: " " };

/**
 * Load the diff of run `id` against run `against` into `lines`, and its size into `note`; `line` is a
 * line number of the new side to mark. Where it fails, `fallback` is shown with the error.
 */
export async function loadDiff(lines, note, { id, against, label, line = null, fallback }) {
  const loaded = loading(lines, "Loading the diff");
  try {
    const rows = parse(await getText(experimentPath(id, "diff"), { against }));
    const size = (kind) => rows.filter((row) => row.kind === kind).length;
    setText(note, rows.length ? `+${size("added")} −${size("removed")} lines` : "");
    replace(lines, rows.length ? diffTable(rows, label, line) : remark("The two sources are equal."));
  } catch (error) {
    const retry = () => loadDiff(lines, note, { id, against, label, line, fallback });
    replace(lines, failed(error, retry), fallback);
  } finally {
    loaded();
  }
}

/** [{ kind: hunk|same|removed|added, text, before, after }] of a unified diff. */
function parse(text) {
  const rows = [];
  let before = 0;
  let after = 0;
  for (const line of text.split("\n")) {
    const hunk = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/.exec(line);
    if (hunk) {
      [before, after] = [Number(hunk[1]), Number(hunk[2])];
      rows.push({ kind: "hunk", text: line });
    } else if (!rows.length || line === "") {
      continue; // the names of the two files, and the end
    } else if (line[0] === "-") {
      rows.push({ kind: "removed", text: line.slice(1), before: before++ });
    } else if (line[0] === "+") {
      rows.push({ kind: "added", text: line.slice(1), after: after++ });
    } else {
      rows.push({ kind: "same", text: line.slice(1), before: before++, after: after++ });
    }
  }
  return rows;
}

/** A map from rows to their changed part [from, to], where as many lines were removed as added. */
function changedParts(rows) {
  const parts = new Map();
  const count = (from, kind) => {
    let n = 0;
    while (rows[from + n]?.kind === kind) n += 1;
    return n;
  };
  for (let i = 0; i < rows.length; ) {
    const removed = count(i, "removed");
    const added = count(i + removed, "added");
    if (removed === added) {
      for (let k = i; k < i + removed; k += 1) markChange(parts, rows[k], rows[k + removed]);
    }
    i += Math.max(1, removed + added);
  }
  return parts;
}

function markChange(parts, a, b) {
  const shorter = Math.min(a.text.length, b.text.length);
  let head = 0;
  while (head < shorter && a.text[head] === b.text[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && a.text.at(-1 - tail) === b.text.at(-1 - tail)) tail += 1;
  if (head + tail < Math.max(a.text.length, b.text.length) * LEAST_COMMON) return;
  for (const row of [a, b]) parts.set(row, [head, row.text.length - tail]);
}

const codeTable = (label, rows) => scrollable("div.code", label, h("table", h("tbody", rows)));
const lineNumber = (no) => h("td.no", { data: { no: no ?? "" } });

function diffTable(rows, label, line) {
  const parts = changedParts(rows);
  return codeTable(label, rows.map((row) => diffRow(row, parts.get(row), line)));
}

function diffRow({ kind, text, before, after }, part, line) {
  if (kind === "hunk") return h("tr.hunk", h("td", { colspan: 4 }, text));
  return h("tr", { class: kind + (line !== null && after === line ? " aimed" : "") },
    lineNumber(before),
    lineNumber(after),
    h("td.sign", SIGNS[kind], kind !== "same" && h("span.visually-hidden", kind)),
    h("td.text", part ? changed(text, part) : visible(text)),
  );
}

const changed = (text, [from, to]) =>
  [visible(text.slice(0, from)), h("mark", visible(text.slice(from, to))), visible(text.slice(to))];

/** A source with line numbers; `line` is one to mark. */
export function sourceTable(text, label, line) {
  const lines = text.replace(/\n$/, "").split("\n");
  return codeTable(label, lines.map((content, index) => {
    const no = index + 1;
    return h("tr", { class: no === line ? "aimed" : null }, lineNumber(no), h("td.text", visible(content)));
  }));
}
