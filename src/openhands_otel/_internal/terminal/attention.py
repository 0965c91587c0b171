"""Which conversations a person must look at, and which run: ``viewer/conversations.js`` decides the same."""

from __future__ import annotations

from typing import Final

from openhands_otel._internal.facts import NEED_OF_OUTCOME, NEED_OF_STATUS, NEEDS
from openhands_otel.semconv import Status
from openhands_otel.stats import ConversationStats

LIVES: Final = ("running", "idle", "ended")
"""Each conversation is one of them."""
CHIPS: Final = (*NEEDS, *LIVES)
"""What conversations are counted and filtered by, most urgent first."""


def life_of(stats: ConversationStats) -> str:
    """One of LIVES."""
    if _is_over(stats):
        return "ended"
    return "running" if stats.status == Status.RUNNING and not stats.stale else "idle"


def need_of(stats: ConversationStats, since: float) -> str:
    """Why a person must look at it (one of NEEDS); an empty text where none must.

    Args:
        stats: The conversation.
        since: Unix seconds: what is over counts if it changed after that.
    """
    over = _is_over(stats)
    if not over and stats.stale:
        return "silent"
    if over and stats.updated_unix_nano / 1e9 < since:
        return ""
    if stats.gone and stats.status == Status.RUNNING:
        return "gone"
    if stats.outcome is None:
        need = NEED_OF_STATUS.get(stats.status or "", "")
    else:
        need = NEED_OF_OUTCOME.get(stats.outcome, "")
    return "" if over and need == "waiting" else need


def _is_over(stats: ConversationStats) -> bool:
    return stats.closed or stats.gone or stats.ended
