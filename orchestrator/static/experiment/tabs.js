// The evidence below: diff, log, source, record. Which one is in view stands in the address.

import { h, replace, setText } from "../lib/dom.js";
import { getText } from "../lib/api.js";
import { failed, loading, notSent } from "../lib/states.js";
import { plain } from "../lib/visible.js";
import { diffTable, parse, size, sourceTable } from "./diff.js";
import { logTab } from "./logtab.js";

const NAMES = { diff: "Diff", log: "Log", source: "Source", record: "Record" };
const LOG_FIRST = new Set(["running", "crash", "timeout"]);

export function tabs(id, query, ctx) {
  const log = logTab(id);
  const panels = {
    diff: h("div", { class: "diff-tab" }),
    log: log.element,
    source: h("div", { class: "source-tab" }),
    record: h("div", { class: "record-tab" }),
  };
  const buttons = {};
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Evidence" });
  for (const [name, label] of Object.entries(NAMES)) {
    buttons[name] = h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, on: { click: () => choose(name) } }, label);
    list.append(buttons[name]);
    Object.assign(panels[name], { id: `panel-${name}` });
    panels[name].setAttribute("role", "tabpanel");
    panels[name].setAttribute("aria-labelledby", `tab-${name}`);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const names = Object.keys(NAMES);
    choose(names[(names.indexOf(state.name) + step + names.length) % names.length]);
    buttons[state.name].focus();
    event.preventDefault();
  });
  const element = h("section", { class: "panel tabbed" }, h("header", {}, list), Object.values(panels));
  const state = { name: null, run: null, around: null, source: null, line: lineOf(query), against: null };

  /** Show a tab because a person asked for it: it stays, and stands in the address. */
  function choose(name) {
    const next = new URLSearchParams(location.search);
    next.set("tab", name);
    next.delete("line");
    ctx.navigate(`${location.pathname}?${next}`, { replace: true });
  }

  function open(name) {
    if (name === state.name) return;
    state.name = name;
    for (const key of Object.keys(NAMES)) {
      panels[key].hidden = key !== name;
      buttons[key].setAttribute("aria-selected", String(key === name));
      buttons[key].tabIndex = key === name ? 0 : -1;
    }
    log.show(name === "log");
    fill();
  }

  function fill() {
    if (!state.run) return;
    if (state.name === "source" && state.source === null) showSource();
    if (state.name === "diff" && state.against === null) showDiff(firstOther());
    if (state.name === "record") showRecord();
  }

  const comparable = (other) => other && other.id !== id && other.source_sha256;

  function firstOther() {
    const { parent, best_then: then, best_now: now } = state.around;
    return [parent, then ?? now].find(comparable)?.id ?? "";
  }

  async function showSource() {
    state.source = "";
    if (!state.run.source_sha256) {
      replace(panels.source, notSent("This run"));
      return;
    }
    const done = loading(panels.source, { label: "Loading the source" });
    try {
      state.source = await getText(`/api/experiment/${encodeURIComponent(id)}/train.py`);
      replace(panels.source, sourceTable(state.source, { line: state.line, label: "Source" }));
      aim(panels.source);
    } catch (error) {
      state.source = null;
      replace(panels.source, failed(error, showSource));
    } finally {
      done();
    }
  }

  async function showDiff(other) {
    state.against = other;
    if (!state.run.source_sha256) {
      replace(panels.diff, notSent("This run"), authorSays());
      return;
    }
    const lines = h("div");
    const note = h("span", { class: "muted" });
    replace(panels.diff, h("div", { class: "tab-bar" }, h("label", {}, "Against ", otherChoice(other)), note), lines);
    if (!other) {
      replace(lines, h("p", { class: "state muted" }, "There is no earlier source to compare with: the Source tab has all of it."));
      return;
    }
    const done = loading(lines, { label: "Loading the diff" });
    try {
      const rows = parse(await getText(`/api/experiment/${encodeURIComponent(id)}/diff`, { against: other }));
      const { added, removed } = size(rows);
      setText(note, rows.length ? `+${added} −${removed} lines` : "");
      replace(lines, rows.length ? diffTable(rows, { label: "Diff", line: state.line }) : h("p", { class: "state muted" }, "The two sources are equal."));
      aim(lines);
    } catch (error) {
      replace(lines, failed(error, () => showDiff(other)), authorSays());
    } finally {
      done();
    }
  }

  function authorSays() {
    const summary = state.run.diff_summary;
    return summary && h("p", { class: "state muted" }, `Its author says: ${plain(summary)}`);
  }

  function otherChoice(chosen) {
    const names = { parent: "parent", best_then: "best then", best_now: "best now", previous: "earlier verdict", next: "later verdict" };
    const options = new Map();
    for (const [name, label] of Object.entries(names)) {
      const other = state.around[name];
      if (comparable(other)) options.set(other.id, [...(options.get(other.id) ?? []), label]);
    }
    return h(
      "select",
      { on: { change: (event) => showDiff(event.target.value) } },
      [...options].map(([other, labels]) => h("option", { value: other, selected: other === chosen }, labels.join(" = "))),
    );
  }

  function showRecord() {
    const { curve, ...record } = state.run;
    const text = JSON.stringify({ ...record, curve: `${curve.length} points` }, null, 2);
    replace(
      panels.record,
      h("div", { class: "tab-bar" }, h("a", { href: `/api/experiment/${encodeURIComponent(id)}`, target: "_blank", rel: "noopener" }, "As the API has it")),
      h("pre", { class: "record", tabindex: "0", role: "region", "aria-label": "Record" }, plain(text).replaceAll("␊", "\n")),
    );
  }

  const key = (name) => [`${NAMES[name]} tab`, () => choose(name)];
  return {
    element,
    keys: { d: key("diff"), l: key("log"), s: key("source"), r: key("record") },
    update(run, around) {
      const moved = state.run === null || state.run.status !== run.status;
      Object.assign(state, { run, around });
      const asked = new URLSearchParams(location.search).get("tab");
      if (asked in NAMES) open(asked);
      // A tab that nobody chose follows the run up to its verdict, and then stays.
      else if (state.name === null || (run.status === "running" && moved)) open(LOG_FIRST.has(run.status) ? "log" : "diff");
      log.update(run);
      if (moved || state.name !== "record") fill();
    },
    navigated(next) {
      state.line = lineOf(next);
      const asked = next.get("tab");
      if (asked in NAMES) open(asked);
    },
    close: () => log.close(),
  };
}

function lineOf(query) {
  const line = Number(query.get("line"));
  return Number.isInteger(line) && line > 0 ? line : null;
}

function aim(panel) {
  panel.querySelector(".aimed")?.scrollIntoView({ block: "center" });
}
