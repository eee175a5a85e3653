// What of the page's state is in its address, and back.

const STATUSES = ["keep", "near", "discard", "crash", "timeout", "running", "queued"];
const SORTS = { newest: "newest", oldest: "oldest", val_bpb: "best", "-val_bpb": "worst" };

/** { statuses, category, sort, q, fit, x, since } of a query; what it does not know reads as absent. */
export function read(query) {
  const one = (name, known, fallback) => (known.includes(query.get(name)) ? query.get(name) : fallback);
  const since = query.get("since") ?? "";
  return {
    statuses: (query.get("status") ?? "").split(",").filter((word) => STATUSES.includes(word)),
    category: query.get("cat") ?? "",
    sort: SORTS[query.get("sort")] ?? "newest",
    q: query.get("q") ?? "",
    fit: one("fit", ["progress", "recent", "all"], "progress"),
    x: one("x", ["order", "time", "log"], null),
    since: Number.isNaN(Date.parse(since)) ? "" : since,
  };
}

/** The query that `read` reads as `state`; defaults are left out. */
export function write(state) {
  const sort = Object.keys(SORTS).find((name) => SORTS[name] === state.sort);
  const pairs = {
    status: state.statuses.join(","),
    cat: state.category,
    sort: sort === "newest" ? "" : sort,
    q: state.q,
    fit: state.fit === "progress" ? "" : state.fit,
    x: state.x ?? "",
    since: state.since,
  };
  const given = Object.entries(pairs).filter(([, value]) => value);
  return given.length ? `?${new URLSearchParams(given)}`.replaceAll("%2C", ",") : "";
}
