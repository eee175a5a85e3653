// What happened since I left? Change, alerts, tags, GPUs: one request, shown again at each event.

import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { livePage } from "../lib/live-page.js";
import { segments } from "../lib/parts.js";
import { navigate, setTitle } from "../lib/router.js";
import { empty } from "../lib/states.js";
import { every } from "../lib/throttle.js";
import { alertList } from "./alerts.js";
import { gpuGrid } from "./gpus.js";
import { headline } from "./headline.js";
import { chosenSince, lastVisit, sinceChoices } from "./since.js";
import { tagTable } from "./tags.js";

const EVENT_MS = 2000;
const BUSY_MS = 5000;
const IDLE_MS = 30_000;

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
  const choice = segments("since", "Report what happened since", sinceChoices(visited), (name) =>
    navigate(`/?since=${name}`, { replace: true }));
  choice.set(since.name);

  async function load() {
    due = Date.now() + BUSY_MS; // a failure is tried again soon
    const answer = await get("/api/report/overview", { since: since.moment() }, signal);
    lastVisit();
    const isBusy = answer.tags.some(({ counts }) => counts.running || counts.queued);
    due = Date.now() + (isBusy ? BUSY_MS : IDLE_MS);
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
