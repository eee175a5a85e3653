// A run's number: its place in the order of verdicts of its tag. It never changes once given.

import { get } from "./api.js";

const known = new Map();

/** The tag in an id such as exp-0660f78349a45a-mar11. */
export const tagOf = (id) => id.slice(19);

/** The number of a run, "#842", or "" while it has none or none was asked for. */
export const numberOf = (id) => (known.has(id) ? `#${known.get(id).toLocaleString("en-US")}` : "");

/** Learn the numbers of up to fifty runs, each once. */
export async function learnNumbers(ids) {
  const byTag = Map.groupBy([...new Set(ids)].filter((id) => !known.has(id)), tagOf);
  for (const [tag, missing] of byTag) {
    const { rows } = await get("/api/report/runs", { tag, ids: missing.join(",") });
    for (const { id, n } of rows) if (n !== null) known.set(id, n);
  }
}
