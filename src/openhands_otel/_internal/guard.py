"""The one place where errors of this package end: telemetry never raises into the host.

Every hook that runs on the agent's threads is wrapped once by ``guarded``. An ``Exception`` in it is counted and, the
first time for each hook, logged in one line (its type only: messages may hold prompts). ``BaseException`` passes:
KeyboardInterrupt and SystemExit belong to the host.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

from openhands_otel._internal.log import logger

_errors: dict[str, int] = {}


def guarded[**P, R](hook: Callable[P, R]) -> Callable[P, R | None]:
    """Make ``hook`` return None where it would raise an Exception."""
    name = hook.__qualname__

    @functools.wraps(hook)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return hook(*args, **kwargs)
        except Exception as error:
            note_error(name, error)
            return None

    return safe


def note_error(name: str, error: BaseException) -> None:
    """Count an error of the hook ``name``; log its first one. Raises nothing, whatever the logging is set up to do."""
    seen = _errors.get(name, 0)
    _errors[name] = seen + 1
    if seen:
        return
    with suppress(Exception):
        what = type(error).__name__
        if isinstance(error, ImportError):
            # That names a module, and nothing of the agent's.
            what += f" ({' '.join(str(error).split())})"
        logger.warning("%s failed with %s; the agent is not affected, further ones are only counted", name, what)
        where = [line.strip() for entry in traceback.format_tb(error.__traceback__) for line in entry.splitlines()]
        logger.debug("%s failed here: %s", name, "; ".join(where))


def error_counts() -> Mapping[str, int]:
    """Errors so far by hook name."""
    return dict(_errors)
