// Where and how a run ran: attempts, GPU, versions, hashes.

import { h } from "../lib/dom.js";
import { duration, milliseconds, time } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";

const OUTCOME = { crash: "crash", timeout: "crash", lost: "crash", expired: "crash", cancelled: "cancelled" };

export function facts(run) {
  const environment = run.environment;
  return h(
    "dl",
    { class: "facts" },
    run.attempts.length > 0 && row(run.attempts.length > 1 ? "Attempts" : "Attempt", h("ol", { class: "attempts" }, run.attempts.map(attempt))),
    run.warnings.length > 0 && row("Warnings", h("ul", {}, run.warnings.map((warning) => h("li", { class: "warning" }, plain(warning))))),
    row("Category", plain(run.category)),
    row("Parent", run.parent_id ? other(run.parent_id) : "none"),
    run.repeat_of && row("Repeats", other(run.repeat_of)),
    row("Created", time(run.created_at, { focusable: true })),
    run.finished_at && row("Decided", time(run.finished_at, { focusable: true })),
    row("Seed", [run.seed, run.priority !== 0 && h("span", { class: "muted" }, ` · priority ${run.priority}`)]),
    environment.gpu_name && row("GPU", [plain(environment.gpu_name), environment.host && h("span", { class: "muted" }, ` on ${plain(environment.host)}`)]),
    environment.torch_version && row("Versions", versions(environment)),
    environment.profile && row("Profile", plain(environment.profile)),
    row("Commit", h("code", {}, plain(run.commit_sha).slice(0, 12))),
    run.source_sha256 && row("Source", h("code", { title: run.source_sha256 }, run.source_sha256.slice(0, 12))),
  );
}

function versions({ torch_version: torch, driver_version: driver, python_version: python }) {
  return plain([`torch ${torch}`, driver && `driver ${driver}`, python && `Python ${python}`].filter(Boolean).join(", "));
}

const other = (id) => h("a", { href: `/e/${id}`, title: id }, numberOf(id) || `${id.slice(0, 18)}…`);

const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];

function attempt({ epoch, gpu_id: gpu, claimed_at: from, ended_at: to, outcome }) {
  const took = to ? duration((milliseconds(to) - milliseconds(from)) / 1000) : null;
  return h(
    "li",
    {},
    mark(outcome ? (OUTCOME[outcome] ?? "discard") : "running"),
    h("span", {}, `${epoch} on ${plain(gpu)}: ${outcome ?? "running"}`),
    h("span", { class: "muted" }, took ? ` after ${took}` : [" since ", time(from)]),
  );
}
