// Notes that agents get with their next suggest.

import { h } from "../lib/dom.js";
import { time } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { actionButton } from "./buttons.js";
import { actionRow, listPanel } from "./parts.js";
import { dropNote, leaveNote } from "./steer.js";

export function notesPanel(changed) {
  let tag = null;
  const { element, show } = listPanel("Notes for agents", {
    kind: ".notes",
    nothing: "No note stands. A note tells every agent of the tag what you know.",
    end: actionButton("Leave a note", () => leaveNote(tag), changed, { name: "leave" }),
    key: ({ id }) => `${tag} ${id}`,
    render: (note) => row(tag, note, changed),
  });
  return {
    element,
    update(name, notes) {
      tag = name;
      show(notes, notes.length ? String(notes.length) : "");
    },
  };
}

function row(tag, note, changed) {
  const lines = note.text.split("\n").map((line) => h("span.note-line", plain(line)));
  const describe = `Drop the note of ${plain(note.by)}`;
  return actionRow(
    [h("p.note-text", lines), h("p.muted", `${plain(note.by)}, `, time(note.at))],
    actionButton("Drop", () => dropNote(tag, note), changed, { name: "drop", describe }),
  );
}
