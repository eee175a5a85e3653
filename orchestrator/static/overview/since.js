// From when on the overview reports: the last visit, or a length of time.

import { iso } from "../lib/format.js";
import { serverNow } from "../lib/clock.js";

const STORED = "overview-visit";
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
// Away for longer than this, and coming back is another visit.
const VISIT_GAP_MS = HOUR_MS / 2;

export const CHOICES = [
  { name: "visit", label: "Last visit" },
  { name: "1h", label: "1 h", hours: 1 },
  { name: "12h", label: "12 h", hours: 12 },
  { name: "24h", label: "24 h", hours: 24 },
  { name: "7d", label: "7 d", hours: 168 },
];

/** When the visit before this one ended, in ms; null at the first. Says that this one goes on. */
export function lastVisit() {
  const now = Date.now();
  let visit = null;
  try {
    visit = JSON.parse(localStorage.getItem(STORED));
  } catch {
    // As at the first visit.
  }
  let since = Number.isFinite(visit?.since) ? visit.since : null;
  if (Number.isFinite(visit?.seen) && now - visit.seen > VISIT_GAP_MS) since = visit.seen;
  localStorage.setItem(STORED, JSON.stringify({ since, seen: now }));
  return since;
}

/** What the address asks for: { name, moment() }, the moment as the API takes it. */
export function chosenSince(query, visited) {
  const asked = CHOICES.find(({ name }) => name === query.get("since"));
  const choice = asked && (asked.hours || visited !== null) ? asked : null;
  if (choice?.hours || (!choice && visited === null)) {
    const { name, hours } = choice ?? CHOICES.find((one) => one.name === "24h");
    // In whole minutes, so that all pages with this choice ask for the same.
    return { name, moment: () => iso(Math.floor(serverNow() / MINUTE_MS) * MINUTE_MS - hours * HOUR_MS) };
  }
  return { name: "visit", moment: () => iso(visited) };
}
