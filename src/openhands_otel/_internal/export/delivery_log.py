"""Logs how deliveries go, without a line for each: the first failure, the return, and each kind of refusal once."""

from __future__ import annotations

import logging
from typing import Final

from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.log import logger

MOST_REFUSALS: Final = 5
"""Different refusals that are logged; a receiver can think of any number."""


class DeliveryLog:
    """``signal`` is what is sent; ``while_down`` says what becomes of it meanwhile, in an English clause.

    ``level`` is that of lines about a receiver that cannot be reached, and can be again.
    """

    def __init__(self, signal: str, while_down: str, refusal: str = "%s", level: int = logging.WARNING) -> None:
        self._signal = signal
        self._while_down = while_down
        self._refusal = refusal
        """Format of the line for a refusal."""
        self._level = level
        self._down = False
        self._refusals: set[str] = set()

    def note(self, outcome: Outcome) -> None:
        """Log what is new in ``outcome``."""
        if not outcome.delivered:
            if not self._down:
                logger.log(self._level, "%s cannot be sent now: %s; %s", self._signal, outcome.reason, self._while_down)
            self._down = True
            return
        if self._down:
            self._down = False
            logger.log(self._level, "%s are being sent again", self._signal)
        if outcome.reason and outcome.reason not in self._refusals and len(self._refusals) < MOST_REFUSALS:
            self._refusals.add(outcome.reason)
            logger.warning(self._refusal, outcome.reason)
