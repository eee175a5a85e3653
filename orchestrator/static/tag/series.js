// A tag's history in columns, filled from /api/report/series and added to by cursor. Rows are in the
// order of verdicts; a run's number is its row + 1.

export const KEEP = 0, NEAR = 1, DISCARD = 2, CRASH = 3, TIMEOUT = 4, LOST = 5;
const CODES = { k: KEEP, n: NEAR, d: DISCARD, c: CRASH, t: TIMEOUT, l: LOST };
export const WORDS = ["keep", "discard", "discard", "crash", "timeout", "crash"];
export const LANES = ["explore", "exploit", "combine", "ablation"];

/** True if a run has no result. */
export const failed = (code) => code >= CRASH;

export class Series {
  #estimates; // what `race` believed of a keep when it was kept, by row
  #last; // the val_bpb of the last keep

  constructor(tag) {
    this.tag = tag;
    this.#clear();
  }

  #clear() {
    this.created = []; // µs
    this.finished = []; // ms
    this.bpb = []; // NaN without a result
    this.lowest = Infinity; // the least of them; under `race` a discard may have read it
    this.before = []; // the best before this run, NaN before the first
    this.status = []; // a code
    this.category = []; // an index into `categories`
    this.cursor = null;
    this.categories = [];
    this.choices = [];
    this.strategy = null;
    this.threshold = 0.002;
    this.counts = new Array(6).fill(0);
    this.keeps = []; // { row, bpb, before, gain, text, provisional }
    this.texts = new Map();
    this.keepRule = "greedy";
    this.earlyStop = null; // what it has done, in words; null for a tag without
    this.race = null; // what the keep rule `race` believes now
    this.#estimates = new Map();
    this.#last = NaN;
  }

  get length() {
    return this.status.length;
  }

  /** Add an answer, or start over with it; returns true if rows came. */
  apply(answer) {
    const restarts = answer.first !== this.length || this.cursor === null;
    if (restarts) this.#clear();
    const had = this.length;
    this.categories = answer.categories;
    this.threshold = answer.near_miss_threshold;
    this.strategy = answer.strategy;
    this.keepRule = answer.keep_rule;
    this.earlyStop = answer.early_stop;
    this.race = answer.race;
    for (const { n, description, estimate } of answer.keeps) {
      this.texts.set(n - 1, description);
      this.#estimates.set(n - 1, estimate);
    }
    this.choices.push(...answer.choices);
    for (const block of answer.blocks) this.#add(block);
    const provisional = new Set(this.race?.provisional);
    for (const keep of this.keeps) {
      keep.text = this.texts.get(keep.row) ?? "";
      keep.provisional = provisional.has(keep.row + 1);
    }
    this.cursor = answer.cursor;
    return restarts || this.length > had;
  }

  #add(block) {
    let created = 0;
    let finished = 0;
    for (let i = 0; i < block.status.length; i++) {
      const code = CODES[block.status[i]];
      const read = block.val_bpb[i] === null ? NaN : block.val_bpb[i] / 1e6;
      const bpb = this.#estimates.get(this.length) ?? read;
      this.created.push((created += block.created_us[i]));
      this.finished.push((finished += block.finished_ms[i]));
      this.bpb.push(bpb);
      if (bpb < this.lowest) this.lowest = bpb;
      this.before.push(this.#last);
      this.status.push(code);
      this.category.push(block.category[i]);
      this.counts[code]++;
      if (code !== KEEP) continue;
      const gain = Number.isNaN(this.#last) ? 0 : this.#last - bpb;
      this.keeps.push({ row: this.length - 1, bpb, before: this.#last, gain, text: "", provisional: false });
      this.#last = bpb;
    }
  }

  id(row) {
    return `exp-${this.created[row].toString(16).padStart(14, "0")}-${this.tag}`;
  }

  /** The row of an id among the decided ones, or -1. An id holds the moment of its creation. */
  rowOf(id) {
    return this.created.lastIndexOf(parseInt(id.slice(4, 18), 16));
  }

  categoryOf(row) {
    return this.categories[this.category[row]];
  }

  /** The best val_bpb; under `race` an estimate, which moves with each repeat. */
  get best() {
    return this.race?.best_val_bpb ?? this.#last;
  }

  /** The row of the best, or -1. Under `race` a keep whose repeats crash makes way for the one before. */
  get bestRow() {
    return this.race ? this.rowOf(this.race.best_id) : (this.lastKeep?.row ?? -1);
  }

  /** The band of chance between two seeds of one source, which `race` learns; null under `greedy`. */
  get noise() {
    return this.race && { band: this.race.band };
  }

  get baseline() {
    return this.keeps[0]?.bpb ?? NaN;
  }

  get lastKeep() {
    return this.keeps.at(-1) ?? null;
  }

  get crashes() {
    return this.counts[CRASH] + this.counts[TIMEOUT] + this.counts[LOST];
  }

  get discards() {
    return this.counts[DISCARD] + this.counts[NEAR];
  }

  /** The first row decided at or after a moment. */
  firstSince(ms) {
    const row = this.finished.findIndex((at) => at >= ms);
    return row < 0 ? this.length : row;
  }

  /** Counts of the rows from `first` on. */
  tally(first) {
    const codes = this.status.slice(first);
    const keep = codes.filter((code) => code === KEEP).length;
    return { runs: codes.length, keep, crash: codes.filter(failed).length };
  }

  /** For each category: runs, keeps, crashes, and what its keeps have gained together. */
  byCategory() {
    const found = this.categories.map((name) => ({ name, runs: 0, keep: 0, crash: 0, gain: 0 }));
    for (let row = 0; row < this.length; row++) {
      const one = found[this.category[row]];
      one.runs++;
      if (this.status[row] === KEEP) one.keep++;
      else if (failed(this.status[row])) one.crash++;
    }
    for (const keep of this.keeps) found[this.category[keep.row]].gain += keep.gain;
    return found.sort((a, b) => b.gain - a.gain || b.keep - a.keep || b.runs - a.runs);
  }

  /** How many decided runs a filter leaves: statuses as words, a category, a moment in ms. */
  matching({ statuses, category, since }) {
    const wanted = WORDS.map((word, code) =>
      !statuses.length || statuses.includes(word) || (code === NEAR && statuses.includes("near")));
    const index = category ? this.categories.indexOf(category) : null;
    let found = 0;
    for (let row = since ? this.firstSince(since) : 0; row < this.length; row++) {
      if (wanted[this.status[row]] && (index === null || this.category[row] === index)) found++;
    }
    return found;
  }
}
