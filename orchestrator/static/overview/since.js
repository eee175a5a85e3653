// The moment since which the overview reports: the last visit, or a length of time ago.

import { iso, serverNow } from "../lib/format.js";

const STORED = "overview-visit";
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
// After a longer absence, coming back is another visit.
const VISIT_GAP_MS = HOUR_MS / 2;

const HOURS = { "1h": 1, "12h": 12, "24h": 24, "7d": 168 };
const LABELS = { visit: "Last visit", "1h": "1 h", "12h": "12 h", "24h": "24 h", "7d": "7 d" };

/** The choices as { name: label }; without "Last visit" at the first visit. */
export function sinceChoices(visited) {
  const { visit, ...lengths } = LABELS;
  return visited === null ? lengths : { visit, ...lengths };
}

/** When the visit before this one ended, in ms; null at the first. Stores that this one goes on. */
export function lastVisit() {
  const now = Date.now();
  const visit = JSON.parse(localStorage.getItem(STORED));
  const since = visit && now - visit.seen > VISIT_GAP_MS ? visit.seen : (visit?.since ?? null);
  localStorage.setItem(STORED, JSON.stringify({ since, seen: now }));
  return since;
}

/** What the address asks for: { name, moment() }, the moment as the API takes it. */
export function chosenSince(query, visited) {
  const asked = query.get("since");
  if (visited !== null && !(asked in HOURS)) return { name: "visit", moment: () => iso(visited) };
  const name = asked in HOURS ? asked : "24h";
  // In whole minutes, so that all pages with this choice send the same request.
  return { name, moment: () => iso(Math.floor(serverNow() / MINUTE_MS) * MINUTE_MS - HOURS[name] * HOUR_MS) };
}
