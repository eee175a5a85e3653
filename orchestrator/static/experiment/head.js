// The verdict's sentence, the idea, the ways to the neighbours, and what one may do to the run.

import { h, replace, setText } from "../lib/dom.js";
import { milliseconds, duration } from "../lib/format.js";
import { serverNow } from "../lib/clock.js";
import { numberOf } from "../lib/numbers.js";
import * as selection from "../lib/selection.js";
import { mark } from "../lib/status.js";
import { plain, visible } from "../lib/visible.js";
import { changePriority, remaining, requeueRun, stopRun } from "../actions/steer.js";
import { noiseNote, sentence } from "./sentence.js";

const OVER = new Set(["keep", "discard", "crash", "timeout", "cancelled"]);

export function head(ctx, { changed }) {
  const title = h("h1", { class: "verdict" });
  const idea = h("p", { class: "idea" });
  const progress = h("progress", { max: 100, value: 0, "aria-label": "Progress of the training", hidden: true });
  const time = h("span", { class: "muted" });
  const neighbours = h("nav", { class: "neighbours", "aria-label": "Neighbouring runs" });
  const actions = h("div", { class: "run-actions" });
  const element = h(
    "div",
    { class: "run-head" },
    h("div", { class: "run-top" }, title, neighbours),
    h("div", { class: "run-sub" }, idea, actions),
    h("div", { class: "run-progress" }, progress, time),
  );
  let around = null;
  let shownActions = "";

  function update(run, next) {
    around = next;
    const { lead, rest, sure } = sentence(run, around);
    replace(
      title,
      numberOf(run.id) && h("span", { class: "number" }, numberOf(run.id), " "),
      h("span", { class: `status word-${lead}` }, mark(lead), h("span", {}, lead)),
      ": ",
      visible(rest.slice(0, 400)),
      sure && h("span", { class: `sure ${sure.split(" ")[0]}`, title: noiseNote(around.noise), tabindex: "0", data: { focus: "sure" } }, sure),
    );
    replace(idea, visible(run.hypothesis), run.description !== run.hypothesis && h("span", { class: "muted" }, " ", visible(run.description)));
    showProgress(run);
    neighbours.hidden = !around.previous && !around.next;
    replace(neighbours, step("previous", "‹", "Earlier verdict"), step("next", "›", "Later verdict"));
    showActions(run);
  }

  function step(name, sign, label) {
    const other = around[name];
    const inner = [h("span", { "aria-hidden": "true" }, sign), h("span", { class: "visually-hidden" }, `${label}: `)];
    if (!other) return h("span", { class: "step none", "aria-hidden": "true" }, sign);
    const text = other.val_bpb === null ? other.status : other.val_bpb.toFixed(6);
    const what = [h("b", {}, numberOf(other.id)), mark(other.status), h("span", { class: "mono" }, text)];
    const content = name === "previous" ? [inner, what] : [what, inner];
    return h("a", { class: "step", href: `/e/${other.id}`, title: plain(other.hypothesis), data: { focus: name } }, content);
  }

  function showProgress(run) {
    const last = run.curve.at(-1);
    progress.hidden = run.status !== "running";
    if (run.status !== "running") {
      setText(time, "");
      return;
    }
    if (last) progress.value = Math.min(100, last.percent);
    else progress.removeAttribute("value");
    const since = run.started_at ? `for ${duration((serverNow() - milliseconds(run.started_at)) / 1000)}` : "";
    const left = last ? remaining({ ...run, percent: last.percent }) : "";
    setText(time, [run.gpu_id && `on ${run.gpu_id}`, since, left].filter(Boolean).join(" · "));
  }

  /** Buttons stay the same elements while they say the same: a click must not miss. */
  function showActions(run) {
    const picked = selection.has(run.id);
    const key = `${run.status} ${picked} ${run.attempts.length > 0}`;
    if (key === shownActions) return;
    shownActions = key;
    const act = (label, verb, kind) => h("button", { type: "button", class: kind, on: { click: () => verb(run).then((answer) => answer && done(answer)) } }, label);
    const byHand = run.status === "running" && !run.attempts.length;
    replace(
      actions,
      run.status === "queued" && act("Priority", changePriority),
      run.status === "running" && !byHand && act("Requeue", requeueRun),
      OVER.has(run.status) && run.source_sha256 && act("Run it once more", requeueRun),
      !OVER.has(run.status) && act(run.status === "queued" ? "Cancel" : "Stop", stopRun, "danger"),
      h("button", { type: "button", "aria-pressed": String(picked), on: { click: () => compare(run) } }, picked ? "In compare" : "Compare"),
    );
  }

  function done(answer) {
    if (answer.repeat_of) ctx.navigate(`/e/${answer.experiment_id}`);
    else changed();
  }

  function compare(run) {
    if (!selection.toggle(run.id)) ctx.toast(`${selection.MAXIMUM} runs are compared at most: take one out first.`, { kind: "error" });
    showActions(run);
  }

  const go = (name) => () => {
    const other = around?.[name];
    if (!other) return false;
    ctx.navigate(`/e/${other.id}`);
    return true;
  };
  return {
    element,
    update,
    keys: {
      ArrowLeft: ["Earlier verdict", go("previous")],
      ArrowRight: ["Later verdict", go("next")],
      "Shift+ArrowLeft": ["Earlier keep", go("previous_keep")],
      "Shift+ArrowRight": ["Later keep", go("next_keep")],
      p: ["Parent", go("parent")],
      b: ["Best now", go("best_now")],
    },
  };
}
