"""Two spends side by side: two conversations, two labels, two periods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.money import money
from openhands_otel._internal.report.documents import as_json_of, cell, markdown_table, markdown_text, written_csv
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.report.figures import cost_text, count_text, notes, outcome_text, share, share_text
from openhands_otel._internal.report.table import grid, wrapped
from openhands_otel._internal.spend.conditions import Condition
from openhands_otel._internal.spend.periods import Period, PeriodError, ago, asked, period_of
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension, Unit
from openhands_otel._internal.terminal_text import cells, printable
from openhands_otel.stats import Spend, SpendGroup

_NAME_MOST: Final = 24
_ID_LEAST: Final = 8
"""Characters."""
_TITLE_MOST: Final = _NAME_MOST + 1 + _ID_LEAST


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: what it was called, and what was spent there, by conversation if that is known."""

    name: str
    spend: Spend

    @property
    def conversations(self) -> int:
        return sum(1 for each in self.spend.groups if each.keys.get(Dimension.CONVERSATION) != _NO_CONVERSATION)

    @property
    def title(self) -> str:
        """What it was called; one conversation by what people know it by, beside the beginning of its id."""
        only = self.spend.groups[0] if len(self.spend.groups) == 1 else None
        conversation = "" if only is None else only.keys.get(Dimension.CONVERSATION, "")
        if only is None or only.name is None or not conversation.startswith(self.name):
            return self.name
        return f"{printable(only.name, _NAME_MOST)} {conversation[: max(_ID_LEAST, len(self.name))]}"

    @property
    def outcomes(self) -> str:
        """``3 finished, 1 failed``, most first."""
        counts = Counter(outcome_text(each.outcome) for each in self.spend.groups if each.outcome)
        return ", ".join(
            f"{count:,} {word}" if len(self.spend.groups) > 1 else word for word, count in counts.most_common()
        )


_NO_CONVERSATION: Final = "no conversation"


def question_of(name: str, base: SpendQuestion, now: float) -> SpendQuestion:
    """What a name asks of ``base``: ``label=value``, a period, or else a conversation whose id begins so.

    Raises SourceError.
    """
    if "=" in name:
        return replace(base, where=(*base.where, Condition.of(name)))
    try:
        period = _period(name, now, base.zone)
    except PeriodError:
        return replace(base, where=(*base.where, Condition(Dimension.CONVERSATION, f"{name}*")))
    if base.since is not None or base.until is not None:
        raise SourceError(f"'{name}' is a period: leave out --since, --until and --last")
    return replace(base, since=period.begin, until=period.end)


def _period(name: str, now: float, zone: ZoneInfo) -> Period:
    """Of a name: a moment stands for its hour, and 7d for the last seven days."""
    try:
        return Period(name, ago(name, now, zone), now)
    except PeriodError:
        period = asked(name, now, zone)
        return period if period.begin < period.end else period_of(Unit.HOUR, period.begin, zone)


_CACHED: Final = "cached"
_Text = Callable[[SpendGroup], str]
_ROWS: Final[tuple[tuple[str, _Text, Callable[[SpendGroup], float]], ...]] = (
    ("cost", cost_text, lambda group: group.accumulated_cost),
    ("calls", lambda group: f"{group.llm_calls:,}", lambda group: group.llm_calls),
    ("unpriced calls", lambda group: f"{group.unpriced_calls:,}", lambda group: group.unpriced_calls),
    ("cost a call", lambda group: _per_call(group, money), lambda group: _ratio(group.accumulated_cost, group)),
    (
        "tokens in",
        lambda group: f"{group.accumulated_token_usage.prompt_tokens:,}",
        lambda group: group.accumulated_token_usage.prompt_tokens,
    ),
    (
        "tokens out",
        lambda group: f"{group.accumulated_token_usage.completion_tokens:,}",
        lambda group: group.accumulated_token_usage.completion_tokens,
    ),
    (
        _CACHED,
        lambda group: share_text(_cached(group)[0], _cached(group)[1]),
        lambda group: share(*_cached(group)) or 0.0,
    ),
    ("saved", lambda group: money(group.cache_savings), lambda group: group.cache_savings),
    ("seconds", lambda group: f"{group.llm_seconds:,.1f}", lambda group: group.llm_seconds),
)
"""What is compared: how it reads, and the number."""


