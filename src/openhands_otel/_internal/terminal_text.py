"""Makes text from elsewhere safe to print: on a terminal, in a table, in a log.

A name or a reason comes from whoever could reach the collector, or from a server that answered. Written to a terminal
as it is, it may set the window's title, clear the screen, turn letters around or split a row in two. What would do
something, or hide, is shown as Python would write it (``\\x1b``, ``\\u202e``); what is only foreign stays. A backslash
stays one too: the text is for people to read, not to be read back.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks by category, which show nothing, as Unicode's Default_Ignorable_Code_Point has them. With the
variation selectors, which make terminals disagree about a character's width."""
_MARKS_IN_A_ROW: Final = 3
"""More on one letter are not a language; they are drawn over the rows above and below."""


def printable(text: str, limit: int | None = None) -> str:
    """``text`` in one line that does nothing but show; of no more than ``limit`` characters, with an ellipsis."""
    if limit is not None and limit <= 0:
        return ""
    taken = text if limit is None else text[: limit + 1]
    shown = list(taken) if taken.isascii() and taken.isprintable() else _each(taken)
    if limit is None:
        return "".join(shown)
    return "".join(shown) if sum(map(len, shown)) <= limit else _cut(shown, limit - 1) + "…"


def printable_json(document: str) -> str:
    """The same JSON, whose strings do nothing on a terminal: what would is written as JSON's own escapes."""
    if document.isascii() and "\x7f" not in document:
        # What is left of the controls stands between values, and was put there by the writer.
        return document
    return "".join(
        character if character == shown or character == "\n" else _json_escaped(character)
        for character, shown in zip(document, _each(document), strict=True)
    )


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _each(text: str) -> list[str]:
    """What stands for each character; an escape is never cut in half, so they are kept apart."""
    shown: list[str] = []
    marks = _MARKS_IN_A_ROW
    for character in text:
        category = unicodedata.category(character)
        if category[0] == "M":
            # At the very front, one would be put on what stands before this text.
            marks += 1
            hidden = marks > _MARKS_IN_A_ROW
        else:
            # All of "other" (controls, formats, surrogates, private, not assigned), and separators of lines.
            marks = 0
            hidden = category[0] == "C" or category in ("Zl", "Zp")
        shown.append(_escaped(character) if hidden or INVISIBLE.match(character) else character)
    return shown


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return _NAMED.get(character) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(shown: list[str], length: int) -> str:
    kept = ""
    for piece in shown:
        if len(kept) + len(piece) > length:
            break
        kept += piece
    return kept


def cells(text: str) -> int:
    """How many columns of a terminal a printable text takes: wide letters two, marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(each)[0] == "M" else 1 + (unicodedata.east_asian_width(each) in ("W", "F"))
        for each in text
    )


def fitted(text: str, width: int) -> str:
    """``text``, made printable, in exactly so many columns of a terminal: filled up, or cut with an ellipsis."""
    shown = printable(text, 4 * width + 16)
    if cells(shown) > width:
        while shown and cells(shown) > width - 1:
            shown = shown[:-1]
        shown = f"{shown}…"[: max(0, width)]
    return shown + " " * (width - cells(shown))
