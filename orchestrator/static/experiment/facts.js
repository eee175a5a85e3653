// Where and how a run ran: attempts, GPU, versions, hashes.

import { h } from "../lib/dom.js";
import { duration, milliseconds, time } from "../lib/format.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";

const OUTCOME = { completed: "keep", crash: "crash", timeout: "crash", lost: "crash", expired: "crash", cancelled: "cancelled" };

export function facts(run) {
  const environment = run.environment;
  return h(
    "dl",
    { class: "facts" },
    row("Category", plain(run.category)),
    row("Parent", run.parent_id ? h("a", { href: `/e/${run.parent_id}`, class: "mono" }, run.parent_id) : "none"),
    run.repeat_of && row("Repeats", h("a", { href: `/e/${run.repeat_of}`, class: "mono" }, run.repeat_of)),
    row("Created", time(run.created_at, { focusable: true })),
    run.finished_at && row("Decided", time(run.finished_at, { focusable: true })),
    row("Seed, priority", `${run.seed}, ${run.priority}`),
    row("GPU", run.gpu_id ? [plain(run.gpu_id), environment.gpu_name && h("span", { class: "muted" }, ` ${plain(environment.gpu_name)}`)] : "—"),
    environment.host && row("Host", plain(environment.host)),
    environment.torch_version && row("Versions", [`torch ${plain(environment.torch_version)}`, environment.driver_version && `, driver ${plain(environment.driver_version)}`, environment.python_version && `, Python ${plain(environment.python_version)}`]),
    environment.profile && row("Profile", plain(environment.profile)),
    row("Commit", h("code", {}, plain(run.commit_sha).slice(0, 12))),
    run.source_sha256 && row("Source", h("code", { title: run.source_sha256 }, run.source_sha256.slice(0, 12))),
    run.warnings.length > 0 && row("Warnings", h("ul", {}, run.warnings.map((warning) => h("li", { class: "warning" }, plain(warning))))),
    run.attempts.length > 0 && row(run.attempts.length > 1 ? "Attempts" : "Attempt", h("ol", { class: "attempts" }, run.attempts.map(attempt))),
  );
}

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
