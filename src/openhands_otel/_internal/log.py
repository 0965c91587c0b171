"""The logger of this package, ``openhands_otel``, which every module writes to.

Its filter makes every line printable text, whatever a server or a peer put into it. What a handler of the application
raises ends here: lines are written on the agent's threads as well, and in the middle of what is to keep its money.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import Any, Final

from openhands_otel._internal.terminal_text import printable

NAME: Final = "openhands_otel"


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


class Harmless(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Hand a line over; it stands for whoever called the method of that level."""
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **kwargs)


_of_the_application = logging.getLogger(NAME)
if not any(isinstance(each, PrintableRecords) for each in _of_the_application.filters):
    _of_the_application.addFilter(PrintableRecords())
logger: Final = Harmless(_of_the_application)
