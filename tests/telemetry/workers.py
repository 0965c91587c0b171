"""What worker processes of the programs under test do; importable, so that a spawned child finds it."""

from __future__ import annotations

import signal

import spending


def burst(times: int) -> None:
    """Instrument this process, if its parent has not, and spend right before it ends."""
    spending.instrument()
    spending.spend(times)


def spend(number: int) -> None:
    """Spend once."""
    spending.spend()


def has_default_sigterm(number: int) -> bool:
    """Spend once, and say whether SIGTERM would end this process at once."""
    spending.instrument()
    spending.spend()
    return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
