// A modal dialog with a heading. It leaves the document when it closes, and the browser gives the focus
// back.

import { h } from "./dom.js";

/** Open a dialog of class `name` and return its element. */
export function openDialog(name, title, ...content) {
  const dialog = h(`dialog.dialog.${name}`, { "aria-labelledby": `${name}-title` });
  dialog.append(h("h2", { id: `${name}-title` }, title), ...content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
