"""Compares this machine's clock with another's. Spend stands in the quarter-hour that its process's clock says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from openhands_otel._internal.doctor.finding import Finding, ok, problem

_CHECK: Final = "clocks"
_AHEAD_S: Final = 600.0
"""A stamp that is further ahead than this is taken for wrong, and the receiver's clock is used."""
_BAD_S: Final = 5.0


def compare(their_clock: Callable[[], float]) -> Finding:
    """``their_clock`` asks for unix seconds; how long the answer took is what the difference is uncertain by."""
    before = time.time()
    theirs = their_clock()
    after = time.time()
    ahead = max(before - theirs, 0.0) or min(after - theirs, 0.0)
    if abs(ahead) <= _BAD_S:
        return ok(_CHECK, f"they agree within {max(abs(ahead), after - before):.1f} s")
    which = "ahead of" if ahead > 0 else "behind"
    booked = ", so that spend is booked by arrival" if ahead > _AHEAD_S else ""
    said = f"this machine's clock is {abs(ahead):,.0f} s {which} the other's{booked}"
    return problem(_CHECK, said, "set both by NTP")
