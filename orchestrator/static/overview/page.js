// What happened since I left? Change, alerts, tags, GPUs: one request, drawn again at each event.

import { h, replace } from "../lib/dom.js";
import { get } from "../lib/api.js";
import * as live from "../lib/live.js";
import { empty, failed, loading } from "../lib/states.js";
import { throttled } from "../lib/throttle.js";
import { sheet } from "../lib/sheet.js";
import { alertList } from "./alerts.js";
import { gpuGrid } from "./gpus.js";
import { headline } from "./headline.js";
import { tagTable } from "./tags.js";
import { CHOICES, chosenSince, lastVisit } from "./since.js";

await sheet("/static/overview/style.css");

const EVENT_MS = 2000;
const BUSY_MS = 5000;
const IDLE_MS = 30_000;

const FIRST_RUN = `uv run autoresearch setup mar11
uv run autoresearch submit train.py --tag mar11 --hypothesis "baseline" --wait`;

export function mount(root, params, ctx) {
  ctx.setTitle("Overview");
  const visited = lastVisit();
  let since = chosenSince(params.query, visited);
  let busy = false;
  let closed = false;

  const strip = h("dl", { class: "strip since-strip" });
  const alerts = alertList();
  const tags = tagTable();
  const gpus = gpuGrid({ changed: () => refresh() });
  const problem = h("p", { class: "problem", role: "alert" });
  const body = h("div", { hidden: true }, strip, alerts.element, tags.element, gpus.element);
  const waiting = h("div");
  replace(
    root,
    h(
      "div",
      { class: "overview" },
      h("div", { class: "page-head" }, h("h1", {}, "Overview"), sinceChoice(since.name, visited, ctx)),
      problem,
      waiting,
      body,
    ),
  );

  const done = loading(waiting, { lines: 8, label: "Loading the overview" });

  async function load() {
    try {
      show(await get("/api/report/overview", { since: since.moment() }));
      problem.textContent = "";
    } catch (error) {
      if (closed) return;
      busy = true; // so that it is tried again soon
      // What was shown stays: it is old, and says so.
      if (body.hidden) replace(waiting, failed(error, () => refresh()));
      else problem.textContent = `${error.message} What you see is older.`;
    } finally {
      done();
    }
  }

  function show(answer) {
    if (closed) return;
    lastVisit();
    busy = answer.tags.some(({ counts }) => counts.running || counts.queued);
    replace(waiting);
    body.hidden = false;
    headline(strip, answer);
    alerts.update(answer.alerts);
    tags.update(answer);
    gpus.update(answer);
    tags.element.hidden = answer.tags.length === 0;
    strip.hidden = answer.tags.length === 0;
    if (answer.tags.length === 0) {
      replace(waiting, empty("No search yet", FIRST_RUN, "Or hand program.md to a coding agent: it tells the whole loop."));
    }
  }

  const refresh = throttled(load, EVENT_MS);
  const stop = live.subscribe(() => refresh());
  // Progress and temperatures make no events.
  let beat = 0;
  const timer = setInterval(() => {
    beat += 1;
    if (busy || beat * BUSY_MS >= IDLE_MS) {
      beat = 0;
      refresh();
    }
  }, BUSY_MS);
  refresh();

  return {
    update({ query }) {
      since = chosenSince(query, visited);
      refresh();
    },
    unmount() {
      closed = true;
      stop();
      done();
      clearInterval(timer);
      refresh.cancel();
    },
  };
}

function sinceChoice(chosen, visited, ctx) {
  const choices = CHOICES.filter(({ name }) => name !== "visit" || visited !== null);
  return h(
    "fieldset",
    { class: "since-choice" },
    h("legend", { class: "visually-hidden" }, "Report what happened since"),
    h("span", { class: "muted", "aria-hidden": "true" }, "since"),
    h(
      "div",
      { class: "segments" },
      choices.map(({ name, label }) =>
        h(
          "label",
          {},
          h("input", {
            type: "radio", name: "since", value: name, checked: name === chosen,
            on: { change: () => ctx.navigate(`/?since=${name}`, { replace: true }) },
          }),
          h("span", {}, label),
        ),
      ),
    ),
  );
}
