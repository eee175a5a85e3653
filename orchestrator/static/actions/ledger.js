// The ledger: who did what, to what, why, and what came of it; newest first.

import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { time } from "../lib/format.js";
import { toast } from "../lib/states.js";
import { plain, prose } from "../lib/visible.js";
import { listPanel } from "./panels.js";

const PAGE = 50;

/** A handler that shows why its action failed. */
const handled = (action) => () => action().catch((error) => toast(error.message, "error"));

export function ledgerPanel() {
  const all = h("input", { type: "checkbox", onchange: handled(restart) });
  const more = h("button", { hidden: true, onclick: handled(loadOlder) }, "Older");
  const { element, show } = listPanel("Ledger", {
    kind: ".ledger",
    nothing: "Nobody has steered it yet.",
    end: h("label.muted", all, " all tags and GPUs"),
    columns: ["When", "Who", "What", "Why", "Outcome"],
    below: h("p.more", more),
    key: ({ id }) => id,
    render: row,
  });
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
    showAll();
  }

  async function loadOlder() {
    const answer = await read(cursor);
    entries = [...entries, ...answer.entries];
    cursor = answer.next_cursor;
    showAll();
  }

  function showAll() {
    show(entries);
    more.hidden = cursor === null;
  }

  /** Forget what was loaded, for another tag. */
  function clear() {
    entries = [];
    cursor = null;
  }

  function restart() {
    clear();
    return load(tag);
  }

  return { element, load, clear };
}

function row({ at, actor, by, action, tag, target, reason, outcome }) {
  return h("tr",
    h("td", time(at, { focusable: true })),
    h("td", actor && `${plain(actor)} says `, plain(by)),
    h("td", h("b", action), " ", subject(tag, target)),
    h("td.why", prose(reason)),
    h("td.muted", plain(outcome)),
  );
}

function subject(tag, target) {
  if (target?.startsWith("exp-")) return h("a.mono", { href: `/e/${target}` }, target);
  if (target) return h("span.mono", target);
  return tag && h("a", { href: `/t/${encodeURIComponent(tag)}` }, tag);
}
