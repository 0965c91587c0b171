"""What a report is made of, whatever it is written as: lines with their subtotals, and columns of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.facts import OUTCOMES
from openhands_otel._internal.money import money, percent
from openhands_otel._internal.spend.conditions import absent, quoted
from openhands_otel._internal.spend.grouping import UNITS, added
from openhands_otel._internal.spend.rows import Dimension
from openhands_otel._internal.spend.zones import ZoneError, zone_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Spend, SpendGroup

AT_LEAST: Final = "+"
"""Behind an amount of which more may have been spent."""
REMAINDER: Final = "all others"
TOTAL: Final = "total"
_OWN_LINES: Final = frozenset({REMAINDER, TOTAL})
_OF_CONVERSATIONS: Final = (Dimension.CONVERSATION, Dimension.RUN)
_NAME_MOST: Final = 40
_SHORT: Final = (8, 13, 18, 23)
"""Characters of an id that are enough for a person: where the parts of a UUID end."""


class LineKind(StrEnum):
    """What a line stands for."""

    GROUP = "group"
    AROUND = "subtotal"
    REMAINDER = "remainder"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report."""

    kind: LineKind
    depth: int
    """Of how many groups around it; the total has none."""
    name: str
    group: SpendGroup


def lines(spend: Spend) -> Iterator[Line]:
    """Groups with the sums of what is around them, in order, and the total, to which all but subtotals add up."""
    yield from _inside(spend.groups, spend.by, 0, _short_ids(spend))
    yield Line(LineKind.TOTAL, 0, TOTAL, spend.total)


def _inside(groups: Iterable[SpendGroup], by: Sequence[str], depth: int, ids: Mapping[str, str]) -> Iterator[Line]:
    name_here = by[depth] if depth < len(by) else ""
    for key, members in groupby(groups, key=lambda each: each.keys.get(name_here)):
        inside = list(members)
        if key is None:
            yield from (Line(LineKind.REMAINDER, depth, REMAINDER, each) for each in inside)
            continue
        name = _name(name_here, key, inside[0], ids)
        if depth == len(by) - 1:
            yield from (Line(LineKind.GROUP, depth, name, each) for each in inside)
        else:
            around = dict(zip(by[: depth + 1], (inside[0].keys[each] for each in by[: depth + 1]), strict=True))
            yield Line(LineKind.AROUND, depth, name, added(inside, around))
            yield from _inside(inside, by, depth + 1, ids)


def _name(dimension: str, key: str, group: SpendGroup, ids: Mapping[str, str]) -> str:
    """What a line is called: conversations and runs by what people know them by, if by anything, and a short id."""
    if dimension in _OF_CONVERSATIONS and group.name is not None:
        return f"{printable(group.name, _NAME_MOST)} {ids[key]}"
    return quoted(key) if key.strip('"') in _OWN_LINES else key


def _short_ids(spend: Spend) -> dict[str, str]:
    """The beginnings of conversations' ids that tell them apart, with the number of a run behind it."""
    keys = {each.keys[name] for name in _OF_CONVERSATIONS for each in spend.groups if name in each.keys}
    whole = {key: key.rpartition("#") if "#" in key else (key, "", "") for key in keys}
    ids = {conversation for conversation, _, _ in whole.values()}
    length = next((size for size in _SHORT if len({each[:size] for each in ids}) == len(ids)), None)
    return {key: f"{conversation[:length]}{mark}{number}" for key, (conversation, mark, number) in whole.items()}


def has_names(spend: Spend) -> bool:
    """Whether there are conversations or runs in it that people know by a name."""
    return any(each.name is not None for each in spend.groups)


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """One figure of each line, as people read it."""

    title: str
    text: Callable[[SpendGroup, SpendGroup], str]
    """Of a group, and the total."""
    from_width: int
    """Terminals narrower than this do without; where there is too little room, the largest goes first."""


def cost_text(group: SpendGroup) -> str:
    """Its cost, with a plus where that is a lower bound."""
    return money(group.accumulated_cost) + (AT_LEAST if is_lower_bound(group) else "")


def is_lower_bound(group: SpendGroup) -> bool:
    """Whether more may have been spent: some of it was read from disk, or has no known price."""
    return bool(group.read_cost or group.unpriced_calls)


def share(part: float, whole: float) -> float | None:
    """None where there is nothing to have a share of."""
    return part / whole if whole > 0 else None


def share_text(part: float, whole: float) -> str:
    """As ``percent``; nothing has no shares."""
    return percent(part, whole) if whole > 0 else ""


def count_text(number: float) -> str:
    """``1,234``; nothing for none."""
    return f"{number:,.0f}" if number else ""


def seconds_text(seconds: float) -> str:
    """``0.4 s``, ``1,234 s``; nothing for none."""
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.1f} s" if seconds else ""


