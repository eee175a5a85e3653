// The verdict's sentence, the idea, links to the neighbours, and the actions on the run.

import { h, replace, setText } from "../lib/dom.js";
import { duration, secondsBetween, serverNow } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";
import { navigate } from "../lib/router.js";
import * as selection from "../lib/selection.js";
import { toast } from "../lib/states.js";
import { mark, scrollable } from "../lib/parts.js";
import { plain, prose, visible } from "../lib/visible.js";
import { actionButton, changePriority, repeatRun, requeueRun, stopRun } from "../actions/steer.js";
import { noiseNote, sentence } from "./sentence.js";

const REST_CHARACTERS = 400;
const ID = /(exp-[0-9a-f]{14}-[\w.-]*\w)/;
const CONFIRMED = "The keep rule race proved it better than the last confirmed keep";
const PROVISIONAL = "Not proved yet: it is confirmed once more runs show that it is better than the last confirmed keep";

/** A sentence with links in place of ids. */
const linked = (text) => text.split(ID).map((part, index) =>
  index % 2 ? h("a", { href: `/e/${part}`, title: part }, numberOf(part) || `${part.slice(0, 18)}…`) : prose(part));

/** `changed()` is called after an action on the run. */
export function head(changed) {
  const title = h("h1.verdict");
  const block = scrollable("pre.block", "What the verdict shows");
  const idea = h("p.idea");
  const progress = h("progress", { max: 100, "aria-label": "Progress of the training" });
  const progressText = h("span.muted");
  const progressRow = h("div.run-progress", progress, progressText);
  const neighbours = h("nav.neighbours", { "aria-label": "Neighbouring runs" });
  const actions = h("div.run-actions");
  const element = h("div.run-head",
    h("div.run-top", title, neighbours),
    block,
    h("div.run-sub", idea, actions),
    progressRow,
  );
  let comparison = null;
  let shownActions = "";

  function update(run, next) {
    comparison = next;
    showSentence(run);
    replace(idea,
      linked(run.hypothesis),
      run.description !== run.hypothesis && h("span.muted", " ", linked(run.description)),
    );
    showProgress(run);
    neighbours.hidden = !comparison.previous && !comparison.next;
    replace(neighbours, step("previous", "‹", "Earlier verdict"), step("next", "›", "Later verdict"));
    showActions(run);
  }

  function showSentence(run) {
    const { lead, rest, sure, block: lines } = sentence(run, comparison);
    const { confirmed, provisional, improved } = run.verdict ?? {};
    showBlock(lines);
    const note = { title: noiseNote(comparison.noise), tabindex: "0", data: { focus: "sure" } };
    replace(title,
      numberOf(run.id) && h("span.number", numberOf(run.id), " "),
      h(`span.status.word-${lead}`, mark(lead), h("span", lead)),
      ": ",
      linked(rest.slice(0, REST_CHARACTERS)),
      confirmed && h("span.sure.outside", { title: CONFIRMED }, "confirmed"),
      provisional && improved && h("span.sure.inside", { title: PROVISIONAL }, "provisional"),
      sure && h(`span.sure.${sure}`, note, `${sure === "unknown" ? "noise unknown" : `${sure} noise`}`),
    );
  }

  /** Lines below the sentence, such as a merge conflict. */
  function showBlock(lines) {
    block.hidden = lines === "";
    replace(block, lines.split("\n").map((line) => h("span.line", visible(line))));
  }

  function step(name, sign, label) {
    const other = comparison[name];
    if (!other) return h("span.step.none", { "aria-hidden": "true" }, sign);
    const arrow = [h("span", { "aria-hidden": "true" }, sign), h("span.visually-hidden", `${label}: `)];
    const result = other.val_bpb === null ? other.status : other.val_bpb.toFixed(6);
    const what = [h("b", numberOf(other.id)), mark(other.status), h("span.mono", result)];
    const attributes = { href: `/e/${other.id}`, title: plain(other.hypothesis), data: { focus: name } };
    return h("a.step", attributes, name === "previous" ? [arrow, what] : [what, arrow]);
  }

  function showProgress(run) {
    progressRow.hidden = run.status !== "running";
    if (progressRow.hidden) return;
    const done = run.curve.length ? Math.min(100, run.curve.at(-1).percent) : null;
    if (done === null) progress.removeAttribute("value");
    else progress.value = done;
    const left = (run.time_budget_seconds * (100 - done)) / 100;
    setText(progressText, [
      run.gpu_id && `on ${run.gpu_id}`,
      run.started_at && `for ${duration(secondsBetween(run.started_at, serverNow()))}`,
      done !== null && `at most ${duration(left)} to train`,
    ].filter(Boolean).join(" · "));
  }

  /** Buttons keep their elements while they say the same: a click must not miss. */
  function showActions(run) {
    const picked = selection.has(run.id);
    const byHand = run.attempts.length === 0;
    const key = `${run.status} ${picked} ${byHand}`;
    if (key === shownActions) return;
    shownActions = key;
    const queued = run.status === "queued";
    const running = run.status === "running";
    const act = (label, action, kind) => actionButton(label, () => action(run), acted, { kind });
    replace(actions,
      queued && act("Priority", changePriority),
      running && !byHand && act("Requeue", requeueRun),
      !queued && !running && run.source_sha256 && act("Run it once more", repeatRun),
      (queued || running) && act(queued ? "Cancel" : "Stop", stopRun, "danger"),
      h("button", { "aria-pressed": String(picked), onclick: () => pick(run) }, picked ? "In compare" : "Compare"),
    );
  }

  function acted(answer) {
    if (answer.repeat_of) navigate(`/e/${answer.experiment_id}`);
    else changed();
  }

  function pick(run) {
    if (!selection.toggle(run.id)) toast(selection.FULL, "error");
    showActions(run);
  }

  const goTo = (label, name) => [label, () => {
    const other = comparison?.[name];
    return other ? navigate(`/e/${other.id}`) : false;
  }];
  return {
    element,
    update,
    keys: {
      ArrowLeft: goTo("Earlier verdict", "previous"),
      ArrowRight: goTo("Later verdict", "next"),
      "Shift+ArrowLeft": goTo("Earlier keep", "previous_keep"),
      "Shift+ArrowRight": goTo("Later keep", "next_keep"),
      p: goTo("Parent", "parent"),
      b: goTo("Best now", "best_now"),
    },
  };
}
