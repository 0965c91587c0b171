"""What is known of one conversation, as names and values; and what it was spent on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from rich.text import Text

from openhands_otel._internal.facts import FACTS, REASONS, TITLES, Format
from openhands_otel._internal.money import ROUNDING, money
from openhands_otel._internal.terminal.layout import Column
from openhands_otel._internal.terminal.words import LONGEST_TEXT, lasting, spent, state_text
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import ConversationStats


@dataclass(frozen=True, slots=True)
class AboutLine:
    """A line."""

    name: str
    text: str


FACT_COLUMNS: Final = (
    Column[AboutLine]("name", "fact", lambda fact, _: Text(fact.name, style="dim"), least=12, left=True),
    Column[AboutLine]("text", "", lambda fact, _: Text(fact.text), least=20, left=True),
)


def facts_about(stats: ConversationStats, zone: tzinfo, trace_url: str | None = None) -> list[AboutLine]:
    """All that is known of it, what is not known left out."""

    def moment(nano: int) -> str:
        return f"{datetime.fromtimestamp(nano / 1e9, zone):%Y-%m-%d %H:%M:%S}" if nano else ""

    usage = stats.accumulated_token_usage
    labels = [(TITLES.get(name, name), value) for name, value in stats.labels.items() if name != "name"]
    told = (
        ("name", stats.name),
        ("id", stats.conversation_id),
        ("sub-agent of", stats.parent_id),
        ("status", state_text(stats).plain),
        *labels,
        ("agent", stats.agent),
        ("service", stats.service),
        ("model", stats.model_name),
        ("provider", stats.provider_name),
        ("SDK", stats.sdk_version),
        ("began", moment(stats.started_unix_nano)),
        ("last change", moment(stats.updated_unix_nano)),
        ("cost", spent(stats.accumulated_cost, stats.unpriced_calls)),
        ("with sub-agents", f"{money(stats.tree_cost)} ({stats.descendants:,})" if stats.descendants else ""),
        *((f"  {share.role} · {share.model}", money(share.accumulated_cost)) for share in stats.costs),
        ("tokens in", f"{usage.prompt_tokens:,} ({usage.cache_read_tokens:,} cached)"),
        ("tokens out", f"{usage.completion_tokens:,} ({usage.reasoning_tokens:,} reasoning)"),
        ("context", f"{usage.per_turn_token:,} of {usage.context_window:,}" if usage.context_window else ""),
        ("LLM calls", f"{stats.llm_calls:,}"),
        *_remarks(stats, zone),
        ("trace", trace_url),
    )
    return [AboutLine(printable(name, LONGEST_TEXT), printable(text, 2 * LONGEST_TEXT)) for name, text in told if text]


def _remarks(stats: ConversationStats, zone: tzinfo) -> list[tuple[str, str]]:
    """What ``facts.py`` has to say of it."""
    remarks: list[tuple[str, str]] = []
    for fact in FACTS:
        if not (fact.field and fact.remark) or fact.field not in ConversationStats.model_fields:
            continue
        value = getattr(stats, fact.field)
        if value == ConversationStats.model_fields[fact.field].default:
            continue
        text = _difference(stats) if fact.format is Format.DIFFERENCE else _formats(zone)[fact.format](value)
        if text:
            remarks.append(("", fact.remark.format(text, s="" if value == 1 else "s")))
    return remarks


def _formats(zone: tzinfo) -> dict[Format, Callable[[Any], str]]:
    return {
        Format.TEXT: str,
        Format.COUNT: lambda number: f"{number:,}",
        Format.MONEY: money,
        Format.SECONDS: lasting,
        Format.MOMENT: lambda moment: f"{datetime.fromtimestamp(moment, zone):%Y-%m-%d %H:%M:%S}",
    }


def _difference(stats: ConversationStats) -> str:
    """What OpenHands' own total says otherwise, and why."""
    amount = stats.unreconciled_cost or 0.0
    if abs(amount) <= ROUNDING:
        return ""
    why = "; ".join(REASONS.get(reason, reason) for reason in stats.unreconciled_reasons)
    return f"{money(abs(amount))} {'more' if amount < 0 else 'less'}{f': {why}' if why else ''}"
