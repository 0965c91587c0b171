"""Puts a viewer's numbers over those that an agent server has sent of a conversation, usage id by usage id.

The server's come late, or not at all during a run, and are wrong where OpenHands' own totals are (see
docs/accounting.md); the viewer's lack what was spent before the first process that it has seen. So each usage id shows
whichever has counted further, except where the viewer knows that OpenHands' own total is off: then its word stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openhands_otel._internal.ledger.account import AGREEMENT
from openhands_otel.semconv import Reason
from openhands_otel.stats import ConversationStats

ROLLED_UP: Final = ("task:", "delegate:", "agent-hook:")
"""Usage ids under which a conversation's stats take in what conversations under it have spent."""
UNDER_WAY: Final = "subagents"
"""Usage id of what conversations under it have spent and is not rolled up yet. Cost only."""
_ADDED: Final = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_HARMLESS: Final = frozenset({Reason.SUBAGENTS, Reason.HOOKS})

Metrics = Mapping[str, Any]
"""OpenHands' ``MetricsSnapshot`` as JSON."""
Usages = Mapping[str, Metrics]
"""Metrics by usage id."""
_NONE: Final[Metrics] = {}


def overlaid(own: Usages, before: Usages, seen: ConversationStats) -> dict[str, Any]:
    """``own`` with what the viewer has ``seen``; ``before`` is what it has not."""
    sound = set(seen.unreconciled_reasons) <= _HARMLESS
    result: dict[str, Any] = {}
    rolled_up = 0.0
    for name in dict.fromkeys([*own, *seen.usage_to_metrics, *before]):
        theirs = own.get(name, _NONE)
        if name.startswith(ROLLED_UP):
            rolled_up += _cost(theirs)
            result[name] = theirs
            continue
        ours = _sum(seen, name, before.get(name, _NONE))
        behind = _progress(theirs) > _progress(ours)
        result[name] = theirs if sound and behind else {**theirs, **ours}
    under_way = seen.tree_cost - seen.accumulated_cost - rolled_up
    if under_way > AGREEMENT:
        result[UNDER_WAY] = {"accumulated_cost": under_way}
    return result


def spent_before(own: Usages, seen: ConversationStats) -> dict[str, Any]:
    """Of what the server says, that which the viewer has not seen: no more than it knows to be restored."""
    left = seen.restored_cost
    before: dict[str, Any] = {}
    for name, theirs in own.items():
        ours = _sum(seen, name, _NONE)
        cost = min(_cost(theirs) - ours["accumulated_cost"], left)
        if name.startswith(ROLLED_UP) or cost <= AGREEMENT:
            continue
        left -= cost
        counted, known = _tokens(theirs), ours["accumulated_token_usage"]
        tokens = {kind: max(0, counted.get(kind, 0) - known[kind]) for kind in _ADDED}
        before[name] = {"accumulated_cost": cost, "accumulated_token_usage": tokens}
    return before


def _sum(seen: ConversationStats, name: str, before: Metrics) -> dict[str, Any]:
    usage = seen.usage_to_metrics.get(name)
    if usage is None:
        tokens, cost, named = dict.fromkeys(_ADDED, 0), 0.0, dict[str, Any]()
    else:
        tokens, cost = usage.accumulated_token_usage.model_dump(), usage.accumulated_cost
        named = {"model_name": usage.model_name}
    for kind in _ADDED:
        tokens[kind] += _tokens(before).get(kind, 0)
    return {**named, "accumulated_cost": cost + _cost(before), "accumulated_token_usage": tokens}


def _progress(metrics: Metrics) -> tuple[float, int]:
    tokens = _tokens(metrics)
    counted = tokens.get("prompt_tokens", 0) + tokens.get("completion_tokens", 0)
    return round(_cost(metrics), 9), counted


def _cost(metrics: Metrics) -> float:
    return float(metrics.get("accumulated_cost") or 0.0)


def _tokens(metrics: Metrics) -> Mapping[str, int]:
    return metrics.get("accumulated_token_usage") or {}
