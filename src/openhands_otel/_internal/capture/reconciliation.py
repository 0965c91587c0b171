"""OpenHands' own total of a conversation, and the known reasons why it may differ from what was billed.

Its stats hold one ``Metrics`` per usage id, and go wrong where such an object is one of two, or is another's, or is no
longer the one that is written to; and they take in what children spent. Each of these can be seen on the live objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openhands_otel._internal.capture import compat
from openhands_otel.events import OwnTotal
from openhands_otel.semconv import Reason

COMPARED_LIMIT = 200
"""Other open conversations whose meters are compared: looking at thousands would hold the agent up."""


def own_total(conversation: Any, others: Iterable[Any]) -> OwnTotal | None:
    """OpenHands' own total of ``conversation``; None if it cannot be read.

    The plain sum over usages: ``get_combined_metrics`` would copy every record of every call.
    """
    usages = _usages(conversation)
    if usages is None:
        return None
    reasons: set[Reason] = set()
    meters = {id(metrics) for metrics in usages.values()}
    if len({_first_entry(metrics) for metrics in usages.values()}) < len(usages):
        reasons.add(Reason.METER_TWICE)
    if any(name.startswith(("task:", "delegate:")) for name in usages):
        reasons.add(Reason.SUBAGENTS)
    if any(name.startswith("agent-hook:") for name in usages):
        reasons.add(Reason.HOOKS)
    if _is_stale(conversation, usages):
        reasons.add(Reason.STALE_METER)
    for other in others:
        if other is not conversation and meters & {id(metrics) for metrics in (_usages(other) or {}).values()}:
            reasons.add(Reason.SHARED_METER)
            break
    total = float(sum(metrics.accumulated_cost for metrics in usages.values()))
    return OwnTotal(total, frozenset(usages), frozenset(reasons))


def meters_of(agent: Any) -> tuple[Any, ...]:
    """The meters that an agent's LLMs have now."""
    llms = (getattr(agent, "llm", None), getattr(getattr(agent, "condenser", None), "llm", None))
    return tuple(meter for llm in llms if (meter := getattr(llm, "_metrics", None)) is not None)


def restored_cost(conversation: Any, others: tuple[Any, ...]) -> float:
    """What a conversation had spent before it was opened; ``others`` are meters that it was given and that are not its.

    Releases before 1.10 put the meter of an LLM that has worked elsewhere into a new conversation's stats.
    """
    meters = tuple((_usages(conversation) or {}).values())
    own = [meter for meter in meters if not any(meter is other for other in others)]
    return float(sum(meter.accumulated_cost for meter in own))


def _usages(conversation: Any) -> dict[str, Any] | None:
    stats = getattr(compat.state_of(conversation), "stats", None)
    usages: dict[str, Any] | None = getattr(stats, "usage_to_metrics", None)
    return None if usages is None else dict(usages)


def _first_entry(metrics: Any) -> Any:
    """What tells a meter from others, its copies included: a copy begins with the same entry, made at the same time."""
    return metrics.costs[0].timestamp if metrics.costs else id(metrics)


def _is_stale(conversation: Any, usages: dict[str, Any]) -> bool:
    """Whether the agent's LLM writes to another meter than the one that its usage id has in the stats."""
    llm = getattr(getattr(conversation, "agent", None), "llm", None)
    telemetry = getattr(llm, "_telemetry", None)
    kept = usages.get(getattr(llm, "usage_id", None) or "")
    return telemetry is not None and kept is not None and getattr(telemetry, "metrics", None) is not kept
