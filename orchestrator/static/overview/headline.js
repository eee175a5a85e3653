// The strip of figures: what the time since a moment brought, over all tags.

import { h, replace } from "../lib/dom.js";
import {
  NONE, bpb, clockTime, count, delta, deltaClass, duration, iso, number, percent, secondsBetween,
} from "../lib/format.js";
import { stripCell } from "../lib/parts.js";
import { prose } from "../lib/visible.js";

const sum = (tags, of) => tags.reduce((total, tag) => total + of(tag), 0);
const latestFirst = (of) => (a, b) => (of(b) ?? "").localeCompare(of(a) ?? "");

/** Local clock time, with the day when it was not today. */
function shortTime(at) {
  const moment = new Date(at);
  const isToday = new Date().toDateString() === moment.toDateString();
  const day = moment.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" });
  return isToday ? clockTime(at) : `${day} ${clockTime(at)}`;
}

export function headline(strip, { now, since, tags, gpus, idle_gpu_hours: idle }) {
  const from = shortTime(since);
  const moment = h("time", { datetime: iso(since), title: iso(since) }, from);
  const finished = sum(tags, (tag) => tag.since.finished);
  const crashed = sum(tags, (tag) => tag.since.crash);
  replace(strip,
    best(tags, from),
    stripCell("Runs", count(finished), ["since ", moment, ` (${duration(secondsBetween(since, now))})`]),
    keeps(tags),
    stripCell("Crashed", percent(finished ? crashed / finished : 0), `${count(crashed)} of ${count(finished)}`),
    pool(gpus, tags, idle),
  );
}

/** The tag that gained most since then; where none gained, the one that ran last. */
function best(tags, from) {
  const measured = tags.filter((tag) => tag.best_val_bpb !== null);
  const gained = measured.filter((tag) => tag.since.gain < 0).sort((a, b) => a.since.gain - b.since.gain);
  const tag = gained[0] ?? measured.sort(latestFirst((one) => one.last_finished_at))[0];
  if (!tag) return stripCell("Best val_bpb", NONE, "no result yet", { size: "big" });
  const { gain } = tag.since;
  const sinceThen = gain !== null && Number(gain.toFixed(6)) !== 0
    ? [h("span", { class: `mono ${deltaClass(gain)}` }, delta(gain)), ` since ${from}`]
    : `no gain since ${from}`;
  const overall = tag.gain !== null && [" · ", h("span.mono", delta(tag.gain, { same: "±0" })), " vs baseline"];
  const label = ["Best val_bpb of ", h("a", { href: `/t/${encodeURIComponent(tag.name)}` }, tag.name)];
  if (tag.best_is_estimate) label.push(", an estimate");
  return stripCell(label, bpb(tag.best_val_bpb), [sinceThen, overall], { kind: "wide", size: "big" });
}

function keeps(tags) {
  const kept = sum(tags, (tag) => tag.since.keep);
  const last = tags.map((tag) => tag.last_keep).filter(Boolean).sort(latestFirst((keep) => keep.at))[0];
  const link = last && h("a", { href: `/e/${last.experiment_id}` }, last.description ? prose(last.description) : "keep");
  return stripCell("Keeps", count(kept), link ? ["last: ", link] : "none yet");
}

function pool(gpus, tags, idle) {
  const training = gpus.filter(({ status }) => status === "training").length;
  const queued = sum(tags, (tag) => tag.counts.queued);
  return stripCell("GPUs training", gpus.length ? `${training}/${gpus.length}` : "none", [
    `${count(queued)} queued`,
    gpus.length > 0 && ` · ${number(idle, idle < 10 ? 1 : 0)} idle GPU-hours`,
  ]);
}
