// Who did what, to what, why, and what came of it: newest first.

import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { keyed } from "../lib/keyed.js";
import { time } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { panel } from "./parts.js";

const PAGE = 50;

export function ledgerPanel() {
  const all = h("input", { type: "checkbox", on: { change: () => { forget(); load(tag); } } });
  const { element, body } = panel("Ledger", h("label", { class: "muted" }, all, " all tags and GPUs"));
  const rows = h("tbody");
  const none = h("p", { class: "state muted" }, "Nobody has steered it yet.");
  const more = h("button", { type: "button", hidden: true, on: { click: loadMore } }, "Older");
  body.append(
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Ledger" },
      h("table", { class: "ledger" }, h("thead", {}, h("tr", {}, ["When", "Who", "What", "Why", "Outcome"].map((label) => h("th", { scope: "col" }, label)))), rows),
    ),
    none,
    h("p", { class: "more" }, more),
  );
  let tag = null;
  let entries = [];
  let cursor = null;

  async function load(next) {
    tag = next;
    const answer = await get("/api/steer/ledger", { tag: all.checked ? null : tag, limit: PAGE });
    // What was paged in stays below what is new.
    const fresh = new Set(answer.entries.map(({ id }) => id));
    const older = entries.filter(({ id }) => !fresh.has(id));
    const joined = older.length < entries.length;
    entries = joined ? [...answer.entries, ...older] : answer.entries;
    if (!joined || cursor === null) cursor = answer.next_cursor;
    show();
  }

  async function loadMore() {
    const answer = await get("/api/steer/ledger", { tag: all.checked ? null : tag, limit: PAGE, cursor });
    entries = [...entries, ...answer.entries];
    cursor = answer.next_cursor;
    show();
  }

  function show() {
    none.hidden = entries.length > 0;
    rows.parentElement.hidden = entries.length === 0;
    more.hidden = cursor === null;
    keyed(rows, entries, ({ id }) => id, row);
  }

  function forget() {
    entries = [];
    cursor = null;
  }
  return { element, load, forget };
}

function row({ at, by, action, tag, target, reason, outcome }) {
  return h(
    "tr",
    {},
    h("td", {}, time(at, { focusable: true })),
    h("td", {}, plain(by)),
    h("td", {}, h("b", {}, action), " ", subject(tag, target)),
    h("td", { class: "why" }, plain(reason)),
    h("td", { class: "muted" }, plain(outcome)),
  );
}

function subject(tag, target) {
  if (target?.startsWith("exp-")) return h("a", { href: `/e/${target}`, class: "mono" }, target);
  if (target) return h("span", { class: "mono" }, target);
  return tag ? h("a", { href: `/t/${encodeURIComponent(tag)}` }, tag) : "";
}
