// The tag as a whole: pause and resume, mode.

import { h } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { count, time } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { action, panel } from "./parts.js";
import { pauseTag, pinMode, releaseMode, resumeTag } from "./steer.js";

export function tagPanel(changed) {
  const { element, body } = panel("Search");
  const rows = h("ul", { class: "action-rows" });
  body.append(rows);
  return {
    element,
    update({ info, strategy, running, queued }) {
      keyed(
        rows,
        [
          { row: "pause", tag: info.name, pause: info.pause, running, queued },
          { row: "mode", tag: info.name, strategy },
        ],
        ({ row }) => row,
        (item) => (item.row === "pause" ? pauseRow(item, changed) : modeRow(item, changed)),
      );
    },
  };
}

function pauseRow({ tag, pause, running, queued }, changed) {
  const counts = { running: count(running), queued: count(queued) };
  return h(
    "li",
    {},
    h("div", {}, h("b", {}, pause ? "Paused" : "Goes on"), h("p", { class: "muted" }, pause ? why(pause) : `${counts.running} running, ${counts.queued} queued.`)),
    h(
      "div",
      { class: "buttons" },
      pause
        ? action("Resume", () => resumeTag(tag, { queued }), changed, { kind: "primary", name: "pause" })
        : action("Pause", () => pauseTag(tag, { running, queued }), changed, { name: "pause" }),
    ),
  );
}

function modeRow({ tag, strategy }, changed) {
  return h(
    "li",
    {},
    h(
      "div",
      {},
      h("b", {}, `Mode: ${strategy.mode}`),
      h("span", { class: "muted" }, strategy.pinned ? ", pinned" : ", adapts by itself"),
      h("p", { class: "muted" }, plain(strategy.reason), " · ", time(strategy.updated_at)),
    ),
    h(
      "div",
      { class: "buttons" },
      strategy.pinned && action("Release", () => releaseMode(tag, strategy), changed, { name: "release" }),
      action("Set and pin", () => pinMode(tag, strategy), changed, { name: "pin" }),
    ),
  );
}

/** Who stopped something, and why. */
export function why({ by, reason, at }) {
  return [`by ${plain(by)}, `, time(at), `: ${plain(reason)}`];
}
