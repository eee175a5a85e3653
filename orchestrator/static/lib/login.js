// Asks for the token. All requests that meet a 401 wait for the same answer.

import { h } from "./dom.js";

let asking = null;

/** Resolves once `login(token)` has gone well. */
export function askForToken(login) {
  asking ??= new Promise((resolve) => open(login, resolve)).finally(() => {
    asking = null;
  });
  return asking;
}

function open(login, done) {
  const message = h("p", { class: "problem", role: "alert" });
  const input = h("input", {
    type: "password", id: "token", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const button = h("button", { class: "primary", type: "submit" }, "Sign in");
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "login-title" },
    h(
      "form",
      { on: { submit } },
      h("h2", { id: "login-title" }, "This orchestrator wants its token"),
      h("p", { class: "muted" }, "The value of AUTORESEARCH_TOKEN, where the orchestrator was started."),
      h("label", { for: "token" }, "Token"),
      input,
      message,
      h("div", { class: "buttons" }, button),
    ),
  );
  // There is nothing behind it to go back to.
  dialog.addEventListener("cancel", (event) => event.preventDefault());

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    message.textContent = "";
    try {
      await login(input.value.trim());
      dialog.close();
      dialog.remove();
      done();
    } catch (error) {
      message.textContent = error.status === 401 ? "That is not the token." : error.message;
      input.select();
    } finally {
      button.disabled = false;
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}
