// The evidence: diff, log, source, record, one tab each. The address says which tab a person chose.

import { h, replace } from "../lib/dom.js";
import { experimentPath, getText } from "../lib/api.js";
import { scrollable } from "../lib/parts.js";
import { navigate } from "../lib/router.js";
import { failed, loading, notSent, remark } from "../lib/states.js";
import { plain } from "../lib/visible.js";
import { loadDiff, sourceTable } from "./diff.js";
import { logTab } from "./log.js";

const NAMES = { __proto__: null, diff: "Diff", log: "Log", source: "Source", record: "Record" };
const AGAINST = {
  parent: "parent", best_then: "best then", best_now: "best now", previous: "earlier verdict", next: "later verdict",
};
const LOG_FIRST = new Set(["running", "crash", "timeout"]);

export function tabs(id, query, signal) {
  const log = logTab(id, signal);
  const panels = { diff: h("div"), log: log.element, source: h("div"), record: h("div") };
  const names = Object.keys(NAMES);
  const buttons = {};
  for (const name of names) {
    const [tab, panel] = [`tab-${name}`, `panel-${name}`];
    const onclick = () => choose(name);
    buttons[name] = h("button", { role: "tab", id: tab, "aria-controls": panel, onclick }, NAMES[name]);
    Object.assign(panels[name], { id: panel, role: "tabpanel" });
    panels[name].setAttribute("aria-labelledby", tab);
  }
  const list = h("div.tabs", { role: "tablist", "aria-label": "Evidence", onkeydown: press }, Object.values(buttons));
  let shown = null; // the name of the tab in view
  let run = null;
  let comparison = null;
  let line = lineOf(query);
  let hasSource = false;
  let hasDiff = false;

  function press(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    choose(names.at((names.indexOf(shown) + step) % names.length));
    buttons[shown].focus();
    event.preventDefault();
  }

  /** Show a tab because a person asked for it: it stays, and the address has it. */
  function choose(name) {
    const next = new URLSearchParams(location.search);
    next.set("tab", name);
    next.delete("line");
    navigate(`${location.pathname}?${next}`, { replace: true });
  }

  function open(name) {
    if (name === shown) return;
    shown = name;
    for (const key of names) {
      panels[key].hidden = key !== name;
      buttons[key].ariaSelected = String(key === name);
      buttons[key].tabIndex = key === name ? 0 : -1;
    }
    log.show(name === "log");
    fill();
  }

  function fill() {
    if (!run) return;
    if (shown === "source" && !hasSource) showSource();
    if (shown === "diff" && !hasDiff) showDiff(firstOther());
    if (shown === "record") showRecord();
  }

  async function showSource() {
    hasSource = true;
    if (!run.source_sha256) {
      replace(panels.source, notSent("This run"));
      return;
    }
    const loaded = loading(panels.source, "Loading the source");
    try {
      const text = await getText(experimentPath(id, "train.py"), {}, signal);
      replace(panels.source, sourceTable(text, "Source", line));
      showLine(panels.source);
    } catch (error) {
      hasSource = false;
      replace(panels.source, failed(error, showSource));
    } finally {
      loaded();
    }
  }

  const isComparable = (other) => other && other.id !== id && other.source_sha256;

  function firstOther() {
    const { parent, best_then: then, best_now: now } = comparison;
    return [parent, then ?? now].find(isComparable)?.id ?? "";
  }

  async function showDiff(against) {
    hasDiff = true;
    const fallback = run.diff_summary && remark(`Its author says: ${plain(run.diff_summary)}`);
    if (!run.source_sha256) {
      replace(panels.diff, notSent("This run"), fallback);
      return;
    }
    const lines = h("div");
    const note = h("span.muted");
    replace(panels.diff, h("div.tab-bar", h("label", "Against ", selectOther(against)), note), lines);
    if (against) {
      await loadDiff(lines, note, { id, against, label: "Diff", line, fallback });
      showLine(lines);
    } else {
      replace(lines, remark("There is no earlier source to compare with: the Source tab has all of it."));
    }
  }

  function selectOther(chosen) {
    const named = Object.entries(AGAINST).filter(([name]) => isComparable(comparison[name]));
    const labels = Map.groupBy(named, ([name]) => comparison[name].id);
    return h("select", { onchange: (event) => showDiff(event.target.value) },
      [...labels].map(([other, entries]) =>
        h("option", { value: other, selected: other === chosen }, entries.map(([, label]) => label).join(" = "))),
    );
  }

  function showRecord() {
    const text = JSON.stringify({ ...run, curve: `${run.curve.length} points` }, null, 2);
    const link = h("a", { href: experimentPath(id), target: "_blank", rel: "noopener" }, "As the API has it");
    replace(panels.record,
      h("div.tab-bar", link),
      scrollable("pre.record", "Record", text.split("\n").map(plain).join("\n")),
    );
  }

  function update(nextRun, nextComparison) {
    const moved = run?.status !== nextRun.status;
    [run, comparison] = [nextRun, nextComparison];
    const asked = new URLSearchParams(location.search).get("tab");
    if (asked in NAMES) open(asked);
    // A tab that nobody chose follows the run to its verdict, and then stays.
    else if (shown === null || (run.status === "running" && moved)) open(LOG_FIRST.has(run.status) ? "log" : "diff");
    log.update(run);
    if (moved || shown !== "record") fill();
  }

  /** The address's query changed. */
  function navigated(next) {
    line = lineOf(next);
    const asked = next.get("tab");
    if (asked in NAMES) open(asked);
  }

  const key = (name) => [`${NAMES[name]} tab`, () => choose(name)];
  return {
    element: h("section.panel.tabbed", h("header", list), Object.values(panels)),
    keys: { d: key("diff"), l: key("log"), s: key("source"), r: key("record") },
    update,
    navigated,
  };
}

/** The line number that the address asks for, or null. */
function lineOf(query) {
  const line = Number(query.get("line"));
  return Number.isInteger(line) && line > 0 ? line : null;
}

const showLine = (panel) => panel.querySelector(".aimed")?.scrollIntoView({ block: "center" });
