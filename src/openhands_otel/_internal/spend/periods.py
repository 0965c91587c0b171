"""Hours, days, weeks and months in a time zone: where they begin, what they are called, and how people name them.

A period is told from its neighbours by its name alone; an hour that the clock shows twice carries its offset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from openhands_otel._internal.spend.rows import QUARTER_S, Unit

_HOUR_S: Final = 3600
_LAST: Final = 250_000_000_000.0
"""Unix seconds, in the year 9892, shortly before the calendar ends; what claims to be later counts there."""
BEFORE: Final = "before "
_AGO: Final = re.compile(r"([0-9]{1,5})([hdwm])")
_WEEK: Final = re.compile(r"([0-9]{4})-?W([0-9]{2})")
_MONTH: Final = re.compile(r"([0-9]{4})-([0-9]{2})")
_UNIX: Final = re.compile(r"[0-9]{9,12}(\.[0-9]+)?")
_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]*)?(e[+-]?[0-9]{1,3})?")
LATEST: Final = 4e10
"""Unix seconds, after all that is plausible."""
ALL: Final = "all"
"""The length of time that has no begin."""
_FORMS: Final = "2026-11-20, 2026-11-20T14:00, 2026-W47, 2026-11, today, yesterday, 7d, 12h or unix seconds"


class PeriodError(ValueError):
    """A time cannot be understood; the message is one line that says what to write."""


@dataclass(frozen=True, slots=True)
class Period:
    """One stretch of time."""

    name: str
    begin: float
    """Unix seconds, included."""
    end: float
    """Unix seconds, not included."""


def period_of(unit: Unit, unix_s: float, zone: tzinfo) -> Period:
    """The hour, day, week or month that a moment lies in."""
    # Down to a second: the calendar would round up.
    unix_s = float(math.floor(min(max(unix_s, 0.0), _LAST)))
    local = datetime.fromtimestamp(unix_s, zone)
    if unit is Unit.HOUR:
        return _hour(unix_s, local, zone)
    day = local.date()
    if unit is Unit.DAY:
        return _days(day.isoformat(), day, day + timedelta(days=1), zone)
    if unit is Unit.WEEK:
        monday = day - timedelta(days=day.weekday())
        year, week, _ = day.isocalendar()
        return _days(f"{year}-W{week:02}", monday, monday + timedelta(days=7), zone)
    first = day.replace(day=1)
    return _days(f"{day:%Y-%m}", first, (first + timedelta(days=31)).replace(day=1), zone)


def periods(unit: Unit, since: float, until: float, zone: tzinfo) -> Iterator[Period]:
    """All that have a part of the time between two moments, in order."""
    moment = since
    while moment < until:
        period = period_of(unit, moment, zone)
        yield period
        moment = period.end


def before_name(unix_s: float, zone: tzinfo) -> str:
    """What spend without a date is listed under: "before 2026-11-27"."""
    return f"{BEFORE}{period_of(Unit.DAY, unix_s, zone).name}"


def order_of(name: str, zone: tzinfo) -> tuple[float, str]:
    """Sorts names of periods by time; what has no date comes first."""
    try:
        return (named(name, zone).begin, name) if not name.startswith(BEFORE) else (-_LAST, name)
    except PeriodError:
        return (_LAST, name)


def named(text: str, zone: tzinfo) -> Period:
    """The period of a name, as reports have them; a moment is a period of no length. Raises PeriodError."""
    try:
        if match := _WEEK.fullmatch(text):
            monday = date.fromisocalendar(int(match[1]), int(match[2]), 1)
            return _days(text, monday, monday + timedelta(days=7), zone)
        if match := _MONTH.fullmatch(text):
            return period_of(Unit.MONTH, _midnight(date(int(match[1]), int(match[2]), 1), zone), zone)
        if _UNIX.fullmatch(text):
            return Period(text, float(text), float(text))
        if "T" in text or " " in text:
            moment = datetime.fromisoformat(text)
            begin = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
            return Period(text, begin, begin)
        day = date.fromisoformat(text)
        return _days(text, day, day + timedelta(days=1), zone)
    except (ValueError, OverflowError):
        raise PeriodError(f"'{text}' is no time: write {_FORMS}") from None


def asked(text: str, now: float, zone: tzinfo) -> Period:
    """What ``--since``, ``--until`` and ``compare`` may name: also ``today``, ``yesterday``, ``now`` and ``7d``.

    Raises PeriodError.
    """
    word = text.strip()
    if word == "now":
        return Period(word, now, now)
    if word in ("today", "yesterday"):
        today = period_of(Unit.DAY, now, zone)
        return today if word == "today" else period_of(Unit.DAY, today.begin - 1, zone)
    if _AGO.fullmatch(word):
        begin = ago(word, now, zone)
        return Period(word, begin, begin)
    return named(word, zone)


def ago(text: str, now: float, zone: tzinfo) -> float:
    """Where the last ``12h``, ``7d``, ``2w`` or ``3m`` begin, unix seconds. Raises PeriodError.

    Days, weeks and months are whole days of which today is one; so that 7d are seven names of days.
    """
    match = _AGO.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise PeriodError(f"'{text}' is no length of time: write 12h, 30d, 2w or 3m")
    count, unit = int(match[1]), match[2]
    today = datetime.fromtimestamp(now, zone).date()
    try:
        if unit == "h":
            return max(0.0, quarter(now - count * _HOUR_S))
        if unit == "m":
            first = _months_before(today, count) + timedelta(days=1)
        else:
            first = today - timedelta(days=count * (7 if unit == "w" else 1) - 1)
        return max(0.0, _midnight(first, zone))
    except (ValueError, OverflowError):
        return 0.0


def between(
    since: str | None, until: str | None, last: str | None, now: float, zone: tzinfo, option: str = ""
) -> tuple[float | None, float | None]:
    """Begin and end of what is asked for, those of quarter-hours: nothing finer is known of all spend.

    Args:
        since: A period, which begins it; or a moment, in unix seconds too, of whatever size.
        until: The same; a period is included, and so is the whole quarter-hour of a moment.
        last: Instead of ``since``: a length of time, or "all".
        now: Unix seconds.
        zone: Whose days are meant.
        option: What stands before the names of these in a message: ``--``.

    Raises PeriodError.
    """
    if last is not None and since is not None:
        raise PeriodError(f"{option}last and {option}since both say when it begins: name one of them, not both")
    begin: float | None = None
    if last is not None and last.strip() != ALL:
        begin = quarter(ago(last, now, zone))
    elif since is not None:
        begin = quarter(_moment(since, now, zone).begin)
    end = None if until is None else -quarter(-_moment(until, now, zone).end)
    if begin is not None and end is not None and begin >= end:
        raise PeriodError(f"{option}until must be after {option}since")
    return begin, end


def _moment(text: str, now: float, zone: tzinfo) -> Period:
    if _NUMBER.fullmatch(text):
        moment = min(float(text), LATEST)
        return Period(text, moment, moment)
    return asked(text, now, zone)


def quarter(unix_s: float) -> float:
    """Begin of the quarter-hour that a moment lies in: the finest that the archive knows."""
    return unix_s // QUARTER_S * QUARTER_S


def _months_before(day: date, count: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - count, 12)
    following = date(year + (month == 11), (month + 1) % 12 + 1, 1)
    return date(year, month + 1, min(day.day, (following - timedelta(days=1)).day))


def _days(name: str, first: date, after: date, zone: tzinfo) -> Period:
    return Period(name, _midnight(first, zone), _midnight(after, zone))


def _midnight(day: date, zone: tzinfo) -> float:
    # Where the clock leaves midnight out, this is the moment at which it does so.
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _hour(unix_s: float, local: datetime, zone: tzinfo) -> Period:
    begin = unix_s - local.minute * 60 - local.second
    offset = local.utcoffset()
    first, end = _since_change(begin, unix_s, offset, zone), _until_change(unix_s, begin + _HOUR_S, offset, zone)
    name = f"{local:%Y-%m-%d %H}:00"
    wall = local.replace(minute=0, second=0, microsecond=0)
    if any(_ambiguous(each) for each in (wall, wall.replace(minute=59))):
        text = f"{local:%z}"
        name += f"{text[:3]}:{text[3:5]}"
    return Period(name, first, end)


def _ambiguous(local: datetime) -> bool:
    """Whether the clock shows this time twice; a time that it never shows has its offsets the other way round."""
    earlier, later = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return earlier is not None and later is not None and earlier > later


def _since_change(begin: float, inside: float, offset: timedelta | None, zone: tzinfo) -> float:
    """``begin``, or where the clock was changed between it and a later moment."""
    if _offset(begin, zone) == offset:
        return begin
    low, high = int(begin), int(inside)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone) == offset else (middle, high)
    return float(high)


def _until_change(inside: float, end: float, offset: timedelta | None, zone: tzinfo) -> float:
    """``end``, or where the clock is changed before it."""
    if _offset(end - 1, zone) == offset:
        return end
    low, high = int(inside), int(end)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
    return float(high)


def _offset(unix_s: float, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(unix_s, zone).utcoffset()
