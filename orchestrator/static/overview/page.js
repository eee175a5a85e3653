// What happened since I left? Change, alerts, tags, GPUs: one request, shown again at each event.

import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { iso, serverNow } from "../lib/format.js";
import { livePage } from "../lib/live-page.js";
import { segments } from "../lib/parts.js";
import { navigate, setTitle } from "../lib/router.js";
import { empty } from "../lib/states.js";
import { every } from "../lib/throttle.js";
import { alertList } from "./alerts.js";
import { gpuGrid } from "./gpus.js";
import { headline } from "./headline.js";
import { tagTable } from "./tags.js";

const EVENT_MS = 2000;
const BUSY_MS = 5000;
const IDLE_MS = 30_000;

const STORED_VISIT = "overview-visit";
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
// After a longer absence, coming back is another visit.
const VISIT_GAP_MS = HOUR_MS / 2;

const HOURS = { __proto__: null, "1h": 1, "12h": 12, "24h": 24, "7d": 168 };
const LENGTHS = { "1h": "1 h", "12h": "12 h", "24h": "24 h", "7d": "7 d" };

const FIRST_RUN = `uv run autoresearch setup mar11
uv run autoresearch submit train.py --tag mar11 --hypothesis "baseline" --wait`;

export function mount(root, { query }, signal) {
  setTitle("Overview");
  const visited = lastVisit();
  let since = chosenSince(query, visited);
  let due = 0;

  const strip = h("dl.strip.since-strip");
  const alerts = alertList();
  const tags = tagTable();
  const gpus = gpuGrid(() => refresh());
  const choices = { ...(visited !== null && { visit: "Last visit" }), ...LENGTHS };
  const choice = segments("since", "Report what happened since", choices, (name) =>
    navigate(`/?since=${name}`, { replace: true }));
  choice.set(since.name);

  async function load() {
    due = 0; // a failure is tried again at the next tick
    const answer = await get("/api/report/overview", { since: since.moment() }, signal);
    lastVisit();
    const isBusy = answer.tags.some(({ counts }) => counts.running || counts.queued);
    due = isBusy ? 0 : Date.now() + IDLE_MS;
    headline(strip, answer);
    alerts.update(answer.alerts);
    tags.update(answer);
    gpus.update(answer.gpus);
    const none = answer.tags.length === 0;
    tags.element.hidden = strip.hidden = none;
    return none && empty("No search yet", FIRST_RUN, "Or hand program.md to a coding agent: it tells the whole loop.");
  }

  const refresh = livePage(root, signal, {
    name: "overview",
    label: "Loading the overview",
    head: h("div.page-head",
      h("h1", "Overview"),
      h("div.since-choice", h("span.muted", { "aria-hidden": "true" }, "since"), choice.element),
    ),
    body: h("div", strip, alerts.element, tags.element, gpus.element),
    load,
    pause: EVENT_MS,
  });
  // Progress and temperatures make no events.
  every(BUSY_MS, () => Date.now() >= due && refresh(), signal);

  return ({ query: next }) => {
    since = chosenSince(next, visited);
    choice.set(since.name);
    refresh();
  };
}

// ---- the moment since which the overview reports: the last visit, or a length of time ago

/** When the visit before this one ended, in ms; null at the first. Stores that this one goes on. */
function lastVisit() {
  const now = Date.now();
  const visit = JSON.parse(localStorage.getItem(STORED_VISIT));
  const since = visit && now - visit.seen > VISIT_GAP_MS ? visit.seen : (visit?.since ?? null);
  localStorage.setItem(STORED_VISIT, JSON.stringify({ since, seen: now }));
  return since;
}

/** What the address asks for: { name, moment() }, the moment as the API takes it. */
function chosenSince(query, visited) {
  const asked = query.get("since");
  if (visited !== null && !(asked in HOURS)) return { name: "visit", moment: () => iso(visited) };
  const name = asked in HOURS ? asked : "24h";
  // In whole minutes, so that all pages with this choice send the same request.
  return { name, moment: () => iso(Math.floor(serverNow() / MINUTE_MS) * MINUTE_MS - HOURS[name] * HOUR_MS) };
}
