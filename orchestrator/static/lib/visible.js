// Text of a run, made safe to show: a character that would control a terminal, turn the reading
// direction or be invisible shows as a symbol or as its code point. The result is plain text and
// <span>s, never markup.

import { h } from "./dom.js";

// C0 and C1 controls, soft hyphen, zero-width and bidirectional marks, line and paragraph separators,
// byte-order mark, tags and other invisible fillers. Tab stays a tab.
const HIDDEN =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** How one hidden character is shown: ␛ for escape, ⟨U+202E⟩ for a turned direction. */
function symbol(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** The parts of one line: strings, and a marked span for each hidden character. */
export function visible(line) {
  const parts = [];
  let from = 0;
  for (const match of line.matchAll(HIDDEN)) {
    if (match.index > from) parts.push(line.slice(from, match.index));
    parts.push(h("span.hidden-char", symbol(match[0])));
    from = match.index + match[0].length;
  }
  if (from < line.length) parts.push(line.slice(from));
  return parts;
}

/** The same for prose: what stands in `backticks`, as agents and messages write names, is code. */
export const prose = (text) =>
  String(text ?? "").split(/`([^`]+)`/).map((part, index) => (index % 2 ? h("code", visible(part)) : visible(part)));

/** The same as plain text, for titles and labels. */
export const plain = (text) => String(text ?? "").replace(HIDDEN, symbol);

/** A line of about `limit` characters, with a note of what was left out of its middle. */
export function shortened(line, limit) {
  if (line.length <= limit) return line;
  const half = Math.floor(limit / 2);
  const left = line.length - 2 * half;
  return `${line.slice(0, half)} … ${left.toLocaleString("en-US")} characters … ${line.slice(-half)}`;
}
