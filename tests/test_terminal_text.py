"""Kind of fault: text of strangers does something to a terminal, hides, or splits a line."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from openhands_otel._internal.terminal_text import printable

HOSTILE = {
    "title": ("\x1b]0;pwned\x07", r"\x1b]0;pwned\x07"),
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "eight-bit sequence": ("\x9d0;pwned\x9c", r"\x9d0;pwned\x9c"),
    "rows": ("a\nb\r\nc\td\ve\ff", r"a\nb\r\nc\td\x0be\x0cf"),
    "other rows": ("a\x85b\u2028c\u2029d", r"a\x85b\u2028c\u2029d"),
    "backspace and delete": ("ab\x08\x7f", r"ab\x08\x7f"),
    "nothing": ("a\x00b", r"a\x00b"),
    "turned around": ("\u202egpt\u2066x\u200f\u061c", r"\u202egpt\u2066x\u200f\u061c"),
    "zero width": ("g\u200bp\u200dt\ufeff\u2060\u00ad", r"g\u200bp\u200dt\ufeff\u2060\xad"),
    "blank letters": ("a\u3164\u115f\uffa0\u034fb", r"a\u3164\u115f\uffa0\u034fb"),
    "tags": ("a\U000e0041\U000e007f", r"a\U000e0041\U000e007f"),
    "variation selectors": ("\u2764\ufe0f\U000e0100", "\u2764" + r"\ufe0f\U000e0100"),
    "half of a character": ("a\ud800\udc80", r"a\ud800\udc80"),
    "not a character": ("a\uffff\U0010ffff", r"a\uffff\U0010ffff"),
    "mark on what stands before": ("\u0301a", r"\u0301a"),
    "a tower of marks": ("e" + "\u0301" * 5, "e" + "\u0301" * 3 + r"\u0301" * 2),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_act_or_hide_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt-5",
        "Modèle «ça»",
        "e\u0301te\u0301",
        "模型 \u3000 モデル",
        "🤖🇩🇪",
        "عربي עברית",
        "हिन्दी",
        r"C:\new",
        "[red]x[/]",
    ],
)
def test_what_is_only_foreign_stays(text: str) -> None:
    assert printable(text) == text


def test_no_character_at_all_gets_through_that_acts_or_cannot_be_written() -> None:
    for code in range(sys.maxunicode + 1):
        shown = printable("a" + chr(code))
        shown.encode()
        assert shown.isprintable() or unicodedata.category(chr(code)) == "Zs", hex(code)


def test_a_limit_holds_and_cuts_no_escape_in_half() -> None:
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcde…"
    assert printable("abc\x1bdef", 6) == "abc…"
    assert printable("\x1b" * 1_000_000, 9) == r"\x1b\x1b…"
    assert printable("模" * 10, 4) == "模模模…"
    assert printable("abc", 1) == "…"
    assert printable("abc", 0) == ""
    for limit in range(1, 40):
        assert len(printable("ab\u202e\x1b\n\U000e0041模é" * 9, limit)) <= limit
