"""What worker processes of the programs under test do; importable, so that a spawned child finds it."""

from __future__ import annotations

import spending


def burst(times: int) -> None:
    """Instrument this process, if its parent has not, and spend right before it ends."""
    spending.instrument()
    spending.spend(times)


def spend(number: int) -> None:
    """Spend once."""
    spending.spend()
