// Asks for the token. All requests that get a 401 wait for the same answer.

import { h } from "./dom.js";
import { openForm } from "./dialog.js";

let asking = null;

/** Resolves once `login(token)` has succeeded. */
export function askForToken(login) {
  asking ??= new Promise((resolve) => open(login, resolve)).finally(() => (asking = null));
  return asking;
}

function open(login, done) {
  const input = h("input", {
    type: "password", id: "token", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const content = [
    h("p.muted", "The value of AUTORESEARCH_TOKEN, where the orchestrator was started."),
    h("label", { for: "token" }, "Token"),
    input,
  ];
  const dialog = openForm("login", "This orchestrator wants its token", content, {
    submit: h("button.primary", { type: "submit" }, "Sign in"),
    send: () => login(input.value.trim()).then(done),
    explain(error) {
      input.select();
      return error.status === 401 ? "That is not the token." : error.message;
    },
  });
  // Without a token there is nothing behind the dialog to go back to.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
}
