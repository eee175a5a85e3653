// A unified diff with line numbers on both sides, and what changed inside a changed line marked.

import { h } from "../lib/dom.js";
import { visible } from "../lib/visible.js";

/** [{ kind: hunk|same|removed|added, text, before, after }] of a unified diff. */
export function parse(text) {
  const rows = [];
  let before = 0;
  let after = 0;
  for (const line of text.split("\n")) {
    const hunk = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/.exec(line);
    if (hunk) {
      before = Number(hunk[1]);
      after = Number(hunk[2]);
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

/** How many lines came and went. */
export function size(rows) {
  const of = (wanted) => rows.filter(({ kind }) => kind === wanted).length;
  return { added: of("added"), removed: of("removed") };
}

/** For rows that stand for each other (as many removed as added): which part of each differs. */
function pairs(rows) {
  const marks = new Map();
  for (let i = 0; i < rows.length; ) {
    if (rows[i].kind !== "removed") {
      i += 1;
      continue;
    }
    let removed = i;
    while (rows[removed]?.kind === "removed") removed += 1;
    let added = removed;
    while (rows[added]?.kind === "added") added += 1;
    if (removed - i === added - removed) {
      for (let k = 0; k < removed - i; k += 1) mark(marks, rows[i + k], rows[removed + k]);
    }
    i = Math.max(added, i + 1);
  }
  return marks;
}

function mark(marks, a, b) {
  let head = 0;
  while (head < Math.min(a.text.length, b.text.length) && a.text[head] === b.text[head]) head += 1;
  let tail = 0;
  const most = Math.min(a.text.length, b.text.length) - head;
  while (tail < most && a.text.at(-1 - tail) === b.text.at(-1 - tail)) tail += 1;
  // Lines that have little in common are better read whole.
  if (head + tail < Math.max(a.text.length, b.text.length) * 0.3) return;
  marks.set(a, [head, a.text.length - tail]);
  marks.set(b, [head, b.text.length - tail]);
}

const SIGN = { removed: "−", added: "+", same: " ", hunk: "" };
const WORD = { removed: "removed", added: "added" };

/** The diff as a table of lines; `line` is a line number of the new side to mark. */
export function diffTable(rows, { label, line = null }) {
  const marks = pairs(rows);
  return h(
    "div",
    { class: "code", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("tbody", {}, rows.map((row) => diffRow(row, marks.get(row), line)))),
  );
}

function diffRow(row, span, line) {
  if (row.kind === "hunk") {
    return h("tr", { class: "hunk" }, h("td", { colspan: 4 }, row.text));
  }
  return h(
    "tr",
    { class: row.kind + (line !== null && row.after === line ? " aimed" : "") },
    h("td", { class: "no", data: { no: row.before ?? "" } }),
    h("td", { class: "no", data: { no: row.after ?? "" } }),
    h("td", { class: "sign" }, SIGN[row.kind], WORD[row.kind] && h("span", { class: "visually-hidden" }, WORD[row.kind])),
    h("td", { class: "text" }, span ? changed(row.text, span) : visible(row.text)),
  );
}

function changed(text, [from, to]) {
  return [visible(text.slice(0, from)), h("mark", {}, visible(text.slice(from, to))), visible(text.slice(to))];
}

/** A source with line numbers. */
export function sourceTable(text, { line = null, label }) {
  const lines = text.replace(/\n$/, "").split("\n");
  return h(
    "div",
    { class: "code", tabindex: "0", role: "region", "aria-label": label },
    h(
      "table",
      {},
      h(
        "tbody",
        {},
        lines.map((content, index) =>
          h(
            "tr",
            { class: index + 1 === line ? "aimed" : null, data: { line: index + 1 } },
            h("td", { class: "no", data: { no: index + 1 } }),
            h("td", { class: "text" }, visible(content)),
          ),
        ),
      ),
    ),
  );
}
