"""Text from agents and runs, sanitized for a terminal. Pure.

It must not move the cursor, change colours, reverse the reading order or hide. rules/sanitize.py
removes such characters from a text for agents; here they are spelt out, so that a person sees them.
"""

import codecs
import json
import re
from functools import lru_cache

from orchestrator.rules import sanitize

LINE_LIMIT = 8_000
_PLAIN = re.compile(r"[^\x20-\x7e\n]")
_CONTROL_PICTURES = 0x2400
_TAB = "    "


def visible(text: str) -> str:
    """`text` with every character that a terminal would act on, or not show, spelt out. Line feeds
    stay, tabs become spaces."""
    return _PLAIN.sub(lambda match: _spelt(match.group()), text)


def one_line(text: str) -> str:
    """The same in one line, with single spaces."""
    return visible(" ".join(text.split()))


def escaped(text: str) -> str:
    """JSON `text` with the same characters as JSON escapes, so that it parses to the same value."""
    return _PLAIN.sub(lambda match: _as_json(match.group()), text)


@lru_cache(maxsize=4096)
def _harmless(character: str) -> bool:
    framed = f"x{character}x"
    return sanitize.block(framed, 64) == framed


def _spelt(character: str) -> str:
    if character == "\t":
        return _TAB
    if _harmless(character):
        return character
    code = ord(character)
    return chr(_CONTROL_PICTURES + code) if code < 0x20 else f"<U+{code:04X}>"


def _as_json(character: str) -> str:
    if _harmless(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(character)[1:-1]


class LogLines:
    """A log, from its bytes in pieces, as lines that a terminal may show.

    A carriage return restarts the line, as on a terminal: of a progress line that is rewritten
    again and again, the last state is left. A very long line is cut.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._dropped = 0
        self._returned = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        done: list[str] = []
        for part in re.split(r"([\r\n])", self._decoder.decode(data)):
            if part == "\n":
                done.append(self.line)
                self._begin()
            elif part == "\r":
                self._returned = True
            elif part:
                if self._returned:
                    self._begin()
                left = LINE_LIMIT - len(self._line)
                self._line += part[:left]
                self._dropped += max(0, len(part) - left)
        return done

    @property
    def line(self) -> str:
        """The line that is not complete yet, as far as it goes."""
        cut = f" … ({self._dropped} more characters)" if self._dropped else ""
        return visible(self._line).rstrip() + cut

    def _begin(self) -> None:
        self._line, self._dropped, self._returned = "", 0, False
