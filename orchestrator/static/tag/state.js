// What of the Tag page's state is in its address, and back.

const STATUSES = ["keep", "near", "discard", "crash", "timeout", "running", "queued"];
const SORTS = { newest: "newest", oldest: "oldest", val_bpb: "best", "-val_bpb": "worst" };

/** { statuses, category, sort, q, fit, x, since } of a query; unknown values read as absent. */
export function readState(query) {
  const text = (name) => query.get(name) ?? "";
  const one = (name, known, fallback) => (known.includes(text(name)) ? text(name) : fallback);
  return {
    statuses: text("status").split(",").filter((word) => STATUSES.includes(word)),
    category: text("cat"),
    sort: SORTS[text("sort")] ?? "newest",
    q: text("q"),
    fit: one("fit", ["progress", "recent", "all"], "progress"),
    x: one("x", ["order", "time", "log"], null),
    since: Number.isNaN(Date.parse(text("since"))) ? "" : text("since"),
  };
}

/** The query that `readState` reads as `state`; defaults are left out. */
export function writeState(state) {
  const pairs = {
    status: state.statuses.join(","),
    cat: state.category,
    sort: state.sort !== "newest" && Object.keys(SORTS).find((name) => SORTS[name] === state.sort),
    q: state.q,
    fit: state.fit !== "progress" && state.fit,
    x: state.x,
    since: state.since,
  };
  const given = Object.entries(pairs).filter(([, value]) => value);
  return given.length ? `?${new URLSearchParams(given)}`.replaceAll("%2C", ",") : "";
}
