// The verdict as one sentence with its reason, as plain text: who shows it makes it visible().

import { bpb, count, delta, duration, headline } from "../lib/format.js";
import { numberOf } from "../lib/numbers.js";

/** A difference in val_bpb against chance: "inside" or "outside" noise, or "unknown". */
function significance(difference, noise) {
  if (!noise) return "unknown";
  return Math.abs(difference) <= noise.band ? "inside" : "outside";
}

/** What the noise rests on, for a reader who asks. */
export function noiseNote(noise) {
  if (!noise) {
    return "No source near this one has run twice: how much of the difference is chance is not known. " +
      "Run it once more to learn it.";
  }
  const sources = noise.sources === 1 ? "one source" : `${noise.sources} sources`;
  return `${noise.runs} runs of ${sources} give a standard deviation of ${noise.sd.toFixed(6)}: ` +
    `two runs of one source differ by up to ±${noise.band.toFixed(6)} by chance (19 of 20).`;
}

/**
 * { lead, rest, sure, block }: the status word, what follows it, whether the difference is inside or
 * outside noise (null where there is none), and lines that belong below it, such as a merge conflict.
 */
export function sentence(run, comparison) {
  const why = (run.verdict ?? run.so_far)?.why;
  const found = why ? raced(why) : SENTENCES[run.status](run, comparison);
  const parts = typeof found === "string" ? { rest: found } : found;
  return { lead: run.status, sure: null, block: "", ...parts };
}

/** The keep rule `race` says itself why, noise included. */
function raced(why) {
  const [rest, ...lines] = why.split("\n");
  return { rest, block: lines.join("\n") };
}

const SENTENCES = {
  keep(run, { noise }) {
    const [value, before] = [run.val_bpb, run.best_val_bpb_before];
    if (before === null) return `${bpb(value)} is the first result: the baseline`;
    const rest = `${bpb(value)} beat ${bpb(before)} (best then) by ${delta(value - before)}`;
    return { rest, sure: significance(value - before, noise) };
  },

  discard(run, { noise, near_miss_threshold: threshold }) {
    const [value, before] = [run.val_bpb, run.best_val_bpb_before];
    if (before === null) return bpb(value);
    const difference = value - before;
    if (Number(difference.toFixed(6)) === 0) return `${bpb(value)} equals the best then: not better, so not kept`;
    const near = difference < threshold ? ", a near miss" : "";
    const rest = `${bpb(value)} missed ${bpb(before)} (best then) by ${delta(difference)}${near}`;
    return { rest, sure: significance(difference, noise) };
  },

  crash(run) {
    if (run.reason === "infra_lost") return "lost to the infrastructure; it counts in no rate and no streak";
    return headline(run.error ?? "") || "no error was reported";
  },

  timeout: (run) => `it did not end within its budget of ${duration(run.time_budget_seconds)} and the grace after it`,

  cancelled: () => "it counts nowhere",

  repeat: (run) => `${bpb(run.val_bpb)} with seed ${run.seed}: evidence for the verdict on ` +
    `${numberOf(run.repeat_of) || run.repeat_of}`,

  queued(run) {
    const place = run.position ? `at place ${count(run.position)} of the queue` : "for its GPU";
    const blocked = run.blocked ? `: ${run.blocked}` : "";
    return `waits ${place}${run.priority ? `, priority ${run.priority}` : ""}${blocked}`;
  },

  running(run, { best_now: best }) {
    const result = best?.val_bpb ?? null;
    const goal = result === null ? "the first result becomes the baseline" : `${bpb(result)} is to be beaten`;
    if (!run.attempts.length) return `trained by hand; ${goal}`;
    const last = run.curve.at(-1);
    if (!last) return `starting; ${goal}`;
    return `${Math.round(last.percent)} %, loss ${last.loss.toFixed(4)}, provisional; ${goal}`;
  },
};
