"""Makes text that a training printed, or an agent wrote, harmless to show. Pure.

Such text may hold terminal commands, characters that hide or reorder others, halves of characters,
and lines of any length. `line` and `block` leave plain visible text of a bounded size. What they
cannot do is judge what the words say: a line that reads like an instruction or like a result stays
one, so who shows it says whose words it is (the digest's `untrusted`), and nobody acts on it.

Both are idempotent, and what they answer can be encoded as UTF-8 whatever came in.
"""

import re
import unicodedata

MARK = "…"  # stands where something was cut off

# ECMA-48: control sequences; strings (title, hyperlink, device control) with or without their
# end; other escapes. In 7-bit form and as C1 characters.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_END = re.compile(r"\r\n|[\r\n\v\f\x85\u2028\u2029]")
_SPACES = re.compile(r"\s+")

# What Unicode calls default ignorable beyond the categories below: shown as nothing at all, such
# as fillers and variation selectors. Braille's empty pattern is no better.
_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
_TAB = "    "


class _Harmless(dict[int, str]):
    """A table for `str.translate` that decides about each character when it first comes."""

    def __missing__(self, code: int) -> str:
        self[code] = _replacement(code)
        return self[code]


def _replacement(code: int) -> str:
    char = chr(code)
    if char == "\n":
        return char
    if char == "\t":
        return _TAB
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    # C*: control, format (bidirectional and zero-width ones), surrogate, private use, unassigned.
    return "" if category[0] == "C" or code in _INVISIBLE else char


_HARMLESS = _Harmless()


def line(value: str | bytes, limit: int) -> str:
    """`value` on one line: at most `limit` bytes as JSON spells it, cut at its end."""
    text = _SPACES.sub(" ", _cleaned(_window(value, limit, end=False))).strip()
    return _cut(text, limit)


def block(value: str | bytes, limit: int, *, end: bool = False) -> str:
    """`value` with its lines: at most `limit` bytes as JSON spells it.

    With `end`, what is kept of a text that is too long is its end: last words count most.
    """
    kept = (one.rstrip() for one in _cleaned(_window(value, limit, end=end)).split("\n"))
    text = "\n".join(kept).strip("\n")
    if not end:
        return _cut(text, limit)
    return _cut(text[::-1], limit)[::-1]


def visible(text: str) -> str:
    """Source code or a diff without what cannot be seen: whole, with tabs and the ends of lines."""
    return "\t".join(part.translate(_HARMLESS) for part in text.split("\t"))


def size(text: str) -> int:
    """Bytes of clean `text` in JSON in UTF-8, without its quotation marks."""
    return len(text.encode()) + sum(text.count(char) for char in '"\\\n')


def _window(value: str | bytes, limit: int, *, end: bool) -> str:
    """As much of `value` as is worth looking at, so that a line of 50 MB costs no more."""
    width = 16 * limit + 1024
    part = value[-width:] if end else value[:width]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _cleaned(text: str) -> str:
    return _LINE_END.sub("\n", _ESCAPE.sub("", text)).translate(_HARMLESS)


def _cut(text: str, limit: int) -> str:
    if size(text) <= limit:
        return text
    room, length = limit - len(MARK.encode()), 0
    for index, char in enumerate(text):
        length += size(char)
        if length > room:
            return text[:index].rstrip() + MARK if room >= 0 else ""
    return text
