// Speaks to the service: JSON, problem+json as errors, the CSRF header, and one question for the
// token when the service wants one.

import { askForToken } from "./login.js";

const TIMEOUT_MS = 30_000;

/** What the service said, as one line in `message`; `status` is 0 when it said nothing. */
export class ApiError extends Error {
  constructor(status, message, problem = null) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

function cookie(name) {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : null;
}

function headers(body) {
  const csrf = cookie("autoresearch_csrf");
  return {
    accept: "application/json",
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...(csrf ? { "x-csrf-token": csrf } : {}),
  };
}

async function send(path, { method = "GET", body, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: headers(body),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The orchestrator does not answer. Is `autoresearch serve` running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  throw new ApiError(response.status, problem?.detail ?? `${response.status} ${response.statusText}`, problem);
}

/** As `send`; a 401 asks the person for the token once, whoever asks first, and tries again. */
async function authorized(path, options) {
  try {
    return await send(path, options);
  } catch (error) {
    if (error.status !== 401) throw error;
    await askForToken((token) => send("/api/login", { method: "POST", body: { token } }));
    return send(path, options);
  }
}

/** A path with query parameters; those that are null or empty are left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** GET as JSON. */
export async function get(path, query, { signal } = {}) {
  return (await authorized(url(path, query), { signal })).json();
}

/** GET as text: logs, sources, diffs. */
export async function getText(path, query, { signal } = {}) {
  return (await authorized(url(path, query), { signal })).text();
}

/** POST JSON, answered with JSON. */
export async function post(path, body = {}, { signal } = {}) {
  return (await authorized(path, { method: "POST", body, signal })).json();
}
