// The ledger: who did what, to what, why, and what came of it; newest first.

import { h, keyed } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { time } from "../lib/format.js";
import { headings, panel, scrollable } from "../lib/parts.js";
import { remark } from "../lib/states.js";
import { plain } from "../lib/visible.js";

const PAGE = 50;

export function ledgerPanel() {
  const all = h("input", { type: "checkbox", onchange: restart });
  const rows = h("tbody");
  const table = h("table.ledger", headings(["When", "Who", "What", "Why", "Outcome"]), rows);
  const none = remark("Nobody has steered it yet.");
  const more = h("button", { hidden: true, onclick: loadOlder }, "Older");
  const element = panel("Ledger", { end: h("label.muted", all, " all tags and GPUs") },
    scrollable("div.scroll", "Ledger", table), none, h("p.more", more));
  let tag = null;
  let entries = [];
  let cursor = null;

  const read = (from) => get("/api/steer/ledger", { tag: all.checked ? null : tag, limit: PAGE, cursor: from });

  async function load(name) {
    tag = name;
    const answer = await read(null);
    // Older entries that were loaded before stay below what is new, where the two overlap.
    const fresh = new Set(answer.entries.map(({ id }) => id));
    const older = entries.filter(({ id }) => !fresh.has(id));
    const overlap = older.length < entries.length;
    entries = [...answer.entries, ...(overlap ? older : [])];
    if (!overlap || cursor === null) cursor = answer.next_cursor;
    show();
  }

  async function loadOlder() {
    const answer = await read(cursor);
    entries = [...entries, ...answer.entries];
    cursor = answer.next_cursor;
    show();
  }

  function show() {
    none.hidden = entries.length > 0;
    table.hidden = entries.length === 0;
    more.hidden = cursor === null;
    keyed(rows, entries, ({ id }) => id, row);
  }

  /** Forget what was loaded, for another tag. */
  function clear() {
    entries = [];
    cursor = null;
  }

  function restart() {
    clear();
    load(tag);
  }

  return { element, load, clear };
}

function row({ at, by, action, tag, target, reason, outcome }) {
  return h("tr",
    h("td", time(at, { focusable: true })),
    h("td", plain(by)),
    h("td", h("b", action), " ", subject(tag, target)),
    h("td.why", plain(reason)),
    h("td.muted", plain(outcome)),
  );
}

function subject(tag, target) {
  if (target?.startsWith("exp-")) return h("a.mono", { href: `/e/${target}` }, target);
  if (target) return h("span.mono", target);
  return tag && h("a", { href: `/t/${encodeURIComponent(tag)}` }, tag);
}
