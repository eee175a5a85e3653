// Calls the service: JSON or text, problem+json as errors, the CSRF header. Where the service needs a
// token, the first refusal asks the person for it.

import { openForm } from "./dialog.js";
import { h } from "./dom.js";

const TIMEOUT_MS = 30_000;
let asking = null; // for the token
// Browsers send a host's cookies to all of its ports, so the name has the port.
const PORT = location.port || (location.protocol === "https:" ? "443" : "80");
const CSRF = new RegExp(`(?:^|; )(?:__Host-)?autoresearch_csrf_${PORT}=([^;]*)`);

/** What the service answered, as one line in `message`; `status` is 0 when it did not answer. */
class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(body) {
  const csrf = CSRF.exec(document.cookie);
  return {
    accept: "application/json",
    ...(body && { "content-type": "application/json" }),
    ...(csrf && { "x-csrf-token": decodeURIComponent(csrf[1]) }),
  };
}

async function send(path, { body, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: headers(body),
      body: body && JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The orchestrator does not answer. Is `autoresearch serve` running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  throw new ApiError(response.status, problem?.detail ?? `${response.status} ${response.statusText}`);
}

/** As `send`; a 401 asks the person for the token and tries again. */
async function authorized(path, options) {
  try {
    return await send(path, options);
  } catch (error) {
    if (error.status !== 401) throw error;
    // One dialog for all requests that wait.
    asking ??= new Promise(askForToken).finally(() => (asking = null));
    await asking;
    return send(path, options);
  }
}

function askForToken(done) {
  const input = h("input", {
    type: "password", id: "token", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const content = [
    h("p.muted", "AUTORESEARCH_TOKEN where the orchestrator was started, or one from `autoresearch token create`."),
    h("label", { for: "token" }, "Token"),
    input,
  ];
  const dialog = openForm("login", "This orchestrator wants its token", content, {
    submit: h("button.primary", { type: "submit" }, "Sign in"),
    send: () => send("/api/login", { body: { token: input.value.trim() } }),
    explain(error) {
      input.select();
      return error.status === 401 ? "That is not the token." : error.message;
    },
  });
  // Without a token, what waits is refused again, and its page offers to try again.
  dialog.addEventListener("close", done);
}

/** A path with query parameters; those that are null or empty are left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => (value ?? "") !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** GET as JSON; `getText` as text: sources and diffs. */
export const get = async (path, query, signal) => (await authorized(url(path, query), { signal })).json();
export const getText = async (path, query, signal) => (await authorized(url(path, query), { signal })).text();

/** POST JSON, answered with JSON. */
export const post = async (path, body) => (await authorized(path, { body })).json();

/** Where the service has an experiment, or a part of it such as "diff". */
export const experimentPath = (id, part) => `/api/experiment/${encodeURIComponent(id)}${part ? `/${part}` : ""}`;
