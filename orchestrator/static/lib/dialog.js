// Modal dialogs. One leaves the document when it closes, and the browser gives the focus back.

import { h, refocus } from "./dom.js";

/** Open a dialog of class `name` and return its element. */
export function openDialog(name, title, ...content) {
  const dialog = h(`dialog.dialog.${name}`, { "aria-labelledby": `${name}-title` });
  dialog.append(h("h2", { id: `${name}-title` }, title), ...content);
  const opener = document.activeElement;
  const card = opener.closest("[id]");
  dialog.addEventListener("close", () => {
    dialog.remove();
    // It was rendered again meanwhile: its successor gets the focus.
    if (!opener.isConnected) refocus(opener, document.getElementById(card?.id) ?? document.getElementById("main"));
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Open a dialog with a form. `submit` is its button; `send()` is called when it is pressed, and when
 * that succeeds the dialog closes. When it fails, `explain(error)` is shown in the dialog.
 */
export function openForm(name, title, content, { submit, buttons = [], send, explain = (error) => error.message }) {
  const problem = h("p.problem", { role: "alert" });
  const dialog = openDialog(name, title, h("form", { onsubmit }, content, problem, h("div.buttons", buttons, submit)));

  async function onsubmit(event) {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = "";
    try {
      await send();
      dialog.close();
    } catch (error) {
      problem.textContent = explain(error);
    } finally {
      submit.disabled = false;
    }
  }

  return dialog;
}
