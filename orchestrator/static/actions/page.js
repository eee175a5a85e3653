// Steer a search: what can be done, with its effect before it is done, and the ledger of what was.

import { h, replace, setText } from "../lib/dom.js";
import { get } from "../lib/api.js";
import * as live from "../lib/live.js";
import { empty, failed, loading } from "../lib/states.js";
import { throttled } from "../lib/throttle.js";
import { sheet } from "../lib/sheet.js";
import { gpuPanel } from "./gpus.js";
import { ledgerPanel } from "./ledger.js";
import { notesPanel } from "./notes.js";
import { runsPanel } from "./runs.js";
import { tagPanel } from "./tag.js";

await sheet("/static/actions/style.css");

const EVENT_MS = 400;
const RUNS = 50;

export function mount(root, params, ctx) {
  ctx.setTitle("Actions");
  let tag = params.query.get("tag");
  let closed = false;
  const problem = h("p", { class: "problem", role: "alert" });
  const choice = h("select", { id: "actions-tag", on: { change: () => ctx.navigate(`/actions?tag=${encodeURIComponent(choice.value)}`) } });
  const changed = () => refresh();
  const panels = { tag: tagPanel(changed), runs: runsPanel(changed), notes: notesPanel(changed), gpus: gpuPanel(changed) };
  const ledger = ledgerPanel();
  const waiting = h("div");
  const body = h(
    "div",
    { class: "actions-grid", hidden: true },
    h("div", {}, panels.tag.element, panels.runs.element, panels.notes.element),
    h("div", {}, ledger.element, panels.gpus.element),
  );
  const head = h(
    "div",
    { class: "page-head" },
    h("h1", {}, "Actions"),
    h("label", { for: "actions-tag", class: "muted" }, "Tag"),
    choice,
  );
  replace(root, h("div", { class: "actions" }, head, problem, waiting, body));
  const done = loading(waiting, { lines: 8, label: "Loading what can be done" });

  async function load() {
    try {
      const { tags } = await get("/api/report/tags");
      if (closed) return;
      if (!tags.some(({ name }) => name === tag)) tag = tags[0]?.name ?? null;
      showTags(tags);
      await Promise.all([tag === null ? null : loadTag(tags.find(({ name }) => name === tag)), loadPool(), ledger.load(tag)]);
      if (closed) return;
      setText(problem, "");
      body.hidden = false;
      replace(waiting, tag === null && empty("No search to steer yet", "uv run autoresearch setup mar11"));
    } catch (error) {
      if (closed) return;
      if (body.hidden) replace(waiting, failed(error, () => refresh()));
      else setText(problem, `${error.message} What you see is older.`);
    } finally {
      done();
    }
  }

  function showTags(tags) {
    const names = tags.map(({ name }) => name);
    for (const name of ["tag", "runs", "notes"]) panels[name].element.hidden = tag === null;
    choice.disabled = !names.length;
    if (names.join() !== [...choice.options].map(({ value }) => value).join()) {
      replace(choice, names.map((name) => h("option", { value: name }, name)));
    }
    choice.value = tag ?? "";
  }

  async function loadTag(info) {
    const shown = info.name;
    const [strategy, running, queued, { notes }] = await Promise.all([
      get("/api/search/strategy", { tag: shown }),
      get("/api/experiment/history", { tag: shown, status: "running", limit: RUNS }),
      get("/api/experiment/history", { tag: shown, status: "queued", limit: RUNS }),
      get("/api/steer/notes", { tag: shown }),
    ]);
    if (closed || shown !== tag) return;
    panels.tag.update({ info, strategy, running: running.total, queued: queued.total });
    panels.runs.update({ tag: shown, best: info.best_experiment_id, running, queued });
    panels.notes.update({ tag: shown, notes });
  }

  async function loadPool() {
    const { workers } = await get("/api/pool/list");
    if (!closed) panels.gpus.update(workers);
  }

  const refresh = throttled(load, EVENT_MS);
  const stop = live.subscribe(() => refresh());
  refresh();
  return {
    update({ query }) {
      tag = query.get("tag") ?? tag;
      ledger.forget();
      refresh();
    },
    unmount() {
      closed = true;
      stop();
      done();
      refresh.cancel();
    },
  };
}
