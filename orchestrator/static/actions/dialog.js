// The one way to steer: what it is about, what it will do, and why one does it. Nothing is sent
// before the reason is given, and a refusal is shown where it was asked.

import { h, replace } from "../lib/dom.js";
import { post } from "../lib/api.js";
import { toast } from "../lib/states.js";
import { sheet } from "../lib/sheet.js";

const STORED = "steer-by";
const REASON_LIMIT = 500;

/** Who acts, as told last: it stands in the ledger beside the reason. */
export const actor = () => localStorage.getItem(STORED) || "human";

/**
 * Ask, then POST. `effect` is a line, or the lines of a list, that say what will happen; `fields` are
 * { name, label, element, read(element) } beside the reason; `danger` is for what loses work.
 * Resolves to the answer, or null when the person thought better of it.
 */
export async function ask({ title, target, effect, path, body = {}, fields = [], button, danger = false, done, reason = true }) {
  await sheet("/static/actions/style.css");
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "dialog steer", "aria-labelledby": "steer-title" });
    const why = h("input", {
      id: "steer-reason", name: "reason", required: true, maxlength: REASON_LIMIT, autocomplete: "off",
      placeholder: "It stands in the ledger for whoever wonders later",
    });
    const who = h("input", { id: "steer-by", name: "by", value: actor(), maxlength: 64, required: true, autocomplete: "off" });
    const problem = h("p", { class: "problem", role: "alert" });
    const submit = h("button", { type: "submit", class: danger ? "danger" : "primary" }, button ?? title);
    let answer = null;

    async function send(event) {
      event.preventDefault();
      submit.disabled = true;
      problem.textContent = "";
      localStorage.setItem(STORED, who.value.trim());
      const extra = Object.fromEntries(fields.map(({ name, element, read }) => [name, read(element)]));
      try {
        answer = await post(path, { ...body, ...extra, ...(reason ? { reason: why.value.trim() } : {}), by: who.value.trim() });
        toast(typeof done === "function" ? done(answer) : (done ?? `${title}: done.`));
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        submit.disabled = false;
      }
    }

    replace(
      dialog,
      h(
        "form",
        { on: { submit: send } },
        h("h2", { id: "steer-title" }, title),
        h("p", { class: "target" }, target),
        h("ul", { class: "effect" }, [effect].flat().map((line) => h("li", {}, line))),
        fields.map(({ label, element }) => [h("label", { for: element.id }, label), element]),
        reason && [h("label", { for: "steer-reason" }, "Reason"), why],
        h("label", { for: "steer-by" }, "By"),
        who,
        problem,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", on: { click: () => dialog.close() } }, "Leave it"),
          submit,
        ),
      ),
    );
    const opener = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (opener?.isConnected) opener.focus();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (fields[0]?.element ?? (reason ? why : submit)).focus();
  });
}
