// The verdict as one sentence, and why it is what it is. Text only: what it is made of is escaped
// where it is shown.

import { bpb, count, delta, duration, headline } from "../lib/format.js";

/** Whether a difference in val_bpb is more than chance: one of inside, outside, unknown. */
export function significance(difference, noise) {
  if (difference === null || !noise) return "unknown";
  return Math.abs(difference) <= noise.band ? "inside" : "outside";
}

const NOISE = { inside: "inside noise", outside: "outside noise", unknown: "noise unknown" };

/** What the noise rests on, for a reader who asks. */
export function noiseNote(noise) {
  if (!noise) return "No source near this one has run twice: how much of the difference is chance is not known. Run it once more to learn it.";
  return `${noise.runs} runs of ${noise.sources === 1 ? "one source" : `${noise.sources} sources`} give a standard deviation of ${noise.sd.toFixed(6)}: ` +
    `two runs of one source differ by up to ±${noise.band.toFixed(6)} by chance (19 of 20).`;
}

/** { lead, rest, sure }: the status word, what follows it, and the word on noise where it applies. */
export function sentence(run, around) {
  const make = { keep, discard, crash, timeout, cancelled, queued, running }[run.status];
  return { lead: run.status, sure: null, ...make(run, around) };
}

function keep(run, { noise }) {
  const before = run.best_val_bpb_before;
  if (before === null) return { rest: `${bpb(run.val_bpb)} is the first result: the baseline` };
  const difference = run.val_bpb - before;
  const sure = significance(difference, noise);
  return { rest: `${bpb(run.val_bpb)} beat ${bpb(before)} (best then) by ${delta(difference)}`, sure: NOISE[sure] };
}

function discard(run, { noise, near_miss_threshold: threshold }) {
  const before = run.best_val_bpb_before;
  if (before === null) return { rest: bpb(run.val_bpb) };
  const difference = run.val_bpb - before;
  if (Number(difference.toFixed(6)) === 0) return { rest: `${bpb(run.val_bpb)} equals the best then: not better, so not kept` };
  const near = difference < threshold ? ", a near miss" : "";
  const sure = significance(difference, noise);
  return { rest: `${bpb(run.val_bpb)} missed ${bpb(before)} (best then) by ${delta(difference)}${near}`, sure: NOISE[sure] };
}

function crash(run) {
  if (run.reason === "infra_lost") return { rest: "lost to the infrastructure; it counts in no rate and no streak" };
  return { rest: headline(run.error ?? "") || "no error was reported" };
}

function timeout(run) {
  return { rest: `it did not end within its budget of ${duration(run.time_budget_seconds)} and the grace after it` };
}

function cancelled() {
  return { rest: "it counts nowhere" };
}

function queued(run) {
  const place = run.position ? `at place ${count(run.position)} of the queue` : "for its GPU";
  return { rest: `waits ${place}${run.priority ? `, priority ${run.priority}` : ""}` };
}

function running(run, around) {
  const best = around.best_now?.val_bpb ?? null;
  const goal = best === null ? "the first result becomes the baseline" : `${bpb(best)} is to be beaten`;
  const last = run.curve.at(-1);
  if (!run.attempts.length) return { rest: `trained by hand; ${goal}` };
  return { rest: last ? `${Math.round(last.percent)} %, loss ${last.loss.toFixed(4)}, provisional; ${goal}` : `starting; ${goal}` };
}