def outcome_text(outcome: str | None) -> str:
    """The word for it that is used everywhere."""
    word = OUTCOMES.get(outcome or "")
    return word.text if word else printable(outcome or "", 24)


_FACTS: Final = UNITS | frozenset(map(str, Dimension))
FIGURE_COLUMNS: Final = (
    FigureColumn("cost", lambda group, _: cost_text(group), 0),
    FigureColumn("share", lambda group, total: share_text(group.accumulated_cost, total.accumulated_cost), 30),
    FigureColumn("calls", lambda group, _: count_text(group.llm_calls), 40),
    FigureColumn("tools", lambda group, _: count_text(group.tool_calls or 0), 45),
    FigureColumn("unpriced", lambda group, _: count_text(group.unpriced_calls), 50),
    FigureColumn("in", lambda group, _: count_text(group.accumulated_token_usage.prompt_tokens), 60),
    FigureColumn("out", lambda group, _: count_text(group.accumulated_token_usage.completion_tokens), 61),
    FigureColumn(
        "cached",
        lambda group, _: share_text(
            group.accumulated_token_usage.cache_read_tokens, group.accumulated_token_usage.prompt_tokens
        ),
        80,
    ),
    FigureColumn("saved", lambda group, _: money(group.cache_savings) if group.cache_savings else "", 90),
    FigureColumn("seconds", lambda group, _: seconds_text(group.llm_seconds), 100),
    FigureColumn("cache read", lambda group, _: count_text(group.accumulated_token_usage.cache_read_tokens), 120),
    FigureColumn("cache written", lambda group, _: count_text(group.accumulated_token_usage.cache_write_tokens), 121),
    FigureColumn("reasoning", lambda group, _: count_text(group.accumulated_token_usage.reasoning_tokens), 122),
    FigureColumn("outcome", lambda group, _: outcome_text(group.outcome), 70),
)


def filled(columns: Sequence[FigureColumn], shown: Sequence[Line], total: SpendGroup) -> dict[FigureColumn, list[str]]:
    """The texts of each column, line by line; a column that would be empty is left out, the cost never."""
    texts = {column: [column.text(line.group, total) for line in shown] for column in columns}
    return {
        column: column_texts
        for column, column_texts in texts.items()
        if column is FIGURE_COLUMNS[0] or any(column_texts)
    }


def _nobody_has(name: str, spend: Spend) -> bool:
    """Whether what it is grouped by is a label that nothing has."""
    values = [each.keys[name] for each in spend.groups if name in each.keys]
    return name not in _FACTS and bool(values) and set(values) == {absent(name)}


def _mistaken(name: str) -> str:
    from difflib import get_close_matches

    meant = get_close_matches(name, sorted(_FACTS), 1)
    return f"Nothing has a label '{name}'{f': is it {meant[0]} that is meant?' if meant else '.'}"


def period_text(spend: Spend) -> str:
    """``2026-11-21 to 2026-11-27, Europe/Berlin``: days where it is whole days, else with their hours."""
    zone = _zone(spend.timezone)
    if spend.since is None and spend.until is None:
        return f"all that is known, {spend.timezone}"
    begin = "" if spend.since is None else f"from {_moment(spend.since, zone)}"
    end = "" if spend.until is None else f"to {_moment(spend.until, zone, is_end=True)}"
    return f"{' '.join(filter(None, (begin, end)))}, {spend.timezone}"


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except ZoneError:
        # A viewer that knows more zones than this machine.
        return ZoneInfo("UTC")


def _moment(unix_s: float, zone: ZoneInfo, *, is_end: bool = False) -> str:
    local = datetime.fromtimestamp(unix_s, zone)
    if (local.hour, local.minute) == (0, 0):
        return f"{datetime.fromtimestamp(unix_s - 1, zone) if is_end else local:%Y-%m-%d}"
    return f"{local:%Y-%m-%d %H:%M}"


def notes(spend: Spend) -> list[str]:
    """What a reader has to know, a sentence each."""
    said = list(spend.remarks)
    if not (spend.groups or spend.total.llm_calls or spend.total.accumulated_cost):
        said.append("Nothing was found: name another time, other conditions, or where to look (see --help).")
    said += [_mistaken(name) for name in spend.by if _nobody_has(name, spend)]
    reasons: list[str] = []
    if spend.total.read_cost:
        reasons.append(f"{money(spend.total.read_cost)} was read from OpenHands' own files, which may lack calls")
    if unpriced := spend.total.unpriced_calls:
        reasons.append(f"{unpriced:,} call{'' if unpriced == 1 else 's'} had no known price")
    if reasons:
        said.append(f"{AT_LEAST} at least: {'; '.join(reasons)}")
    return said
