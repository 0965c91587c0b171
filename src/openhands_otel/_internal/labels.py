"""Labels: who spends, and what for, in names and values that people choose.

Those of the process come from a variable and stand on its Resource. Those that ``labels()`` sets in code hold for the
thread or task that is inside of it; ``capture/`` carries them to where the SDK goes on in another thread.

A name is a mistake of the program's, the same at each run, so ``labels()`` refuses it. A value comes from anywhere, so
it is never refused: it is cleaned of what does something on a screen or hides, and cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Final
from urllib.parse import unquote

from openhands_otel._internal.log import logger
from openhands_otel._internal.once import Once
from openhands_otel._internal.terminal_text import INVISIBLE

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted: what is the same compares as the same."""

LABEL_LIMIT: Final = 16
"""Labels that hold at a time."""
AUTOMATION_NAME: Final = "automationname"
ACP_SERVER: Final = "acpserver"
CANVAS_TAGS: Final = (AUTOMATION_NAME, "automationid", ACP_SERVER)
"""Tags that Agent Canvas itself sets: which automation started a conversation, and which ACP server it talks to.

Without ``automationtrigger``: a dispatcher may set it to what an event said.
"""
VALUE_LIMIT: Final = 200
"""Characters of a value."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,62}")
NAMES: Final = "a name begins with a small letter and has small letters, digits, _ and . alone, 63 at most"

_too_many = Once()


def is_name(text: str) -> bool:
    """Whether a label may be called so."""
    return _NAME.fullmatch(text) is not None


def clean(value: object) -> str:
    """A value as it is sent: one line that does nothing but show, of ``VALUE_LIMIT`` characters at most."""
    try:
        text = str(value)[: 4 * VALUE_LIMIT]
    except Exception:
        # A class of the application's whose text cannot be made.
        return ""
    return one_line(text)[:VALUE_LIMIT].rstrip()


def one_line(text: str) -> str:
    """A text without what does something on a screen, or hides."""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", "".join(filter(None, map(_shown, text))))
    return text.strip()


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "Z" or character in "\t\n\r\v\f":
        return " "
    return "" if category[0] == "C" or INVISIBLE.match(character) else character


def labels_of(named: Mapping[str, object]) -> Labels:
    """Names and values as labels; what comes out empty is none."""
    return tuple(sorted((name, text) for name, value in named.items() if (text := clean(value))))


def merged(under: Labels, over: Labels) -> Labels:
    """Both; where they name the same, ``over`` holds. Names of ``over`` for which there is no room are left out."""
    if not under or not over or under is over:
        return over or under
    both = dict(under)
    for name, value in over:
        if name not in both and len(both) >= LABEL_LIMIT:
            if _too_many.claim():
                logger.warning("more than %d labels at once: '%s' and others are left out", LABEL_LIMIT, name)
            continue
        both[name] = value
    return tuple(sorted(both.items()))


# ---------------------------------------------------------------- in code


@dataclass(frozen=True, slots=True)
class _Frame:
    """What holds inside of one ``with``."""

    labels: Labels
    owner: object = None
    outer: _Frame | None = None


_OUTSIDE: Final = _Frame(())
_frame: ContextVar[_Frame] = ContextVar("openhands_otel_labels", default=_OUTSIDE)


def current() -> Labels:
    """The labels that hold in this thread or task."""
    return _frame.get().labels


class _Holding(AbstractContextManager[None]):
    """Holds labels. What is left in another order, or in another task, than it was entered in leaves no trace."""

    def __init__(self, own: Labels, without: frozenset[str]) -> None:
        self._own = own
        self._without = without

    def __enter__(self) -> None:
        outer = _frame.get()
        kept = tuple(each for each in outer.labels if each[0] not in self._without) if self._without else outer.labels
        _frame.set(_Frame(merged(kept, self._own), self, outer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        frame: _Frame | None = _frame.get()
        while frame is not None and frame.owner is not self:
            frame = frame.outer
        if frame is not None and frame.outer is not None:
            _frame.set(frame.outer)


def labels(**named: object) -> AbstractContextManager[None]:
    """Say who spends and what for, as ``with labels(instance="astropy-1"):``, for all that OpenHands spends inside.

    A conversation that is opened inside keeps them for its life in this process, one that is run inside for that run;
    and so do its sub-agents, condensers, titles and parallel tools, in whatever thread or event loop the SDK works. Of
    two inside of one another the inner one's values win. It may be entered in an ``async`` function, for its task.

    Args:
        named: Values by name, of any type that has a text; what does something on a screen, or hides, is taken out, and
            a text is cut after 200 characters. None takes an outer label of that name away. 16 hold at a time.

    Returns:
        A context manager, which may be entered again.

    Raises:
        ValueError: A name is none; the message says what a name is.

    Since 0.2.0.
    """
    wrong = next((name for name in named if not is_name(name)), None)
    if wrong is not None:
        raise ValueError(f"labels() cannot have '{wrong}': {NAMES}, as in labels(instance='astropy-1')")
    own = labels_of({name: value for name, value in named.items() if value is not None})
    return _Holding(own[:LABEL_LIMIT], frozenset(name for name, value in named.items() if value is None))


# ---------------------------------------------------------------- in variables


def read_labels(text: str, said_by: str) -> dict[str, str]:
    """``team=payments,project=checkout``; what cannot be used is left out, and one line of the log says so.

    A comma in a value is ``%2C``, as in ``OTEL_RESOURCE_ATTRIBUTES``.
    """
    found: dict[str, str] = {}
    wrong: list[str] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, given = (word.strip() for word in part.partition("="))
        value = clean(unquote(given))
        if not is_name(name):
            wrong.append(f"'{clean(name)}' ({NAMES})")
        elif not (equals and value):
            wrong.append(f"'{name}' (it has no value, as in {name}=payments)")
        elif name not in found and len(found) >= LABEL_LIMIT:
            wrong.append(f"'{name}' (there are {LABEL_LIMIT} already)")
        else:
            found[name] = value
    _complain(said_by, "; ".join(wrong))
    return found


def read_names(text: str, said_by: str, fits: re.Pattern[str] = _NAME, what: str = NAMES) -> tuple[str, ...]:
    """``team,project``; what does not fit is left out, and one line of the log says so."""
    given = dict.fromkeys(part for each in text.split(",") if (part := each.strip()))
    _complain(said_by, "; ".join(f"'{clean(name)}' ({what})" for name in given if not fits.fullmatch(name)))
    return tuple(name for name in given if fits.fullmatch(name))


@lru_cache(16)
def _complain(said_by: str, problems: str) -> None:
    """Once: settings are read more often than that."""
    if problems:
        logger.warning("%s: left out %s; the rest holds", said_by, problems)