def _cached(group: SpendGroup) -> tuple[float, float]:
    return group.accumulated_token_usage.cache_read_tokens, group.accumulated_token_usage.prompt_tokens


def _ratio(amount: float, group: SpendGroup) -> float:
    return amount / group.llm_calls if group.llm_calls else 0.0


def _per_call(group: SpendGroup, text: Callable[[float], str]) -> str:
    return text(_ratio(group.accumulated_cost, group)) if group.llm_calls else ""


def _change(before: float, after: float) -> str:
    """``+31 %``; nothing where there is nothing to be compared with."""
    if not before or before == after:
        return ""
    return f"{(after - before) / abs(before):+,.0%}".replace("%", " %")


def _rows(one: Side, other: Side) -> Iterator[list[str]]:
    for title, text, number in _ROWS:
        before, after = one.spend.total, other.spend.total
        if number(before) or number(after) or title in ("cost", "calls"):
            # A share of a share tells nobody anything.
            change = "" if title == _CACHED else _change(number(before), number(after))
            yield [title, text(before), text(after), change]
    if one.conversations or other.conversations:
        yield ["conversations", count_text(one.conversations), count_text(other.conversations), ""]


def _words(one: Side, other: Side) -> Iterator[list[str]]:
    if one.outcomes or other.outcomes:
        yield ["outcome", one.outcomes, other.outcomes, ""]


def _all(one: Side, other: Side) -> list[list[str]]:
    return [_head(one, other), *_rows(one, other), *_words(one, other)]


def _alone(side: Side, at: int, one: Side, other: Side, width: int) -> str:
    """One of the two, in a terminal that is too narrow for both: what is no figure may take several lines."""
    words = [f"{each[0]}: {each[at]}" for each in _words(one, other) if each[at]]
    figures = grid([[each[0], each[at]] for each in _rows(one, other) if each[at]], width)
    return "\n".join([*wrapped(side.title, width), figures, *(line for each in words for line in wrapped(each, width))])


def _head(one: Side, other: Side) -> list[str]:
    return ["", *(printable(side.title, _TITLE_MOST) for side in (one, other)), "change"]


def _notes(one: Side, other: Side) -> list[str]:
    return [f"{side.name}: {note}" for side in (one, other) for note in notes(side.spend)]


def as_table(one: Side, other: Side, width: int) -> str:
    """For a terminal; one that is too narrow gets one side below the other."""
    text = grid(_all(one, other))
    if max(map(cells, text.splitlines())) > width:
        text = "\n\n".join(_alone(side, at, one, other, width) for at, side in ((1, one), (2, other)))
    return "\n".join([text, *(line for note in _notes(one, other) for line in ("", *wrapped(note, width)))])


def as_markdown(one: Side, other: Side) -> str:
    """For a page or a job's summary."""
    rows = [[markdown_text(each) for each in row] for row in _all(one, other)]
    return "\n\n".join([markdown_table(rows, 1), *map(markdown_text, _notes(one, other))])


def as_csv(one: Side, other: Side) -> str:
    """A row for each figure, with numbers in full."""
    sides = one, other
    rows: list[list[object]] = [
        ["", *(side.title for side in sides)],
        *([title, *(number(side.spend.total) for side in sides)] for title, _, number in _ROWS),
        ["conversations", *(side.conversations for side in sides)],
        ["outcome", *(side.outcomes for side in sides)],
        ["read_cost_usd", *(side.spend.total.read_cost for side in sides)],
    ]
    return written_csv([[cell(each) for each in row] for row in rows])


def as_json(one: Side, other: Side) -> str:
    """Both spends, by conversation."""
    sides: list[Any] = [{"name": side.name, "spend": side.spend.model_dump(mode="json")} for side in (one, other)]
    return as_json_of({"format_version": 1, "sides": sides})


def check(side: Side, zone: ZoneInfo) -> None:
    """Raises SourceError for a name under which nothing is known at all."""
    total = side.spend.total
    if not (total.llm_calls or total.accumulated_cost or total.accumulated_token_usage.prompt_tokens):
        raise SourceError(
            f"nothing was spent under '{printable(side.name, 60)}': name the beginning of a conversation's id,"
            f" label=value, or a period of {zone.key} such as 2026-11 or yesterday"
        )
