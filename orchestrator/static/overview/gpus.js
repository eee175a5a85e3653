// One card for each GPU: what it trains, how far it is, and its health.

import { h, keyed } from "../lib/dom.js";
import { duration, number } from "../lib/format.js";
import { mark, panel } from "../lib/parts.js";
import { empty } from "../lib/states.js";
import { plain, prose } from "../lib/visible.js";
import { drainButton } from "../actions/steer.js";

const SHAPES = {
  training: "running", idle: "discard", offline: "crash", quarantined: "crash",
  unfit: "cancelled", draining: "cancelled",
};
const RESTING = { idle: "waits for a run", offline: "nothing heard", draining: "takes no more runs" };
const HOT_C = 85;
const SILENT_S = 15;

export function gpuGrid(changed) {
  const grid = h("ul.gpus");
  const note = "`autoresearch up` starts one worker for each GPU of this machine.";
  const none = h("div", { hidden: true }, empty("No GPU", "uv run autoresearch worker --gpu all", note));
  const summary = h("span.muted");
  return {
    element: panel("GPUs", { note: summary }, none, grid),
    update(gpus) {
      none.hidden = gpus.length > 0;
      const groups = Object.entries(Object.groupBy(gpus, ({ status }) => status));
      summary.textContent = groups.map(([status, some]) => `${some.length} ${status}`).join(" · ");
      keyed(grid, gpus.map(rounded), ({ id }) => id, (gpu) => card(gpu, changed));
    },
  };
}

/** A GPU with its ages as they are shown: a card is rendered again only when what it shows differs. */
function rounded(gpu) {
  const age = gpu.heartbeat_age_seconds;
  const shownAge = age < SILENT_S ? 0 : Math.round(age / 5) * 5;
  return { ...gpu, heartbeat_age_seconds: shownAge, health_age_seconds: null, last_heartbeat: null };
}

function card(gpu, changed) {
  const name = h("b.cut", { title: gpu.id }, plain(gpu.name));
  return h(`li.gpu.${gpu.status}`, { id: `gpu-${gpu.id}` },
    h("div.gpu-head",
      h("span.status", mark(SHAPES[gpu.status] ?? "discard"), name),
      h("span.muted.cut", { title: plain(gpu.host ?? "") }, gpu.status),
      drainButton(gpu, changed, "plain"),
    ),
    h("div.gpu-run", gpu.run ? progress(gpu.run) : h("p.muted.clamp", resting(gpu))),
    h("div.gpu-health", health(gpu)),
  );
}

function resting(gpu) {
  if (gpu.problem) return prose(gpu.problem);
  if (gpu.drain) return prose(`drained by ${gpu.drain.by}: ${gpu.drain.reason}`);
  return gpu.passed_over ? prose(gpu.passed_over) : RESTING[gpu.status] ?? "";
}

function progress({ experiment_id: id, hypothesis, percent, loss }) {
  const text = percent === null ? "starting" : `${Math.round(percent)} %`;
  const name = plain(hypothesis);
  return [
    h("a.clamp", { href: `/e/${id}`, title: name, data: { focus: "run" } }, hypothesis ? prose(hypothesis) : id),
    h("div.progress-line",
      h("progress", { max: 100, value: percent ?? 0, "aria-label": `Progress of the run: ${text}` }),
      h("span.mono", text),
      h("span.mono.muted", loss === null ? "" : `loss ${loss.toFixed(3)}`),
    ),
  ];
}

function health(gpu) {
  const { temperature_c: heat, memory_used_mb: used, memory_total_mb: total, utilization_percent: load } = gpu.health;
  const age = gpu.heartbeat_age_seconds;
  const isSilent = age >= SILENT_S;
  return [
    load != null && fact("load", `${Math.round(load)} %`),
    used != null && fact("mem", `${number(used / 1024, 1)}/${number((total || gpu.vram_mb) / 1024, 0)} GB`),
    heat != null && fact("temp", `${Math.round(heat)} °C`, heat >= HOT_C ? "hot" : null),
    h("span", { class: isSilent ? "silent" : "muted", title: "since the last heartbeat" },
      isSilent ? `silent ${duration(age)}` : "♥ now",
    ),
  ];
}

const fact = (label, value, kind) => h("span", { class: kind }, h("span.muted", `${label} `), h("span.mono", value));
