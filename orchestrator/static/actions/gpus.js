// GPUs: which take runs, and who said that one should not.

import { h, setText } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { plain } from "../lib/visible.js";
import { action, panel } from "./parts.js";
import { drainGpu, undrainGpu } from "./steer.js";
import { why } from "./tag.js";

export function gpuPanel(changed) {
  const { element, body, note } = panel("GPUs");
  const list = h("ul", { class: "action-rows gpu-rows" });
  const none = h("p", { class: "state muted" }, "No GPU has registered.");
  body.append(list, none);
  return {
    element,
    update(workers) {
      none.hidden = workers.length > 0;
      const draining = workers.filter(({ drain }) => drain).length;
      setText(note, draining ? `${draining} drained` : "");
      const items = workers.map(({ id, gpu_name, status, drain, current_experiment_id }) => ({ id, gpu_name, status, drain, current_experiment_id }));
      keyed(list, items, ({ id }) => id, (gpu) => row(gpu, changed));
    },
  };
}

function row(gpu, changed) {
  const state = gpu.drain ? ["drained ", why(gpu.drain)] : gpu.status;
  return h(
    "li",
    {},
    h("div", {}, h("b", {}, gpu.id), h("span", { class: "muted" }, ` ${plain(gpu.gpu_name)}`), h("p", { class: "muted" }, state)),
    h(
      "div",
      { class: "buttons" },
      gpu.drain
        ? action("Undrain", () => undrainGpu(gpu), changed, { name: "drain", describe: `Undrain ${gpu.id}` })
        : action("Drain", () => drainGpu(gpu), changed, { name: "drain", describe: `Drain ${gpu.id}` }),
    ),
  );
}
