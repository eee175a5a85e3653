// Which keeps are named on the chart, and where, so that no name lies on another.

const SHOWN = 12;
const SHOWN_NARROW = 3;
const NARROW = 600;
const CHARACTERS = 34;
const HEIGHT = 14;
const GAP = 8;

/** The latest keep, then those that gained most, in the order in which they may claim a place. */
export function candidates(keeps, width) {
  const most = width < NARROW ? SHOWN_NARROW : SHOWN;
  const latest = keeps.at(-1);
  const rest = keeps.filter((keep) => keep !== latest).sort((a, b) => b.gain - a.gain);
  // The first has gained nothing and is what everything is measured by.
  const first = rest.findIndex((keep) => Number.isNaN(keep.before));
  if (first > 0) rest.unshift(...rest.splice(first, 1));
  return { ordered: latest ? [latest, ...rest] : [], most };
}

export const shortened = (text) => (text.length > CHARACTERS ? `${text.slice(0, CHARACTERS - 1)}…` : text);

/** Seven places around a dot: [dx, dy, anchor] of the text's middle line. */
const PLACES = [
  [GAP, -11, "start"],
  [GAP, 0, "start"],
  [-GAP, 12, "end"],
  [GAP, 13, "start"],
  [-GAP, 0, "end"],
  [-GAP, -11, "end"],
  [0, -17, "middle"],
];

function box(x, y, [dx, dy, anchor], width) {
  const left = x + dx - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0);
  return { left, right: left + width, top: y + dy - HEIGHT / 2, bottom: y + dy + HEIGHT / 2 };
}

const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** The running best from one keep to the next: along, then down. */
const stairs = (from, to) => [
  { left: from.x, right: to.x, top: from.y - 1, bottom: from.y + 1 },
  { left: to.x - 1, right: to.x + 1, top: from.y, bottom: to.y },
];

/**
 * Places for as many candidates as fit: [{ keep, x, y, anchor }]. `points` are all keeps as { x, y },
 * which names keep clear of, as they do of the running best between them.
 */
export function place(ordered, most, { area, points, at, text, measure }) {
  const dots = points.map(({ x, y }) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
  const line = points.slice(1).flatMap((to, i) => stairs(points[i], to));
  const taken = [];
  const placed = [];
  for (const keep of ordered) {
    if (placed.length === most) break;
    const { x, y } = at(keep);
    if (x < area.left || x > area.right || y < area.top || y > area.bottom) continue;
    const words = text(keep);
    const width = measure(words) + 2;
    for (const spot of PLACES) {
      const wanted = box(x, y, spot, width);
      if (wanted.left < area.left || wanted.right > area.right) continue;
      if (wanted.top < area.top || wanted.bottom > area.bottom) continue;
      if (taken.some((other) => meet(wanted, other)) || dots.some((dot) => meet(wanted, dot))) continue;
      if (line.some((piece) => meet(wanted, piece))) continue;
      taken.push(wanted);
      placed.push({ keep, words, x: x + spot[0], y: y + spot[1], anchor: spot[2] });
      break;
    }
  }
  return placed;
}
