"""Questions about spend as programs put them, read and checked: the same words mean the same to whoever answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from openhands_otel._internal.spend.conditions import Condition, ConditionError
from openhands_otel._internal.spend.periods import PeriodError, between
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.zones import ZoneError, zone_of
from openhands_otel._internal.terminal_text import printable

_MOST_NAMES: Final = 8
_HISTORY_S: Final = 3600.0
_MOST_BUCKETS: Final = 1_000
_TOO_MANY: Final = f"by and where take {_MOST_NAMES} names at most"


class BadQuestion(ValueError):
    """It cannot be understood; the message is one line that says what to write."""


def read_question(given: Mapping[str, Iterable[str]], zone_by_default: str | None) -> SpendQuestion:
    """Read what is asked. Raises BadQuestion.

    Args:
        given: by, since, until, last, timezone, where and top, each as often as it was given.
        zone_by_default: IANA name of the zone where none is asked for; None for this machine's.
    """
    values = {name: list(texts) for name, texts in given.items()}
    try:
        zone = zone_of(_single(values, "timezone") or zone_by_default)
        now = time.time()
        since, until, last = (_single(values, name) or None for name in ("since", "until", "last"))
        begin, end = between(since, until, last, now, zone)
        question = SpendQuestion(
            by=tuple(name for text in values.get("by", ()) if text.strip() for name in _names(text)),
            zone=zone,
            since=begin,
            until=end,
            where=read_conditions(values.get("where", ())),
            top=_count(_single(values, "top")),
        )
    except (PeriodError, ZoneError) as error:
        raise BadQuestion(printable(str(error), 300)) from None
    if len(question.by) > _MOST_NAMES:
        raise BadQuestion(_TOO_MANY)
    return question


def history_window(
    now: float, since: float | None, until: float | None, bucket_s: float | None
) -> tuple[float, float, float]:
    """Begin, end and step of values over time: unless something is given the last hour, in 300 steps of 1 s or more.

    Times are unix seconds, a step is seconds. Raises BadQuestion.
    """
    end = now if until is None else until
    begin = end - _HISTORY_S if since is None else since
    step_s = max(1.0, (end - begin) / 300) if bucket_s is None else bucket_s
    # Written so that what is not a number fails too.
    if not (0 < end - begin < 1e10 and abs(end) < 1e11 and 1 <= step_s < 1e10):
        raise BadQuestion("since must be before until, and bucket_s at least 1")
    return begin, end, max(step_s, (end - begin) / _MOST_BUCKETS)


def read_conditions(texts: Iterable[str]) -> tuple[Condition, ...]:
    """Read what is asked of rows, as often as it was given. Raises BadQuestion."""
    try:
        where = tuple(Condition.of(text) for text in texts)
    except ConditionError as error:
        raise BadQuestion(printable(str(error), 300)) from None
    if len(where) > _MOST_NAMES:
        raise BadQuestion(_TOO_MANY)
    return where


def _single(values: Mapping[str, list[str]], name: str) -> str | None:
    texts = values.get(name, [])
    if len(texts) > 1:
        raise BadQuestion(f"{name} is given {len(texts)} times")
    return texts[0] if texts else None


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadQuestion(f"by has an empty name in '{text}': write names with commas between them, as in day,model")
    return names


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise BadQuestion("top must be a whole number above 0")
    return int(text)
