// The first line: what the hours since then came to, over all tags.

import { h, replace } from "../lib/dom.js";
import { bpb, count, delta, deltaClass, duration, iso, milliseconds, number, percent } from "../lib/format.js";

const sum = (tags, of) => tags.reduce((total, tag) => total + of(tag), 0);

/** Local clock time, with the day when it was not today. */
function clock(at) {
  const moment = new Date(at);
  const today = new Date().toDateString() === moment.toDateString();
  const time = moment.toTimeString().slice(0, 5);
  return today ? time : `${moment.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" })} ${time}`;
}

export function headline(strip, { now, since, tags, gpus, idle_gpu_hours: idle }) {
  const from = clock(since);
  const length = duration((milliseconds(now) - milliseconds(since)) / 1000);
  replace(
    strip,
    best(tags, from),
    cell("Runs", count(sum(tags, (tag) => tag.since.finished)), [
      `since `,
      h("time", { datetime: iso(since), title: iso(since) }, from),
      ` (${length})`,
    ]),
    keeps(tags),
    crashes(tags),
    pool(gpus, tags, idle),
  );
}

function cell(label, value, note, unit) {
  return h(
    "div",
    {},
    h("dt", {}, label),
    h("dd", {}, h("div", { class: "value" }, value, unit && h("span", { class: "unit" }, unit)), h("div", { class: "note cut" }, note)),
  );
}

/** Of all tags the one that gained most since then; without a gain the one that ran last. */
function best(tags, from) {
  const measured = tags.filter((tag) => tag.best_val_bpb !== null);
  const tag = measured.reduce((most, one) => ((one.since.gain ?? 0) < (most?.since.gain ?? 0) ? one : most), null) ??
    [...measured].sort((a, b) => (b.last_finished_at ?? "").localeCompare(a.last_finished_at ?? ""))[0];
  if (!tag) return h("div", {}, h("dt", {}, "Best val_bpb"), h("dd", {}, h("div", { class: "big" }, "—"), h("div", { class: "note" }, "no result yet")));
  const gained = tag.since.gain !== null && Number(tag.since.gain.toFixed(6)) !== 0;
  return h(
    "div",
    { class: "wide" },
    h("dt", {}, "Best val_bpb of ", h("a", { href: `/t/${encodeURIComponent(tag.name)}` }, tag.name)),
    h(
      "dd",
      {},
      h("div", { class: "big" }, bpb(tag.best_val_bpb)),
      h(
        "div",
        { class: "note cut" },
        gained
          ? [h("span", { class: `mono ${deltaClass(tag.since.gain)}` }, delta(tag.since.gain)), ` since ${from}`]
          : `no gain since ${from}`,
        tag.gain !== null && [" · ", h("span", { class: "mono" }, delta(tag.gain, { same: "±0" })), " vs baseline"],
      ),
    ),
  );
}

function keeps(tags) {
  const kept = sum(tags, (tag) => tag.since.keep);
  const latest = tags
    .filter((tag) => tag.last_keep)
    .sort((a, b) => b.last_keep.at.localeCompare(a.last_keep.at))[0];
  return cell("Keeps", count(kept), latest ? ["last: ", h("a", { href: `/e/${latest.last_keep.experiment_id}` }, latest.last_keep.description || "keep")] : "none yet");
}

function crashes(tags) {
  const crashed = sum(tags, (tag) => tag.since.crash);
  const finished = sum(tags, (tag) => tag.since.finished);
  return cell("Crashed", percent(finished ? crashed / finished : 0), `${count(crashed)} of ${count(finished)}`);
}

function pool(gpus, tags, idle) {
  const training = gpus.filter(({ status }) => status === "training").length;
  const queued = sum(tags, (tag) => tag.counts.queued);
  return cell("GPUs training", gpus.length ? `${training}/${gpus.length}` : "none", [
    `${count(queued)} queued`,
    gpus.length > 0 && ` · ${number(idle, idle < 10 ? 1 : 0)} idle GPU-hours`,
  ]);
}
