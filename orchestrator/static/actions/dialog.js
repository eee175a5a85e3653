// The one dialog for operator actions: what it is about, what it will do, and the person's reason.
// Nothing is sent without a reason, and a refusal is shown in the dialog.

import { h } from "../lib/dom.js";
import { post } from "../lib/api.js";
import { openForm } from "../lib/dialog.js";
import { toast } from "../lib/states.js";

const STORED = "steer-by"; // who acted last; the ledger shows it beside the reason
const REASON_LIMIT = 500;

const valueOf = (element) => (element.type === "number" ? element.valueAsNumber : element.value.trim());

/**
 * Ask, then POST. `effect` is a line, or several, that say what will happen; `fields` are further
 * inputs as { name: [label, element] }; `danger` is for what loses work; `done(answer)` is the message
 * at the end. Resolves to the answer, or to null when the person closed the dialog.
 */
export function ask(title, target, { effect, path, body, fields, reason = true, button, danger, done }) {
  const why = h("input", {
    required: true, maxlength: REASON_LIMIT, autocomplete: "off", placeholder: "The ledger keeps it for later readers",
  });
  const who = h("input", {
    value: localStorage.getItem(STORED) || "human", maxlength: 64, required: true, autocomplete: "off",
  });
  const inputs = Object.entries({ ...fields, ...(reason && { reason: ["Reason", why] }), by: ["By", who] });
  for (const [name, [, element]] of inputs) element.id = `steer-${name}`;
  const submit = h("button", { type: "submit", class: danger ? "danger" : "primary" }, button);
  const first = inputs[0][1][1];
  (first === who ? submit : first).autofocus = true;
  const content = [
    h("p.target", target),
    h("ul.effect", [effect].flat().map((line) => h("li", line))),
    inputs.map(([, [label, element]]) => [h("label", { for: element.id }, label), element]),
  ];
  let answer = null;

  async function send() {
    localStorage.setItem(STORED, valueOf(who));
    const given = inputs.map(([name, [, element]]) => [name, valueOf(element)]);
    answer = await post(path, { ...body, ...Object.fromEntries(given) });
    toast(done(answer));
  }

  const leave = h("button", { onclick: () => dialog.close() }, "Leave it");
  const dialog = openForm("steer", title, content, { submit, buttons: leave, send });
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(answer)));
}
