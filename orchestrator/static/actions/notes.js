// Notes that agents get with their next suggest.

import { h, setText } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { time } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { action, panel } from "./parts.js";
import { dropNote, leaveNote } from "./steer.js";

export function notesPanel(changed) {
  let tag = null;
  const { element, body, note } = panel("Notes for agents", action("Leave a note", () => leaveNote(tag), changed, { name: "leave" }));
  const list = h("ul", { class: "action-rows notes" });
  const none = h("p", { class: "state muted" }, "No note stands. A note tells every agent of the tag what you know.");
  body.append(list, none);
  return {
    element,
    update({ tag: name, notes }) {
      tag = name;
      none.hidden = notes.length > 0;
      setText(note, notes.length ? String(notes.length) : "");
      keyed(list, notes, ({ id }) => `${name} ${id}`, (one) => row(name, one, changed));
    },
  };
}

function row(tag, one, changed) {
  return h(
    "li",
    {},
    h("div", {}, h("p", { class: "note-text" }, one.text.split("\n").map((line) => h("span", { class: "note-line" }, plain(line)))), h("p", { class: "muted" }, `${plain(one.by)}, `, time(one.at))),
    h("div", { class: "buttons" }, action("Drop", () => dropNote(tag, one), changed, { name: "drop", describe: `Drop the note of ${plain(one.by)}` })),
  );
}
