// What runs and what waits, with what may be done to each; and the best, once more, for the noise.

import { h, setText } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { count, time } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";
import { action, panel } from "./parts.js";
import { changePriority, requeueRun, stopRun } from "./steer.js";

export function runsPanel(changed) {
  let best = null;
  const again = action("Run the best once more", () => requeueRun({ id: best, status: "keep", hypothesis: "the best" }), changed, { name: "again" });
  const { element, body, note } = panel("Runs", again);
  const rows = h("tbody");
  const none = h("p", { class: "state muted" }, "Nothing runs and nothing waits.");
  const more = h("p", { class: "muted more", hidden: true });
  body.append(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs under way" }, h("table", {}, header(), rows)), none, more);
  return {
    element,
    update({ best: id, running, queued }) {
      best = id;
      again.hidden = best === null;
      const runs = [...running.experiments, ...queued.experiments];
      setText(note, `${count(running.total)} running, ${count(queued.total)} queued`);
      none.hidden = runs.length > 0;
      rows.parentElement.hidden = runs.length === 0;
      const rest = running.total + queued.total - runs.length;
      more.hidden = rest <= 0;
      setText(more, `${count(rest)} more wait.`);
      keyed(rows, runs.map(({ id: run, status, hypothesis, gpu_id, started_at }) => ({ id: run, status, hypothesis, gpu_id, started_at })), ({ id: run }) => run, (run) => row(run, changed));
    },
  };
}

const header = () =>
  h("thead", {}, h("tr", {}, ["Run", "GPU", "Since", "Actions"].map((label) => h("th", { scope: "col" }, label))));

function row(run, changed) {
  const running = run.status === "running";
  const byHand = running && !run.gpu_id;
  const name = plain(run.hypothesis) || run.id;
  const button = (label, verb, kind) => action(label, () => verb(run), changed, { kind, describe: `${label}: ${name}` });
  return h(
    "tr",
    {},
    h("td", { class: "run" }, h("span", { class: "status" }, mark(run.status), h("a", { href: `/e/${run.id}`, class: "cut", title: run.id }, name))),
    h("td", {}, run.gpu_id ?? (byHand ? "by hand" : "—")),
    h("td", {}, time(run.started_at)),
    h(
      "td",
      { class: "buttons" },
      !running && button("Priority", changePriority),
      running && !byHand && button("Requeue", requeueRun),
      button(running ? "Stop" : "Cancel", stopRun, "danger"),
    ),
  );
}
