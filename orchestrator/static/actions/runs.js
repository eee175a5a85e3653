// What runs and what waits, with the actions on each; and the best, run once more to measure noise.

import { h, keyed, setText } from "../lib/dom.js";
import { NONE, count, time } from "../lib/format.js";
import { headings, mark, panel, scrollable } from "../lib/parts.js";
import { remark } from "../lib/states.js";
import { plain } from "../lib/visible.js";
import { actionButton } from "./buttons.js";
import { changePriority, repeatRun, requeueRun, stopRun } from "./steer.js";

export function runsPanel(changed) {
  let best = null;
  const again = actionButton("Run the best once more", () => repeatRun({ id: best, hypothesis: "the best" }), changed);
  const note = h("span.muted");
  const rows = h("tbody");
  const table = h("table", headings(["Run", "GPU", "Since", "Actions"]), rows);
  const none = remark("Nothing runs and nothing waits.");
  const more = h("p.muted.more");
  return {
    element: panel("Runs", { note, end: again }, scrollable("div.scroll", "Runs under way", table), none, more),
    update(bestId, running, queued) {
      best = bestId;
      again.hidden = best === null;
      // Without their progress, which would render each row again.
      const runs = [...running.experiments, ...queued.experiments]
        .map(({ id, status, hypothesis, gpu_id, started_at }) => ({ id, status, hypothesis, gpu_id, started_at }));
      setText(note, `${count(running.total)} running, ${count(queued.total)} queued`);
      none.hidden = runs.length > 0;
      table.hidden = runs.length === 0;
      const rest = running.total + queued.total - runs.length;
      more.hidden = rest <= 0;
      setText(more, `${count(rest)} more wait.`);
      keyed(rows, runs, ({ id }) => id, (run) => row(run, changed));
    },
  };
}

function row(run, changed) {
  const running = run.status === "running";
  const byHand = running && !run.gpu_id;
  const name = plain(run.hypothesis) || run.id;
  const button = (label, act, kind) =>
    actionButton(label, () => act(run), changed, { kind, describe: `${label}: ${name}` });
  return h("tr",
    h("td.run", h("span.status", mark(run.status), h("a.cut", { href: `/e/${run.id}`, title: run.id }, name))),
    h("td", run.gpu_id ?? (byHand ? "by hand" : NONE)),
    h("td", time(run.started_at)),
    h("td.buttons",
      !running && button("Priority", changePriority),
      running && !byHand && button("Requeue", requeueRun),
      button(running ? "Stop" : "Cancel", stopRun, "danger"),
    ),
  );
}
