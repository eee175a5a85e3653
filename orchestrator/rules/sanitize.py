"""Makes text that a training printed, or an agent wrote, safe to show. Pure.

- Such text may hold terminal commands, characters that hide or reorder others, halves of
  characters, and lines of any length. `line` and `block` return visible text of a bounded size.
- They are idempotent, and their result can always be encoded as UTF-8.
- They do not judge words. A line that reads like an instruction or a result stays one, so whatever
  shows it has to say whose text it is (the digest's `untrusted`).
"""

import re
import unicodedata

MARK = "…"  # in place of what was cut off

# ECMA-48, as escape sequences and as C1 characters: control sequences; strings (title, hyperlink,
# device control) with or without their end; other escapes.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_END = re.compile(r"\r\n|[\r\n\v\f\x85\u2028\u2029]")
_SPACES = re.compile(r"\s+")

# Shown as nothing at all, and in none of the categories that `_replacement` drops: Unicode's other
# default ignorables (fillers, variation selectors), and the empty Braille pattern.
_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)


class _SafeCharacters(dict[int, str]):
    """A table for `str.translate` that is filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = _replacement(code)
        return self[code]


def _replacement(code: int) -> str:
    char = chr(code)
    if char == "\n":
        return char
    if char == "\t":
        return "    "
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    # C*: control, format (bidirectional, zero-width), surrogate, private use, unassigned.
    return "" if category[0] == "C" or code in _INVISIBLE else char


_SAFE = _SafeCharacters()


def line(value: str | bytes, limit: int) -> str:
    """`value` on one line: at most `limit` bytes as JSON spells it, cut at its end."""
    text = _SPACES.sub(" ", _cleaned(_window(value, limit, end=False))).strip()
    return _cut(text, limit)


def block(value: str | bytes, limit: int, *, end: bool = False) -> str:
    """`value` with its lines: at most `limit` bytes as JSON spells it, cut at its end, or with
    `end` at its beginning."""
    kept = (one.rstrip() for one in _cleaned(_window(value, limit, end=end)).split("\n"))
    text = "\n".join(kept).strip("\n")
    if not end:
        return _cut(text, limit)
    return _cut(text[::-1], limit)[::-1]


def visible(text: str) -> str:
    """A whole source or diff, with tabs and line ends, without characters that cannot be seen."""
    return "\t".join(part.translate(_SAFE) for part in text.split("\t"))


def size(text: str) -> int:
    """Bytes of clean `text` in JSON in UTF-8, without its quotation marks."""
    return len(text.encode()) + sum(text.count(char) for char in '"\\\n')


def _window(value: str | bytes, limit: int, *, end: bool) -> str:
    """The part of `value` that can matter: a line of 50 MB costs no more than a short one."""
    width = 16 * limit + 1024
    part = value[-width:] if end else value[:width]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _cleaned(text: str) -> str:
    return _LINE_END.sub("\n", _ESCAPE.sub("", text)).translate(_SAFE)


def _cut(text: str, limit: int) -> str:
    if size(text) <= limit:
        return text
    space, length = limit - len(MARK.encode()), 0
    for index, char in enumerate(text):
        length += size(char)
        if length > space:
            return text[:index].rstrip() + MARK if space >= 0 else ""
    return text
