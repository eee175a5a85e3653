// Asks for the token. All requests that get a 401 wait for the same answer.

import { h } from "./dom.js";
import { openDialog } from "./dialog.js";

let asking = null;

/** Resolves once `login(token)` has succeeded. */
export function askForToken(login) {
  asking ??= new Promise((resolve) => open(login, resolve)).finally(() => (asking = null));
  return asking;
}

function open(login, done) {
  const problem = h("p.problem", { role: "alert" });
  const input = h("input", {
    type: "password", id: "token", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const button = h("button.primary", { type: "submit" }, "Sign in");
  const dialog = openDialog("login", "This orchestrator wants its token",
    h("form", { onsubmit: submit },
      h("p.muted", "The value of AUTORESEARCH_TOKEN, where the orchestrator was started."),
      h("label", { for: "token" }, "Token"),
      input,
      problem,
      h("div.buttons", button),
    ),
  );
  // Without a token there is nothing behind the dialog to go back to.
  dialog.addEventListener("cancel", (event) => event.preventDefault());

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await login(input.value.trim());
      dialog.close();
      done();
    } catch (error) {
      problem.textContent = error.status === 401 ? "That is not the token." : error.message;
      input.select();
    } finally {
      button.disabled = false;
    }
  }
}
