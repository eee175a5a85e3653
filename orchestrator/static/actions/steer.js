// Every operator action: what it does, in words, and the call that does it. Each asks in a dialog, where
// nothing is sent without a reason and a refusal is shown, and resolves to the service's answer, or to null
// when nothing was done.

import { h } from "../lib/dom.js";
import { experimentPath, get, post } from "../lib/api.js";
import { openForm } from "../lib/dialog.js";
import { toast } from "../lib/states.js";
import { plain } from "../lib/visible.js";

const STORED = "steer-by"; // who acted last; the ledger shows it beside the reason
const REASON_LIMIT = 500;
const MODES = {
  explore: "new directions, widely apart",
  exploit: "small steps from the best",
  combine: "near misses put together on the best",
  ablation: "earlier changes taken out of the best",
};

const valueOf = (element) => (element.type === "number" ? element.valueAsNumber : element.value.trim());

/**
 * Ask, then POST. `effect` is a line, or several, that say what will happen; `fields` are further
 * inputs as { name: [label, element] }; `danger` is for what loses work; `done(answer)` is the message
 * at the end. Resolves to the answer, or to null when the person closed the dialog.
 */
function ask(title, target, { effect, path, body, fields, reason = true, button, danger, done }) {
  const why = h("input", {
    required: true, maxlength: REASON_LIMIT, autocomplete: "off", placeholder: "The ledger keeps it for later readers",
  });
  const who = h("input", {
    value: localStorage.getItem(STORED) || "human", maxlength: 64, required: true, autocomplete: "off",
  });
  const inputs = Object.entries({ ...fields, ...(reason && { reason: ["Reason", why] }), by: ["By", who] });
  for (const [name, [, element]] of inputs) element.id = `steer-${name}`;
  const submit = h("button", { type: "submit", class: danger ? "danger" : "primary" }, button);
  const first = inputs[0][1][1];
  (first === who ? submit : first).autofocus = true;
  const content = [
    h("p.target", target),
    h("ul.effect", [effect].flat().map((line) => h("li", line))),
    inputs.map(([, [label, element]]) => [h("label", { for: element.id }, label), element]),
  ];
  let answer = null;

  async function send() {
    localStorage.setItem(STORED, valueOf(who));
    const given = inputs.map(([name, [, element]]) => [name, valueOf(element)]);
    answer = await post(path, { ...body, ...Object.fromEntries(given) });
    toast(done(answer));
  }

  const leave = h("button", { onclick: () => dialog.close() }, "Leave it");
  const dialog = openForm("steer", title, content, { submit, buttons: leave, send });
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(answer)));
}

const experiment = (run) => [h("code", run.id), run.hypothesis ? ` ${plain(run.hypothesis)}` : ""];
// A run that was decided meanwhile is queued once more instead.
const requeued = (answer) =>
  answer.requeueing ? "Its worker has been asked to give it back." : `Queued as ${answer.experiment_id}.`;
const tagged = (tag, more) => ["Tag ", h("b", tag), more];

export const pauseTag = (tag, { queued, running }) => ask("Pause the tag", tagged(tag), {
  effect: [
    `No further run of it starts: ${queued} queued wait where they are.`,
    running ? `${running} running go on to their verdict.` : "Nothing of it runs now.",
    "Agents may still submit; GPUs turn to other tags.",
  ],
  path: "/api/steer/pause",
  body: { tag },
  button: "Pause",
  done: () => `${tag} is paused.`,
});

export const resumeTag = (tag, { queued }) => ask("Resume the tag", tagged(tag), {
  effect: queued ? `${queued} queued runs may start at once.` : "Its runs may start again; none is queued.",
  path: "/api/steer/resume",
  body: { tag },
  button: "Resume",
  done: () => `${tag} goes on.`,
});

export function pinMode(tag, strategy) {
  const options = Object.entries(MODES).map(([mode, means]) =>
    h("option", { value: mode, selected: mode === strategy.mode }, `${mode}: ${means}`));
  return ask("Set and pin the mode", tagged(tag, `, now ${strategy.mode}${strategy.pinned ? " (pinned)" : ""}`), {
    effect: ["Agents see it with their next suggest.", "It stays until it is released: no verdict changes it."],
    path: "/api/search/set-strategy",
    body: { tag, pinned: true },
    fields: { mode: ["Mode", h("select", options)] },
    button: "Set and pin",
    done: (answer) => `${tag}: ${answer.mode}, pinned.`,
  });
}

export const releaseMode = (tag, strategy) => ask("Release the mode", tagged(tag, `, pinned to ${strategy.mode}`), {
  effect: `It stays ${strategy.mode} for now, and adapts by itself with the next verdict.`,
  path: "/api/search/set-strategy",
  body: { tag, mode: strategy.mode, pinned: false },
  button: "Release",
  done: () => `${tag} adapts again.`,
});

