"""Limits log lines that peers can cause: one when the trouble begins, then one a minute while it goes on."""

from __future__ import annotations

import logging
import time
from typing import Final

from openhands_otel._internal.terminal_text import printable

EVERY_S: Final = 60.0
_KIND_LIMIT: Final = 64


class FewLines(logging.Filter):
    """On a logger: lets a kind of line (its text before arguments) through once a minute, without tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, tuple[float, int]] = {}
        """When a kind was said last, and how many were held back since."""

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        kind = str(record.msg)
        last, held_back = self._last.get(kind, (-EVERY_S, 0))
        if now - last < EVERY_S:
            self._last[kind] = (last, held_back + 1)
            return False
        if len(self._last) >= _KIND_LIMIT:
            self._last.clear()
        self._last[kind] = (now, 0)
        _shorten(record, held_back)
        return True


def _shorten(record: logging.LogRecord, held_back: int) -> None:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text += f" ({record.exc_info[0].__name__}: {printable(str(record.exc_info[1]), 200)})"
    if held_back:
        text += f" ({held_back:,} more like it in the last minutes)"
    record.msg, record.args, record.exc_info, record.exc_text = printable(" ".join(text.split())), (), None, None


def few_lines(name: str) -> logging.Logger:
    """The logger of a name, with the filter on it."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, FewLines) for each in logger.filters):
        logger.addFilter(FewLines())
    return logger
