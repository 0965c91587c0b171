"""From rows of spend to groups that add up to the total, to the last digit, whatever they are grouped by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.money import money
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.conditions import Condition, Conditions, absent, named
from openhands_otel._internal.spend.periods import before_name, order_of, period_of
from openhands_otel._internal.spend.rows import QUARTER_S, UNDESCRIBED, Described, Dimension, SpendRow, Unit
from openhands_otel.stats import Spend, SpendGroup

UNITS: Final = frozenset(str(unit) for unit in Unit)
_Key = tuple[str, ...]


@dataclass(slots=True)
class _Cell:
    amount: Amount = field(default_factory=Amount)
    described: Described = UNDESCRIBED
    """Its run or conversation."""


def group(
    rows: Iterable[SpendRow],
    by: Sequence[str],
    zone: ZoneInfo,
    *,
    since: float | None = None,
    until: float | None = None,
    where: Iterable[Condition] = (),
    top: int | None = None,
    described: Mapping[str, Described] | None = None,
) -> Spend:
    """What rows add up to.

    Args:
        rows: In any order. One belongs to the period in which it begins; one without a date counts where the period
            has no beginning and ends no earlier than it: else it may lie outside, and a remark says what is left out.
        by: Units of time, dimensions, names of labels; an order of nesting.
        zone: Whose hours and days.
        since: Begin of the period, unix seconds.
        until: Its end, unix seconds.
        where: See ``Conditions``.
        top: How many groups are shown within each group around them; the others become one, a remainder.
        described: What is known of conversations and runs beside, by id.
    """
    conditions = Conditions(where)
    total, left_out = Amount(), Amount()
    doubtful: float | None = None
    cells: dict[_Key, _Cell] = {}
    namer = _Namer(by, zone)
    for row in rows:
        if not conditions.accept(row.keys):
            continue
        if row.begin is None and (since is not None or (until is not None and until < row.end)):
            if since is None or since < row.end:
                left_out.include(row.amount)
                doubtful = max(doubtful or row.end, row.end)
            continue
        if row.begin is not None and not _within(row.begin, since, until):
            continue
        total.include(row.amount)
        cells.setdefault(namer.key(row), _Cell()).amount.include(row.amount)
    _describe(cells, by, described or {})
    remarks = () if doubtful is None or not _is_something(left_out) else (_left_out(left_out, doubtful, zone),)
    return Spend(
        timezone=zone.key,
        since=since,
        until=until,
        by=tuple(by),
        groups=tuple(_groups(cells, by, zone, top)),
        total=_shown(total, {}),
        remarks=remarks,
    )


def merge(spends: Sequence[Spend], zone: ZoneInfo, top: int | None = None) -> Spend:
    """Several sources' answers to one question as one: groups of the same keys are added.

    Args:
        spends: At least one, all grouped by the same and none of them cut to its top.
        zone: Whose hours and days all of them have.
        top: As for ``group``.
    """
    first = spends[0]
    total = Amount()
    cells: dict[_Key, _Cell] = {}
    for spend in spends:
        total.include(amount_of(spend.total))
        for each in spend.groups:
            cell = cells.setdefault(tuple(each.keys.get(name) or absent(name) for name in first.by), _Cell())
            cell.amount.include(amount_of(each))
            known = cell.described
            cell.described = Described(
                known.outcome or each.outcome, known.name or each.name, known.tool_calls or each.tool_calls
            )
    return first.model_copy(
        update={
            "groups": tuple(_groups(cells, first.by, zone, top)),
            "total": _shown(total, {}),
            "remarks": tuple(dict.fromkeys(remark for spend in spends for remark in spend.remarks)),
        }
    )


def amount_of(shown: SpendGroup) -> Amount:
    """What a group says, to be added to others."""
    amount = Amount(
        prompt_tokens=shown.accumulated_token_usage.prompt_tokens,
        completion_tokens=shown.accumulated_token_usage.completion_tokens,
        cache_read_tokens=shown.accumulated_token_usage.cache_read_tokens,
        cache_write_tokens=shown.accumulated_token_usage.cache_write_tokens,
        reasoning_tokens=shown.accumulated_token_usage.reasoning_tokens,
        calls=shown.llm_calls,
        unpriced_calls=shown.unpriced_calls,
    )
    amount.cost.add(shown.accumulated_cost)
    amount.read_cost.add(shown.read_cost)
    amount.savings.add(shown.cache_savings)
    amount.seconds.add(shown.llm_seconds)
    return amount


def added(shown: Iterable[SpendGroup], keys: Mapping[str, str]) -> SpendGroup:
    """Several groups as one, under keys of its own."""
    total = Amount()
    for each in shown:
        total.include(amount_of(each))
    return _shown(total, keys)


class _Namer:
    """What a row is called in each of some dimensions; periods are looked up once for each quarter-hour."""

    def __init__(self, by: Sequence[str], zone: ZoneInfo) -> None:
        self._by = [(name, name in UNITS) for name in by]
        self._zone = zone
        self._periods: dict[tuple[str, float], str] = {}

    def key(self, row: SpendRow) -> _Key:
        return tuple(self._period(name, row) if is_time else named(name, row.keys) for name, is_time in self._by)

    def _period(self, unit: str, row: SpendRow) -> str:
        if row.begin is None:
            return before_name(row.end, self._zone)
        quarter = (unit, row.begin // QUARTER_S)
        name = self._periods.get(quarter)
        if name is None:
            name = self._periods[quarter] = period_of(Unit(unit), row.begin, self._zone).name
        return name


def _describe(cells: Mapping[_Key, _Cell], by: Sequence[str], described: Mapping[str, Described]) -> None:
    """A run's outcome says more than that of its conversation."""
    at = next((by.index(name) for name in (Dimension.RUN, Dimension.CONVERSATION) if name in by), None)
    if at is not None:
        for key, cell in cells.items():
            cell.described = described.get(key[at], cell.described)


