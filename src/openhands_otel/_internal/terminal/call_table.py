"""The calls of one conversation as rows that add up to what its metrics say it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from rich.text import Text

from openhands_otel._internal.money import ROUNDING, money
from openhands_otel._internal.terminal.layout import Column
from openhands_otel._internal.terminal.words import LONGEST_TEXT, short, took
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Call, Calls

SORTS: Final = {
    "begun": "begun",
    "cost": "cost",
    "role": "role",
    "model": "model",
    "in": "prompt_tokens",
    "out": "completion_tokens",
    "took": "seconds",
    "first": "first_chunk_seconds",
    "retries": "retries",
    "error": "error_type",
}
"""What a source sorts by, by the name of a column."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call; or a sum, which has a name."""

    call: Call | None = None
    name: str = ""
    cost: float | None = None


def call_rows(calls: Calls) -> list[CallRow]:
    """Those of the page, then what is on no page and what no span tells, then the total."""
    rows = [CallRow(call, cost=call.cost) for call in calls.calls]
    shown = sum(call.cost or 0.0 for call in calls.calls)
    if more := calls.count - len(calls.calls):
        rows.append(CallRow(name=f"{more:,} calls more", cost=calls.calls_cost - shown))
    if abs(calls.rest_cost) > ROUNDING:
        rows.append(CallRow(name="without a span here: aged out, sampled away, or not sent yet", cost=calls.rest_cost))
    rows.append(CallRow(name=f"all {calls.llm_calls:,} responses", cost=calls.accumulated_cost))
    return rows


def call_columns(zone: tzinfo) -> tuple[Column[CallRow], ...]:
    """Columns of the rows, with times of day in a zone."""

    def begun(row: CallRow, _: float) -> Text:
        return Text("" if row.call is None else f"{datetime.fromtimestamp(row.call.begun, zone):%d %b %H:%M:%S}")

    return (
        Column("begun", "time", begun, least=15, left=True),
        Column("role", "role", _of(lambda call: "run" if call.is_run else call.role), 5, least=6, left=True),
        Column("model", "model", _of(lambda call: call.model), 4, least=10, left=True),
        Column("in", "in", _of(lambda call: _count(call.tokens.prompt_tokens)), 2),
        Column("cached", "cached", _of(lambda call: _count(call.tokens.cache_read_tokens)), 7),
        Column("out", "out", _of(lambda call: _count(call.tokens.completion_tokens)), 3),
        Column("took", "took", _of(lambda call: took(call.seconds)), 1),
        Column("first", "first chunk", _of(_first), 8, unless_empty=True),
        Column("retries", "retries", _of(lambda call: _count(call.retries)), 9, unless_empty=True),
        Column("cost", "$", lambda row, _: Text("" if row.cost is None else money(row.cost), style="bold")),
        Column("finish", "finish", _of(lambda call: call.finish_reason), 10, least=6, left=True, unless_empty=True),
        Column("error", "error", _of(_wrong, "red"), 6, least=8, left=True, unless_empty=True),
    )


def _of(read: Callable[[Call], str | None], style: str = "") -> Callable[[CallRow, float], Text]:
    def cell(row: CallRow, _: float) -> Text:
        return Text("" if row.call is None else printable(read(row.call) or "", LONGEST_TEXT), style=style)

    return cell


def _count(number: int) -> str:
    return short(number) if number else ""


def _wrong(call: Call) -> str:
    return ", ".join(filter(None, (call.error_type, "cost without tokens" if call.cost_without_tokens else None)))


def _first(call: Call) -> str:
    return "" if call.first_chunk_seconds is None else took(call.first_chunk_seconds)
