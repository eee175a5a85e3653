// One card a GPU: what it trains and how far it is, and how it fares.

import { h, svg } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { duration, number } from "../lib/format.js";
import { empty } from "../lib/states.js";
import { mark } from "../lib/status.js";
import { plain } from "../lib/visible.js";
import { drainGpu, undrainGpu } from "../actions/steer.js";

const SHAPE = { training: "running", idle: "discard", offline: "crash", quarantined: "crash", unfit: "cancelled", draining: "cancelled" };
const HOT_C = 85;

export function gpuGrid({ changed }) {
  const grid = h("ul", { class: "gpus" });
  const none = h("div", { hidden: true }, empty("No GPU", "uv run autoresearch worker --gpu all", "`autoresearch up` starts one worker for each GPU of this machine."));
  const summary = h("span", { class: "muted" });
  const element = h("section", { class: "panel" }, h("header", {}, h("h2", {}, "GPUs"), summary), none, grid);
  return {
    element,
    update({ gpus }) {
      none.hidden = gpus.length > 0;
      summary.textContent = Object.entries(Object.groupBy(gpus, ({ status }) => status))
        .map(([status, of]) => `${of.length} ${status}`)
        .join(" · ");
      keyed(grid, gpus.map(shown), ({ id }) => id, (gpu) => card(gpu, changed));
    },
  };
}

/** What of a GPU is shown, rounded as it is shown: a card is drawn anew only when that differs. */
function shown(gpu) {
  const beat = gpu.heartbeat_age_seconds;
  return {
    ...gpu,
    heartbeat_age_seconds: beat < 15 ? 0 : Math.round(beat / 5) * 5,
    health_age_seconds: null,
    last_heartbeat: null,
  };
}

function card(gpu, changed) {
  return h(
    "li",
    { class: `gpu ${gpu.status}`, id: `gpu-${gpu.id}` },
    h(
      "div",
      { class: "gpu-head" },
      h("span", { class: "status" }, mark(SHAPE[gpu.status] ?? "discard"), h("b", { class: "cut", title: gpu.id }, plain(gpu.name))),
      h("span", { class: "muted cut", title: plain(gpu.host ?? "") }, gpu.status),
      drainButton(gpu, changed),
    ),
    h("div", { class: "gpu-run" }, gpu.run ? running(gpu.run) : h("p", { class: "muted cut" }, resting(gpu))),
    h("div", { class: "gpu-health" }, health(gpu)),
  );
}

function drainButton(gpu, changed) {
  const draining = Boolean(gpu.drain);
  return h(
    "button",
    {
      type: "button", class: "plain small", data: { focus: "drain" },
      "aria-label": `${draining ? "Undrain" : "Drain"} ${gpu.id}`,
      on: { click: () => (draining ? undrainGpu(gpu) : drainGpu(gpu)).then((done) => done && changed()) },
    },
    draining ? "Undrain" : "Drain",
  );
}

function resting(gpu) {
  if (gpu.problem) return plain(gpu.problem);
  if (gpu.drain) return `drained by ${plain(gpu.drain.by)}: ${plain(gpu.drain.reason)}`;
  return { idle: "waits for a run", offline: "nothing heard", draining: "takes no more runs" }[gpu.status] ?? "";
}

function running(run) {
  const percent = run.percent ?? 0;
  const text = run.percent === null ? "starting" : `${Math.round(percent)} %`;
  return [
    h("a", { href: `/e/${run.experiment_id}`, class: "cut", title: plain(run.hypothesis), data: { focus: "run" } }, plain(run.hypothesis) || run.experiment_id),
    h(
      "div",
      { class: "progress-line" },
      bar(percent, `Progress of the run: ${text}`, "progress"),
      h("span", { class: "mono" }, text),
      h("span", { class: "mono muted" }, run.loss === null ? "" : `loss ${run.loss.toFixed(3)}`),
    ),
  ];
}

function bar(percent, label, kind) {
  const share = Math.min(100, Math.max(0, percent));
  return svg(
    "svg",
    { class: `bar ${kind}`, viewBox: "0 0 100 4", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "track", width: 100, height: 4 }),
    svg("rect", { class: "fill", width: share, height: 4 }),
  );
}

function health(gpu) {
  const { temperature_c: heat, memory_used_mb: used, memory_total_mb: total, utilization_percent: load } = gpu.health;
  const memory = total || gpu.vram_mb;
  const silent = gpu.heartbeat_age_seconds;
  return [
    fact("load", load == null ? null : `${Math.round(load)} %`),
    fact("mem", used == null ? null : `${number(used / 1024, 1)}/${number(memory / 1024, 0)} GB`),
    fact("temp", heat == null ? null : `${Math.round(heat)} °C`, heat >= HOT_C ? "hot" : ""),
    h("span", { class: silent >= 15 ? "silent" : "muted", title: "since the last heartbeat" }, silent >= 15 ? `silent ${duration(silent)}` : "♥ now"),
  ];
}

function fact(label, value, kind = "") {
  return value === null ? null : h("span", { class: kind }, h("span", { class: "muted" }, `${label} `), h("span", { class: "mono" }, value));
}