def _groups(cells: Mapping[_Key, _Cell], by: Sequence[str], zone: ZoneInfo, top: int | None) -> Iterator[SpendGroup]:
    """In order: time first in time, all else dearest first within what is around it."""
    if by:
        limited = {at for at, name in enumerate(by) if name not in UNITS} or {len(by) - 1}
        yield from _level(list(cells.items()), by, 0, zone, dict.fromkeys(limited, top))


def _level(
    cells: list[tuple[_Key, _Cell]], by: Sequence[str], at: int, zone: ZoneInfo, tops: Mapping[int, int | None]
) -> Iterator[SpendGroup]:
    if at == len(by):
        key, cell = cells[0]
        yield _shown(cell.amount, dict(zip(by, key, strict=True)), cell.described)
        return
    inside: dict[str, list[tuple[_Key, _Cell]]] = {}
    for key, cell in cells:
        inside.setdefault(key[at], []).append((key, cell))
    weights = {name: _weight(_sum(members)) for name, members in inside.items()}
    names = sorted(inside, key=lambda name: (weights[name], name))
    top = tops.get(at)
    shown, others = (names, []) if top is None or len(names) <= top else (names[:top], names[top:])
    if by[at] in UNITS:
        shown = sorted(shown, key=lambda name: order_of(name, zone))
    for name in shown:
        yield from _level(inside[name], by, at + 1, zone, tops)
    if others:
        around = dict(zip(by[:at], cells[0][0], strict=False))
        yield _shown(_sum([each for name in others for each in inside[name]]), around, remainder=True)


def _sum(cells: Iterable[tuple[_Key, _Cell]]) -> Amount:
    total = Amount()
    for _, cell in cells:
        total.include(cell.amount)
    return total


def _weight(amount: Amount) -> tuple[float, int, int]:
    """Dearest first; where nothing has a price, what was used most."""
    return -amount.cost.value, -(amount.prompt_tokens + amount.completion_tokens), -amount.calls


def _shown(
    amount: Amount,
    keys: Mapping[str, str],
    described: Described = UNDESCRIBED,
    *,
    remainder: bool = False,
) -> SpendGroup:
    return SpendGroup(
        keys=dict(keys),
        accumulated_cost=amount.cost.value,
        read_cost=amount.read_cost.value,
        cache_savings=amount.savings.value,
        accumulated_token_usage=amount.tokens,
        llm_calls=amount.calls,
        unpriced_calls=amount.unpriced_calls,
        llm_seconds=amount.seconds.value,
        outcome=described.outcome,
        name=described.name,
        tool_calls=described.tool_calls,
        remainder=remainder,
    )


def _within(moment: float, since: float | None, until: float | None) -> bool:
    return (since is None or since <= moment) and (until is None or moment < until)


def _is_something(amount: Amount) -> bool:
    return bool(amount.cost.value or amount.calls or amount.prompt_tokens or amount.completion_tokens)


def _left_out(amount: Amount, end: float, zone: ZoneInfo) -> str:
    return (
        f"{money(amount.cost.value)} of {amount.calls:,} calls {before_name(end, zone)} have no date any more"
        " and are left out: leave out --since and --until to see them"
    )
