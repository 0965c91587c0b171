"""Kind of fault: an amount is shown as another one, as nothing, or differently by terminal and page.

``tests/viewer/test_page.py`` holds the page to the same table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import openhands_otel
from openhands_otel._internal.money import dollars, money, percent

CASES = json.loads((Path(__file__).parent / "money_cases.json").read_text())


@pytest.mark.parametrize(("amount", "shown"), CASES)
def test_amounts_are_shown_as_the_table_says(amount: float | str, shown: str) -> None:
    assert money(float(amount)) == shown


@given(st.floats(min_value=1e-6, max_value=1e14))
def test_what_is_shown_is_never_further_off_than_its_last_digit(amount: float) -> None:
    digits = re.fullmatch(r"\$([\d,]+\.(\d+))", money(amount))
    assert digits is not None
    assert abs(float(digits[1].replace(",", "")) - amount) <= 0.5001 * 10 ** -len(digits[2]) + amount * 1e-15
    assert 2 <= len(digits[2]) <= 6
    assert money(-amount) == "-" + money(amount)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "$0.0000"), (0.003, "$0.0030"), (0.000012, "$0.000012"), (0.25, "$0.2500"), (1234.5, "$1,234.5000")],
)
def test_what_is_kept_or_taken_in_is_shown_to_four_digits_and_to_more_where_there_is_little(
    amount: float, shown: str
) -> None:
    assert dollars(amount) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 7, "0 %"),
        (1e-9, 7, "<1 %"),
        (1, 201, "<1 %"),
        (1, 200, "1 %"),
        (2, 3, "67 %"),
        (994, 1000, "99 %"),
        (996, 1000, ">99 %"),
        (10.0, 10.000001, ">99 %"),
        (0.1 + 0.2, 0.3, "100 %"),
        (1001, 1000, ">100 %"),
        (113, 100, "113 %"),
    ],
)
def test_a_part_is_never_called_nothing_nor_the_whole(part: float, whole: float, shown: str) -> None:
    """``tests/terminal/test_rows.py`` holds the page to the same."""
    assert percent(part, whole) == shown


def test_no_message_has_a_format_of_its_own_for_shares() -> None:
    package = Path(openhands_otel.__file__).parent
    own = re.compile(r":\.\d[f%]\}\s?%|:\.\d%\}|Math\.round\(.*\} %`")
    by_themselves = {
        file.name for kind in ("*.py", "*.js") for file in package.rglob(kind) if own.search(file.read_text())
    }
    assert by_themselves <= {"format.js"}


def test_no_message_has_a_format_of_its_own_for_dollars() -> None:
    """The demo's proof shows every digit of the bill, and ``repr`` of what a test captured is for its author."""
    package = Path(openhands_otel.__file__).parent
    by_themselves = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(r"\$\{[^}]*:[^}]*[fge]\}|\$%\.?\d*[fge]", file.read_text())
    }
    assert by_themselves == {"_internal/money.py", "_internal/demo/display.py", "testing.py"}
