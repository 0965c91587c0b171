"""Periods of any zone lie end to end, have names of their own, and can be named back."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhands_otel._internal.spend.periods import (
    Period,
    PeriodError,
    ago,
    asked,
    before_name,
    named,
    order_of,
    period_of,
    periods,
)
from openhands_otel._internal.spend.rows import QUARTER_S, Unit
from openhands_otel._internal.spend.zones import ZoneError, zone_of

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
]
NOW = datetime(2026, 11, 27, 14, 20, tzinfo=BERLIN).timestamp()


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@given(
    st.sampled_from(ZONES),
    st.sampled_from(Unit),
    st.floats(at("2019-12-25"), at("2031-01-10"), allow_nan=False),
)
def test_periods_lie_end_to_end_and_names_order_as_they_do(zone: str, unit: Unit, moment: float) -> None:
    here = ZoneInfo(zone)
    first = period_of(unit, moment, here)
    assert first.begin <= moment < first.end
    assert first.begin % QUARTER_S == 0 == first.end % QUARTER_S
    following = list(periods(unit, moment, first.end + 1, here))
    assert following[0] == first
    assert following[1].begin == first.end
    assert following[1].name != first.name
    assert order_of(first.name, here) < order_of(following[1].name, here)
    if unit is not Unit.HOUR:
        assert named(first.name, here) == first


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-27", 24)])
def test_days_of_summer_time_have_their_hours_each_with_a_name(day: str, hours: int) -> None:
    period = named(day, BERLIN)
    assert period.end - period.begin == hours * 3600
    names = [each.name for each in periods(Unit.HOUR, period.begin, period.end, BERLIN)]
    assert len(names) == len(set(names)) == hours
    assert sorted(names, key=lambda name: order_of(name, BERLIN)) == names


def test_an_hour_that_the_clock_shows_twice_carries_its_offset() -> None:
    day = named("2026-10-25", BERLIN)
    names = [each.name for each in periods(Unit.HOUR, day.begin, day.end, BERLIN)]
    assert names[1:5] == [
        "2026-10-25 01:00",
        "2026-10-25 02:00+02:00",
        "2026-10-25 02:00+01:00",
        "2026-10-25 03:00",
    ]


def test_a_half_hour_of_summer_time_is_told_apart_too() -> None:
    island = ZoneInfo("Australia/Lord_Howe")
    day = named("2026-04-05", island)
    hours = list(periods(Unit.HOUR, day.begin, day.end, island))
    assert sum(hour.end - hour.begin for hour in hours) == 24.5 * 3600
    assert [hour.name[11:] for hour in hours[1:4]] == ["01:00+11:00", "01:00+10:30", "02:00"]
    assert all(earlier.end == later.begin for earlier, later in pairwise(hours))


@pytest.mark.parametrize(
    ("unit", "name", "begin", "end"),
    [
        (Unit.HOUR, "2026-11-27 14:00", "2026-11-27T14:00", "2026-11-27T15:00"),
        (Unit.DAY, "2026-11-27", "2026-11-27", "2026-11-28"),
        (Unit.WEEK, "2026-W48", "2026-11-23", "2026-11-30"),
        (Unit.MONTH, "2026-11", "2026-11-01", "2026-12-01"),
    ],
)
def test_names(unit: Unit, name: str, begin: str, end: str) -> None:
    expected = Period(name, at(begin, "Asia/Kolkata"), at(end, "Asia/Kolkata"))
    assert period_of(unit, at("2026-11-27T14:59:59.9", "Asia/Kolkata"), ZoneInfo("Asia/Kolkata")) == expected


@pytest.mark.parametrize(("moment", "week"), [("2027-01-01", "2026-W53"), ("2024-12-30", "2025-W01")])
def test_weeks_are_iso_weeks(moment: str, week: str) -> None:
    assert period_of(Unit.WEEK, at(moment), ZoneInfo("UTC")).name == week


@pytest.mark.parametrize("moment", [-1e300, -1.0, 1e11, 1e300, float("inf")])
def test_times_that_no_calendar_has_are_in_some_period(moment: float) -> None:
    for unit in Unit:
        assert period_of(unit, moment, BERLIN).name


def test_what_has_no_date_comes_before_all_that_has() -> None:
    name = before_name(at("2025-10-01", "Europe/Berlin"), BERLIN)
    assert name == "before 2025-10-01"
    assert order_of(name, BERLIN) < order_of("1970-01-01", BERLIN) < order_of("what is this", BERLIN)


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026-11-20", "2026-11-20", "2026-11-21"),
        ("20261120", "2026-11-20", "2026-11-21"),
        ("2026-11", "2026-11-01", "2026-12-01"),
        ("2026-W48", "2026-11-23", "2026-11-30"),
        ("today", "2026-11-27", "2026-11-28"),
        ("yesterday", "2026-11-26", "2026-11-27"),
        ("2026-11-20T14:05", "2026-11-20T14:05", None),
        ("2026-11-20 14:05", "2026-11-20T14:05", None),
        ("2026-11-20T13:05Z", "2026-11-20T14:05", None),
        ("1795698000", "2026-11-26T14:00", None),
        ("now", "2026-11-27T14:20", None),
        ("7d", "2026-11-21", None),
        ("12h", "2026-11-27T02:15", None),
    ],
)
def test_times_that_can_be_asked_for(text: str, begin: str, end: str | None) -> None:
    period = asked(text, NOW, BERLIN)
    assert period.begin == at(begin, "Europe/Berlin")
    assert period.end == (period.begin if end is None else at(end, "Europe/Berlin"))


@pytest.mark.parametrize(
    ("text", "begin"),
    [("1d", "2026-11-27"), ("2w", "2026-11-14"), ("1m", "2026-10-28"), ("3m", "2026-08-28"), ("9m", "2026-02-28")],
)
def test_lengths_are_whole_days_with_today_as_one(text: str, begin: str) -> None:
    assert ago(text, NOW, BERLIN) == at(begin, "Europe/Berlin")


def test_months_before_end_where_a_month_does() -> None:
    assert ago("1m", at("2026-03-31T12:00"), ZoneInfo("UTC")) == at("2026-03-01")
    assert ago("99999m", NOW, BERLIN) == 0


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-13", "2026-11-31", "2026-W54", "2026", "7", "7x", "٣d", "2026-11-20T25:00", "1e9", "-7d"]
)
def test_what_is_no_time_says_what_is(text: str) -> None:
    with pytest.raises(PeriodError, match="2026-11-20") as error:
        asked(text, NOW, BERLIN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "0d", "7", "d", "7y", "-1d"])
def test_what_is_no_length_says_what_is(text: str) -> None:
    with pytest.raises(PeriodError, match="30d"):
        ago(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Mars", "UTC"),
        ("../../etc/passwd", "UTC"),
        ("UTC+2", "UTC"),
        ("Europe", "UTC"),
    ],
)
def test_a_zone_that_is_not_known_says_which_is(name: str, cure: str) -> None:
    with pytest.raises(ZoneError, match=cure) as error:
        zone_of(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("Asia/Kolkata", "Asia/Kolkata"),
        (":Asia/Kolkata", "Asia/Kolkata"),
        ("/usr/share/zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "local"),
        ("EST5EDT", "EST5EDT"),
        ("<+0530>-5:30", "local"),
        ("no zone at all", "UTC"),
        ("/etc/passwd", "UTC"),
        ("", None),
    ],
)
def test_the_machines_zone_is_the_one_that_the_c_library_has(variable: str, key: str | None) -> None:
    program = (
        "import time; from datetime import datetime; from openhands_otel._internal.spend.zones import zone_of\n"
        "zone = zone_of('local'); print(zone.key)\n"
        "for moment in range(1767225600, 1798761600, 3600 * 25):\n"
        "    assert datetime.fromtimestamp(moment, zone).timetuple()[:6] == time.localtime(moment)[:6], moment\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"TZ": variable}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert key is None or done.stdout.strip() == key


def test_without_a_variable_it_is_the_one_of_etc_localtime() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TZ"}
    program = "from openhands_otel._internal.spend.zones import zone_of; print(zone_of(None).key)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    target = os.path.realpath("/etc/localtime")
    assert done.stdout.strip() == (target.partition("zoneinfo/")[2] or "UTC")
