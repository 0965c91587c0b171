"""The state of one conversation that viewers see, of what its processes say; its size does not grow with calls."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.combining.breakdowns import calls_of, shares_of, tokens_of
from openhands_otel._internal.combining.facts_of import combined
from openhands_otel._internal.combining.naming import labels_of, name_of
from openhands_otel._internal.combining.told import ToldSeries
from openhands_otel._internal.usages import by_usage, most_used, token_usage
from openhands_otel.stats import ConversationStats

OVERDUE: Final = 2.5
"""Intervals without a word after which a process is silent."""


class Life(enum.StrEnum):
    """What is known of a process."""

    LIVE = "live"
    SILENT = "silent"
    GONE = "gone"
    ENDED = "ended"


def parent_of(conversation_id: str, series: ToldSeries[Any]) -> str | None:
    """Whose sub-agent it is; one that names itself has no parent."""
    info = series.current(semconv.CONVERSATION_INFO)
    parent = None if info is None else info.named(semconv.CONVERSATION_PARENT_ID)
    return None if parent in {None, "", conversation_id} else parent


def stats_of(
    conversation_id: str,
    series: ToldSeries[Any],
    services: Mapping[str, str],
    process_labels: Mapping[str, str],
    zone: tzinfo | None,
) -> ConversationStats:
    """All that its series say.

    Args:
        conversation_id: Its id.
        series: Its series.
        services: Service names by process.
        process_labels: Labels of its processes.
        zone: Whose clock its name goes by; None for this machine's.
    """
    shares, tokens, calls, closed = shares_of(series), tokens_of(series), calls_of(series), series.closed
    model, provider = most_used(shares, calls)
    told = combined(series)
    turn, limit = (told.pop(f"accumulated_token_usage.{name}") for name in ("per_turn_token", "context_window"))
    context = turn or 0, limit or 0
    reasons: str | None = told["unreconciled_reasons"]
    told |= {
        "parent_id": parent_of(conversation_id, series),
        "accumulated_token_usage": token_usage(tokens.values(), context),
        "unreconciled_reasons": tuple(reasons.split(",")) if reasons else (),
    }
    if closed:
        told |= {"activity": None, "activity_since": None}
    service, labels = services.get(series.last_process), labels_of(series, process_labels)
    started = min((held.series.start for _, held in series.each() if held.series.start), default=0)
    return ConversationStats(
        conversation_id=conversation_id,
        name=name_of(labels, told["title"], service, started, zone),
        labels=labels,
        service=service,
        processes=len(services),
        model_name=model,
        provider_name=provider,
        calls_by_model=calls,
        costs=shares,
        usage_to_metrics=by_usage(shares, tokens, context, calls),
        closed=closed,
        started_unix_nano=started,
        updated_unix_nano=max((held.series.time for _, held in series.each()), default=0),
        **told,
    )


def of_life(life: Life, closed: bool) -> dict[str, Any]:
    """The fields that say what became of the process that works on a conversation."""
    if life is Life.LIVE or closed:
        return {}
    # Whatever it said last, nothing runs there now that anybody knows of.
    left_alone = {"stale": life is not Life.ENDED, "gone": life is Life.GONE, "ended": life is Life.ENDED}
    return {"activity": None, "activity_since": None, **left_alone}
