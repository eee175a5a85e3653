// The compared runs, each with its letter, and a field to add one.

import { h, keyed, setText } from "../lib/dom.js";
import { bpb } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";
import { mark } from "../lib/parts.js";
import { plain, prose } from "../lib/visible.js";

const ID = /exp-[A-Za-z0-9._-]+/;

/** A, B, C … by place: letter and line style tell runs apart where colour does not. */
export const letter = (place) => String.fromCharCode(65 + place);

/** `add(id)` returns why it refuses, or ""; `remove(id)` and `rebase(id)` change what is compared. */
export function chips({ add, remove, rebase }) {
  const list = h("ul.run-chips", { "aria-label": "Compared runs" });
  const field = h("input", {
    id: "add-run", placeholder: "exp-… or its address", autocomplete: "off", spellcheck: "false", size: 26,
  });
  const problem = h("span.problem", { role: "alert" });

  function submit(event) {
    event.preventDefault();
    const found = ID.exec(field.value);
    const refusal = found ? add(found[0]) : "An experiment's id begins with exp-.";
    setText(problem, refusal);
    if (!refusal) field.value = "";
  }

  return {
    element: h("div.compare-bar", list,
      h("form.add-run", { onsubmit: submit },
        h("label", { for: "add-run" }, "Add a run"), field, h("button", { type: "submit" }, "Add"), problem,
      ),
    ),
    update(runs, base) {
      const items = runs.map(({ id, status, val_bpb, hypothesis }, place) =>
        ({ id, status, val_bpb, hypothesis, place, number: numberOf(id), isBase: id === base }));
      keyed(list, items, ({ id }) => id, (item) => chip(item, remove, rebase));
    },
  };
}

function chip({ id, status, val_bpb: value, hypothesis, place, number, isBase }, remove, rebase) {
  const name = plain(hypothesis) || id;
  const onchange = () => rebase(id);
  const base = { type: "radio", name: "base", value: id, checked: isBase, data: { focus: "base" }, onchange };
  const takeOut = `Take out ${letter(place)}: ${name}`;
  return h("li.run-chip",
    h(`b.letter.run-${place}`, letter(place)),
    mark(status),
    number && h("b", number),
    h("a.cut", { href: `/e/${id}`, title: `${status}: ${name}` }, hypothesis ? prose(hypothesis) : id),
    h("span.mono", value === null ? status : bpb(value)),
    h("label", { title: "Differences are against the base" }, h("input", base), " base"),
    h("button.icon", { "aria-label": takeOut, onclick: () => remove(id) }, "×"),
  );
}
