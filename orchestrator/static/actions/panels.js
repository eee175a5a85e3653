// The panels of the Actions page: the search, its runs, its notes, the GPUs. Each row says what is the
// case and has the buttons that change it.

import { h, keyed, setText } from "../lib/dom.js";
import { NONE, count, time } from "../lib/format.js";
import { headings, mark, panel, scrollable } from "../lib/parts.js";
import { remark } from "../lib/states.js";
import { plain, prose } from "../lib/visible.js";
import {
  actionButton, changePriority, drainButton, dropNote, leaveNote, pauseTag, pinMode, releaseMode, repeatRun,
  requeueRun, resumeTag, stopRun,
} from "./steer.js";

/**
 * A panel with a keyed list, or with a table where there are `columns`. `nothing` is said when it is empty,
 * `show(items, note)` fills it.
 */
export function listPanel(title, { kind = "", nothing = "", end, columns, below, key, render }) {
  const note = h("span.muted");
  const rows = h(columns ? "tbody" : `ul.action-rows${kind}`);
  const list = columns ? scrollable("div.scroll", title, h(`table${kind}`, headings(columns), rows)) : rows;
  const none = remark(nothing);
  const element = panel(title, { note, end }, list, none, below);
  const show = (items, text = "") => {
    none.hidden = items.length > 0;
    list.hidden = items.length === 0;
    setText(note, text);
    keyed(rows, items, key, render);
  };
  return { element, show };
}

const actionRow = (content, ...buttons) => h("li", h("div", content), h("div.buttons", buttons));

/** Who stopped something, and why. */
const who = ({ by, reason, at }) => [`by ${plain(by)}, `, time(at), ": ", prose(reason)];

// ---- the search: pause and resume, mode

export function tagPanel(changed) {
  const { element, show } = listPanel("Search", {
    key: ({ row }) => row,
    render: (item) => (item.row === "pause" ? pauseRow(item, changed) : modeRow(item, changed)),
  });
  return {
    element,
    update: ({ name: tag, pause }, strategy, counts) =>
      show([{ row: "pause", tag, pause, counts }, { row: "mode", tag, strategy }]),
  };
}

function pauseRow({ tag, pause, counts }, changed) {
  const text = pause ? who(pause) : `${count(counts.running)} running, ${count(counts.queued)} queued.`;
  return actionRow(
    [h("b", pause ? "Paused" : "Goes on"), h("p.muted", text)],
    pause
      ? actionButton("Resume", () => resumeTag(tag, counts), changed, { kind: "primary", name: "pause" })
      : actionButton("Pause", () => pauseTag(tag, counts), changed, { name: "pause" }),
  );
}

function modeRow({ tag, strategy }, changed) {
  return actionRow(
    [
      h("b", `Mode: ${strategy.mode}`),
      h("span.muted", strategy.pinned ? ", pinned" : ", adapts by itself"),
      h("p.muted", prose(strategy.reason), " · ", time(strategy.updated_at)),
    ],
    strategy.pinned && actionButton("Release", () => releaseMode(tag, strategy), changed),
    actionButton("Set and pin", () => pinMode(tag, strategy), changed),
  );
}

// ---- what runs and what waits; and the best, run once more to measure noise

export function runsPanel(changed) {
  let best = null;
  const again = actionButton("Run the best once more", () => repeatRun({ id: best, hypothesis: "the best" }), changed);
  const more = h("p.muted.more");
  const { element, show } = listPanel("Runs", {
    nothing: "Nothing runs and nothing waits.",
    end: again,
    columns: ["Run", "GPU", "Since", "Actions"],
    below: more,
    key: ({ id }) => id,
    render: (run) => runRow(run, changed),
  });
  return {
    element,
    update(bestId, running, queued) {
      best = bestId;
      again.hidden = best === null;
      // Without their progress, which would render each row again.
      const runs = [...running.experiments, ...queued.experiments]
        .map(({ id, status, hypothesis, gpu_id, started_at }) => ({ id, status, hypothesis, gpu_id, started_at }));
      show(runs, `${count(running.total)} running, ${count(queued.total)} queued`);
      const rest = running.total + queued.total - runs.length;
      more.hidden = rest <= 0;
      setText(more, `${count(rest)} more wait.`);
    },
  };
}

function runRow(run, changed) {
  const running = run.status === "running";
  const byHand = running && !run.gpu_id;
  const name = plain(run.hypothesis) || run.id;
  const button = (label, act, kind) =>
    actionButton(label, () => act(run), changed, { kind, name: `${label} ${run.id}`, describe: `${label}: ${name}` });
  return h("tr",
    h("td.run", h("span.status", mark(run.status), h("a.cut", { href: `/e/${run.id}`, title: run.id }, run.hypothesis ? prose(run.hypothesis) : run.id))),
    h("td", run.gpu_id ?? (byHand ? "by hand" : NONE)),
    h("td", time(run.started_at)),
    h("td.buttons",
      !running && button("Priority", changePriority),
      running && !byHand && button("Requeue", requeueRun),
      button(running ? "Stop" : "Cancel", stopRun, "danger"),
    ),
  );
}

// ---- notes that agents get with their next suggest

export function notesPanel(changed) {
  let tag = null;
  const { element, show } = listPanel("Notes for agents", {
    kind: ".notes",
    nothing: "No note stands. A note tells every agent of the tag what you know.",
    end: actionButton("Leave a note", () => leaveNote(tag), changed, { name: "leave" }),
    key: ({ id }) => `${tag} ${id}`,
    render: (note) => noteRow(tag, note, changed),
  });
  return {
    element,
    update(name, notes) {
      tag = name;
      show(notes, notes.length ? String(notes.length) : "");
    },
  };
}

function noteRow(tag, note, changed) {
  const lines = note.text.split("\n").map((line) => h("span.note-line", prose(line)));
  const describe = `Drop the note of ${plain(note.by)}`;
  return actionRow(
    [h("p.note-text", lines), h("p.muted", `${plain(note.by)}, `, time(note.at))],
    actionButton("Drop", () => dropNote(tag, note), changed, { name: `drop ${note.id}`, describe }),
  );
}

// ---- GPUs: which take runs, and who drained one

export function gpuPanel(changed) {
  const { element, show } = listPanel("GPUs", {
    kind: ".gpu-rows",
    nothing: "No GPU has registered.",
    key: ({ id }) => id,
    render: (gpu) => actionRow(
      [
        h("b", gpu.id),
        h("span.muted", ` ${plain(gpu.gpu_name)}`),
        h("p.muted", gpu.drain ? ["drained ", who(gpu.drain)] : gpu.status),
      ],
      drainButton(gpu, changed),
    ),
  });
  return {
    element,
    update(workers) {
      const drained = workers.filter(({ drain }) => drain).length;
      // Without their heartbeats, which would render each row again.
      const items = workers.map(({ id, gpu_name, status, drain, current_experiment_id }) =>
        ({ id, gpu_name, status, drain, current_experiment_id }));
      show(items, drained ? `${drained} drained` : "");
    },
  };
}
