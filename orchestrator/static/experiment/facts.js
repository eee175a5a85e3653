// Where and how a run ran: attempts, GPU, versions, hashes.

import { h } from "../lib/dom.js";
import { bpb, duration, secondsBetween, time } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";
import { mark } from "../lib/parts.js";
import { plain, prose } from "../lib/visible.js";

const OUTCOMES = { crash: "crash", timeout: "crash", lost: "crash", expired: "crash", cancelled: "cancelled" };

const row = (name, value) => [h("dt", name), h("dd", value)];
const link = (id) => h("a", { href: `/e/${id}`, title: id }, numberOf(id) || `${id.slice(0, 18)}…`);
const muted = (text) => h("span.muted", text);
const code = (text, title) => h("code", { title }, plain(text).slice(0, 12));

/** `repeats` are the runs of the same source with other seeds. */
export function facts(run, repeats) {
  const { attempts, warnings, environment } = run;
  const { gpu_name: gpu, host, torch_version: torch, driver_version: driver, python_version: python } = environment;
  const versions = [`torch ${torch}`, driver && `driver ${driver}`, python && `Python ${python}`].filter(Boolean);
  return h("dl.facts",
    attempts.length > 0 && row(attempts.length > 1 ? "Attempts" : "Attempt", h("ol.attempts", attempts.map(attempt))),
    warnings.length > 0 && row("Warnings", h("ul", warnings.map((warning) => h("li.warning", prose(warning))))),
    row("Category", plain(run.category)),
    row("Parent", run.parent_id ? link(run.parent_id) : "none"),
    run.repeat_of && row("Repeats", link(run.repeat_of)),
    run.merged_from.length > 0 && row("Merges", run.merged_from.map((id) => [link(id), " "])),
    row("Created", time(run.created_at, { focusable: true })),
    run.finished_at && row("Decided", time(run.finished_at, { focusable: true })),
    row("Seed", [run.seed, run.priority !== 0 && muted(` · priority ${run.priority}`)]),
    repeats.length > 0 && row("Other seeds", h("ol.attempts", repeats.map(repeat))),
    gpu && row("GPU", [plain(gpu), host && muted(` on ${plain(host)}`)]),
    torch && row("Versions", plain(versions.join(", "))),
    environment.profile && row("Profile", plain(environment.profile)),
    environment.sandbox && row("Sandbox", plain(environment.sandbox)),
    run.verified_bpb && row("Verified", `the saved model measures ${bpb(run.verified_bpb)}`),
    row("Commit", code(run.commit_sha)),
    run.source_sha256 && row("Source", code(run.source_sha256, run.source_sha256)),
  );
}

function repeat({ id, seed, status, val_bpb: value }) {
  const result = status === "repeat" ? bpb(value) : status;
  return h("li", mark(status), h("span", h("a", { href: `/e/${id}`, title: id }, `seed ${seed}`), h("span.mono", ` ${result}`)));
}

function attempt({ epoch, gpu_id: gpu, claimed_at: from, ended_at: to, outcome }) {
  return h("li",
    mark(outcome ? (OUTCOMES[outcome] ?? "discard") : "running"),
    h("span",
      `${epoch} on ${plain(gpu)}: ${outcome ?? "running"}`,
      muted(to ? ` after ${duration(secondsBetween(from, to))}` : [" since ", time(from)]),
    ),
  );
}
