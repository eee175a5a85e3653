// The tag as a whole: pause and resume, mode.

import { h } from "../lib/dom.js";
import { count, time } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { actionButton } from "./buttons.js";
import { actionRow, listPanel, who } from "./parts.js";
import { pauseTag, pinMode, releaseMode, resumeTag } from "./steer.js";

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
      h("p.muted", plain(strategy.reason), " · ", time(strategy.updated_at)),
    ],
    strategy.pinned && actionButton("Release", () => releaseMode(tag, strategy), changed),
    actionButton("Set and pin", () => pinMode(tag, strategy), changed),
  );
}
