"""Dollars and shares as people read them, the same everywhere: ``viewer/format.js`` does likewise; tables test both.

Cents say too little under a dollar, and nothing at all under a cent. Zero is zero, and nothing else looks like it.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

UNKNOWN_MONEY: Final = "$?"
_DIGITS: Final = ((0.0, 6), (0.01, 4), (1.0, 3), (100.0, 2))
"""From this amount on, so many digits behind the point."""
ROUNDING: Final = 1e-9
"""What adding up floats leaves of a difference, US dollars."""
_ROUNDED_SHARE: Final = 1e-7
"""What dividing floats leaves of a difference, percent."""
_LEAST: Final = Decimal("0.000001")
_TOO_MANY_DIGITS: Final = 1e15


def money(amount: float) -> str:
    """``$1,234.50``, ``$0.1250``, ``$0.000012``; ``<$0.000001`` for what is less, ``$?`` for what is no number."""
    if not math.isfinite(amount):
        return UNKNOWN_MONEY
    if amount == 0:
        return "$0.00"
    sign, size = ("-" if amount < 0 else ""), abs(amount)
    if size >= _TOO_MANY_DIGITS:
        return f"{sign}${size:.2e}"
    rounded = _rounded(size, size)
    # 0.99999 is rounded to 1, which has digits of its own.
    rounded = _rounded(size, float(rounded))
    if rounded < _LEAST:
        return f"{'>' if sign else '<'}{sign}${_LEAST:f}"
    return f"{sign}${rounded:,f}"


def dollars(amount: float) -> str:
    """``$0.2500``, ``$0.000012``: of what is kept, sent, taken in or erased, to be added up by hand."""
    whole = f"{amount:,.4f}" if abs(amount) >= 0.01 else f"{amount:.8f}".rstrip("0").ljust(len("0.0000"), "0")
    return f"${whole}"


def percent(part: float, whole: float) -> str:
    """``67 %``; ``<1 %``, ``>99 %``, ``>100 %``: what is something is not called nothing, nor a part the whole."""
    share = 100 * part / whole
    rounded = math.floor(share + 0.5)
    if rounded == 0 and share > 0:
        return "<1 %"
    if rounded == 100 and abs(share - 100) > _ROUNDED_SHARE:
        return ">99 %" if share < 100 else ">100 %"
    return f"{rounded} %"


def _rounded(size: float, as_of: float) -> Decimal:
    digits = next(digits for least, digits in reversed(_DIGITS) if as_of >= least)
    # The exact value, not what its shortest spelling looks like; a page can do nothing else.
    return Decimal(size).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