export const leaveNote = (tag) => ask("Leave a note for agents", tagged(tag), {
  effect: "Every agent of the tag reads it with its next suggest, until it is dropped.",
  path: "/api/steer/note",
  body: { tag },
  fields: { text: ["Note", h("textarea", { rows: 4, maxlength: 2000, required: true })] },
  reason: false,
  button: "Leave the note",
  done: () => "The note is left.",
});

export const dropNote = (tag, note) => ask("Drop the note", tagged(tag, `: ${plain(note.text)}`), {
  effect: "Agents no longer get it. The ledger keeps it.",
  path: "/api/steer/drop-note",
  body: { tag, note_id: note.id },
  reason: false,
  button: "Drop the note",
  done: () => "The note is dropped.",
});

export function stopRun(run) {
  const running = run.status === "running";
  return ask(running ? "Stop the run" : "Take the run out of the queue", experiment(run), {
    effect: [
      running ? "Its worker ends the training; what it has learnt is lost." : "It is never trained.",
      "It counts nowhere, and its source may be submitted again.",
    ],
    path: experimentPath(run.id, "cancel"),
    button: running ? "Stop the run" : "Take it out",
    danger: true,
    done: (answer) => (answer.cancelling ? "Its worker has been asked to stop it." : "It is cancelled."),
  });
}

/** Give a running run back to the queue. */
export const requeueRun = (run) => ask("Give the run back to the queue", experiment(run), {
  effect: [
    "This attempt ends; what it has learnt is lost.",
    "The run starts again from its old place in the queue, on any GPU that fits.",
  ],
  path: experimentPath(run.id, "requeue"),
  button: "Give it back",
  danger: true,
  done: requeued,
});

/** Queue a decided run's source again. */
export const repeatRun = (run) => ask("Run it once more", experiment(run), {
  effect: [
    "The same source with the same seed is queued under a new id.",
    "Two results of one source tell how much is noise. This verdict stays.",
  ],
  path: experimentPath(run.id, "requeue"),
  button: "Run it once more",
  done: requeued,
});

export async function changePriority({ id }) {
  const run = await get(experimentPath(id)); // as it is now: lists do not have it, buttons keep an old one
  const input = h("input", { type: "number", min: -1000, max: 1000, value: run.priority ?? 0, required: true });
  return ask("Change the priority", experiment(run), {
    effect: "Higher goes first; among equals, the one that came first. Running runs are not touched.",
    path: experimentPath(run.id, "priority"),
    fields: { priority: ["Priority, −1000 to 1000", input] },
    button: "Change it",
    done: (answer) => `Priority ${answer.priority}: now at place ${answer.position}.`,
  });
}

const drainGpu = (gpu) => ask("Drain the GPU", [h("b", gpu.id), ` ${plain(gpu.gpu_name)}`], {
  effect: [
    gpu.run || gpu.current_experiment_id ? "Its run goes on to the verdict." : "It trains nothing now.",
    "It takes no further run until it is undrained; runs directed to it wait.",
  ],
  path: "/api/pool/drain",
  body: { gpu_id: gpu.id },
  button: "Drain",
  done: () => `${gpu.id} takes no more runs.`,
});

const drainedBy = ({ by, reason }) => `, drained by ${plain(by)}: ${plain(reason)}`;

const undrainGpu = (gpu) => ask("Undrain the GPU", [h("b", gpu.id), drainedBy(gpu.drain)], {
  effect: "It takes runs again, at once where one waits.",
  path: "/api/pool/undrain",
  body: { gpu_id: gpu.id },
  button: "Undrain",
  done: () => `${gpu.id} takes runs again.`,
});

/**
 * A button that asks with `run` and calls `changed(answer)` when something was done. `name` identifies
 * it to the focus rules, `describe` says more to screen readers than its label.
 */
export function actionButton(label, run, changed, { kind, name = label, describe } = {}) {
  let asking = false; // some read the run first: a second press meanwhile opens no second dialog
  const onclick = async () => {
    if (asking) return;
    asking = true;
    try {
      const answer = await run();
      if (answer) changed(answer);
    } catch (error) {
      toast(error.message, "error");
    } finally {
      asking = false;
    }
  };
  return h("button", { class: kind, data: { focus: name }, "aria-label": describe, onclick }, label);
}

export function drainButton(gpu, changed, kind) {
  const [label, act] = gpu.drain ? ["Undrain", undrainGpu] : ["Drain", drainGpu];
  const describe = `${label} ${gpu.id}`;
  return actionButton(label, () => act(gpu), changed, { kind, name: `drain ${gpu.id}`, describe });
}
