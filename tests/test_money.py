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

from openhands_otel._internal.money import money

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
