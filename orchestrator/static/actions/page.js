// Steer a search: each action with its effect before it is taken, and the ledger of those taken.

import { h, replace } from "../lib/dom.js";
import { get, url } from "../lib/api.js";
import { livePage } from "../lib/live-page.js";
import { navigate, setTitle } from "../lib/router.js";
import { empty } from "../lib/states.js";
import { plain } from "../lib/visible.js";
import { ledgerPanel } from "./ledger.js";
import { gpuPanel, notesPanel, runsPanel, tagPanel } from "./panels.js";

const EVENT_MS = 400;
const RUNS = 50;

export function mount(root, { query }, signal) {
  setTitle("Actions");
  let tag = query.get("tag") || null; // null: the first there is
  const select = h("select", { id: "actions-tag", onchange: () => navigate(url("/actions", { tag: select.value })) });
  const changed = () => refresh();
  const [search, runs, notes, gpus] = [tagPanel, runsPanel, notesPanel, gpuPanel].map((build) => build(changed));
  const ledger = ledgerPanel();

  async function load() {
    const [{ tags }, { workers }] = await Promise.all([
      get("/api/report/tags", {}, signal), get("/api/pool/list", {}, signal),
    ]);
    gpus.update(workers);
    tag ??= tags[0]?.name ?? null;
    const info = tags.find(({ name }) => name === tag);
    showTags(tags.map(({ name }) => name), info?.name);
    await Promise.all([info && loadTag(info), ledger.load(info?.name ?? null)]);
    if (info) return null;
    if (!tags.length) return empty("No search to steer yet", "uv run autoresearch setup mar11");
    return empty(`There is no tag ${plain(tag)}`, null, "Choose one above. The ledger here is that of all tags.");
  }

  function showTags(names, shown = "") {
    for (const { element } of [search, runs, notes]) element.hidden = !shown;
    select.disabled = !names.length;
    if (names.join() !== [...select.options].map(({ value }) => value).join()) {
      replace(select, names.map((name) => h("option", { value: name }, name)));
    }
    select.value = shown;
  }

  async function loadTag(info) {
    const { name } = info;
    const history = (status) => get("/api/experiment/history", { tag: name, status, limit: RUNS }, signal);
    const [strategy, running, queued, left] = await Promise.all([
      get("/api/search/strategy", { tag: name }, signal),
      history("running"),
      history("queued"),
      get("/api/steer/notes", { tag: name }, signal),
    ]);
    if (name !== tag) return; // another tag was chosen meanwhile
    search.update(info, strategy, { running: running.total, queued: queued.total });
    runs.update(info.best_experiment_id, running, queued);
    notes.update(name, left.notes);
  }

  const refresh = livePage(root, signal, {
    name: "actions",
    label: "Loading what can be done",
    head: h("div.page-head", h("h1", "Actions"), h("label.muted", { for: "actions-tag" }, "Tag"), select),
    body: h("div.actions-grid",
      h("div", search.element, runs.element, notes.element),
      h("div", ledger.element, gpus.element),
    ),
    load,
    pause: EVENT_MS,
  });

  return ({ query: next }) => {
    tag = next.get("tag") || tag;
    ledger.clear();
    refresh();
  };
}
