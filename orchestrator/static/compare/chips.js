// The runs that are compared, each with its letter, and a field to add one.

import { h, replace, setText } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { bpb } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";

/** A, B, C … by place: letter and line style tell runs apart where colour does not. */
export const letter = (place) => String.fromCharCode(65 + place);

const ID = /exp-[A-Za-z0-9._-]+/;

export function chips({ add, remove, rebase }) {
  const list = h("ul", { class: "run-chips", "aria-label": "Compared runs" });
  const field = h("input", { id: "add-run", placeholder: "exp-… or its address", autocomplete: "off", spellcheck: "false", size: 26 });
  const message = h("span", { class: "problem", role: "alert" });

  function submit(event) {
    event.preventDefault();
    const found = ID.exec(field.value);
    const refusal = found ? add(found[0]) : "An experiment's id begins with exp-.";
    setText(message, refusal);
    if (!refusal) field.value = "";
  }

  const form = h("form", { class: "add-run", on: { submit } }, h("label", { for: "add-run" }, "Add a run"), field, h("button", { type: "submit" }, "Add"), message);
  return {
    element: h("div", { class: "compare-bar" }, list, form),
    update(runs, base) {
      const items = runs.map((run, place) => ({
        id: run.id, place, number: numberOf(run.id), base: run.id === base, status: run.status, val_bpb: run.val_bpb, hypothesis: run.hypothesis,
      }));
      keyed(list, items, ({ id }) => id, (item) => chip(item, remove, rebase));
      if (!runs.length) replace(list);
    },
  };
}

function chip({ id, place, number, base, status, val_bpb: value, hypothesis }, remove, rebase) {
  const name = plain(hypothesis) || id;
  return h(
    "li",
    { class: "run-chip" },
    h("b", { class: `letter run-${place}` }, letter(place)),
    mark(status),
    number && h("b", {}, number),
    h("a", { href: `/e/${id}`, class: "cut", title: `${status}: ${name}` }, name),
    h("span", { class: "mono" }, value === null ? status : bpb(value)),
    h(
      "label",
      { title: "Differences are against the base" },
      h("input", { type: "radio", name: "base", value: id, checked: base, data: { focus: "base" }, on: { change: () => rebase(id) } }),
      " base",
    ),
    h("button", { type: "button", class: "icon", "aria-label": `Take out ${letter(place)}: ${name}`, on: { click: () => remove(id) } }, "×"),
  );
}
