// GPUs: which take runs, and who drained one.

import { h } from "../lib/dom.js";
import { plain } from "../lib/visible.js";
import { drainButton } from "./buttons.js";
import { actionRow, listPanel, who } from "./parts.js";

export function gpuPanel(changed) {
  const { element, show } = listPanel("GPUs", {
    kind: ".gpu-rows",
    nothing: "No GPU has registered.",
    key: ({ id }) => id,
    render: (gpu) => actionRow(
      [
        h("b", gpu.id),
        h("span.muted", ` ${plain(gpu.gpu_name)}`),
        h("p.muted", gpu.drain ? ["drained ", who(gpu.drain)] : gpu.status),
      ],
      drainButton(gpu, changed),
    ),
  });
  return {
    element,
    update(workers) {
      const drained = workers.filter(({ drain }) => drain).length;
      // Without their heartbeats, which would render each row again.
      const items = workers.map(({ id, gpu_name, status, drain, current_experiment_id }) =>
        ({ id, gpu_name, status, drain, current_experiment_id }));
      show(items, drained ? `${drained} drained` : "");
    },
  };
}
