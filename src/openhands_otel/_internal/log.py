"""The logger of this package, ``openhands_otel``, which every module writes to.

Its filter makes every line printable text, whatever a server or a peer put into it. What a handler of the application
raises ends here: lines are written on the agent's threads as well, and in the middle of what is to keep its money.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable
from typing import Any, Final

from openhands_otel._internal.terminal_text import printable

NAME: Final = "openhands_otel"
logger: Final = logging.getLogger(NAME)


class PrintableRecords(logging.Filter):
    """Makes what was put into a line printable: reasons of servers, names from the wire, messages of exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_printable, record.args))
        elif record.args:
            record.args = {name: _printable(value) for name, value in record.args.items()}
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            lines = "".join(traceback.format_exception(record.exc_info[1])).splitlines()
            # A formatter takes this text instead of its own.
            record.exc_text = "\n".join(map(printable, lines))
        return True


def _printable(value: Any) -> Any:
    if isinstance(value, int | float):
        return value
    return printable(str(value))


def _handing_over(handle: Callable[[logging.LogRecord], None]) -> Callable[[logging.LogRecord], None]:
    def hand_over(record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            handle(record)

    return hand_over


if not any(isinstance(each, PrintableRecords) for each in logger.filters):
    logger.addFilter(PrintableRecords())
    vars(logger)["handle"] = _handing_over(logger.handle)
