// Which keeps are named on the chart, and where, so that no name lies on another mark.

import { delta } from "../lib/format.js";
import { plain } from "../lib/visible.js";
import { NARROW } from "./view.js";

const SHOWN = 12;
const SHOWN_NARROW = 3;
const CHARACTERS = 34;
const HEIGHT = 14;
const GAP = 8;
const DOT = 5;
const FONT = '11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

/** Seven places around a dot: [dx, dy, anchor] of the text's middle line, the preferred first. */
const PLACES = [
  [GAP, -11, "start"],
  [GAP, 0, "start"],
  [-GAP, 12, "end"],
  [GAP, 13, "start"],
  [-GAP, 0, "end"],
  [-GAP, -11, "end"],
  [0, -17, "middle"],
];

let ruler = null;

/** The width of a text on the chart, in pixels. */
export function measure(text) {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = FONT;
  return ruler.measureText(text).width;
}

/** The name of a keep: its description, cut, and its gain. */
function nameOf(keep) {
  const gain = Number.isNaN(keep.before) ? "" : ` ${delta(-keep.gain)}`;
  const text = plain(keep.text) || (gain ? "keep" : "baseline");
  return (text.length > CHARACTERS ? `${text.slice(0, CHARACTERS - 1)}…` : text) + gain;
}

/** The keeps in the order in which they may claim a place: the latest, the first, then by gain. */
function byImportance(keeps) {
  const rest = keeps.slice(0, -1).sort((a, b) => b.gain - a.gain);
  // The first has gained nothing and is what everything is measured by.
  const first = rest.findIndex((keep) => Number.isNaN(keep.before));
  if (first > 0) rest.unshift(...rest.splice(first, 1));
  return [...keeps.slice(-1), ...rest];
}

const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** The running best from one keep to the next: along, then down. */
const stairs = (from, to) => [
  { left: from.x, right: to.x, top: from.y - 1, bottom: from.y + 1 },
  { left: to.x - 1, right: to.x + 1, top: from.y, bottom: to.y },
];

/**
 * Names for as many of `keeps` as fit: [{ text, x, y, anchor }]. Names keep clear of each other, of
 * `points`, which are the keeps in view, and of the running best between them.
 */
export function placeNames(keeps, points, { area, width }) {
  const taken = [
    ...points.map(({ x, y }) => ({ left: x - DOT, right: x + DOT, top: y - DOT, bottom: y + DOT })),
    ...points.slice(1).flatMap((to, i) => stairs(points[i], to)),
  ];
  const most = width < NARROW ? SHOWN_NARROW : SHOWN;
  const placed = [];
  for (const keep of byImportance(keeps)) {
    if (placed.length === most) break;
    const { x, y } = keep;
    if (x < area.left || x > area.right || y < area.top || y > area.bottom) continue;
    const text = nameOf(keep);
    const length = measure(text) + 2;
    for (const [dx, dy, anchor] of PLACES) {
      const left = x + dx - { start: 0, middle: length / 2, end: length }[anchor];
      const box = { left, right: left + length, top: y + dy - HEIGHT / 2, bottom: y + dy + HEIGHT / 2 };
      if (box.left < area.left || box.right > area.right || box.top < area.top || box.bottom > area.bottom) continue;
      if (taken.some((other) => overlaps(box, other))) continue;
      taken.push(box);
      placed.push({ text, x: x + dx, y: y + dy, anchor });
      break;
    }
  }
  return placed;
}
