"""Whose a conversation's spend is: cost by role and model, calls by model and provider, tokens by usage id."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.combining.told import ToldSeries
from openhands_otel.semconv import OVERFLOW, UNKNOWN
from openhands_otel.stats import CostShare, ModelCalls

_LIMIT: Final = 32
"""Parts of a breakdown; what is beyond shares one more."""


def tokens_of(series: ToldSeries[Any]) -> dict[str, dict[str, int]]:
    """Tokens by usage id and type."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for held in series.of(semconv.CONVERSATION_TOKENS):
        usage_id = held.named(semconv.USAGE_ID) or UNKNOWN
        found[usage_id][held.named(semconv.TOKEN_TYPE) or ""] += int(held.series.total)
    return found


def calls_of(series: ToldSeries[Any]) -> tuple[ModelCalls, ...]:
    """Calls by model and provider; of agents before they said so, under a model that is not known."""
    parts: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for place, metric in enumerate((semconv.CONVERSATION_CALLS, semconv.CONVERSATION_UNPRICED)):
        for held in series.of(metric):
            model = held.named(semconv.REQUEST_MODEL) or UNKNOWN
            parts[model, held.named(semconv.PROVIDER_NAME)][place] += int(held.series.total)
    most = sorted(parts.items(), key=lambda part: (-part[1][0], part[0][0], part[0][1] or ""))
    calls = [
        ModelCalls(model=model, provider=provider, llm_calls=made, unpriced_calls=unpriced)
        for (model, provider), (made, unpriced) in most[:_LIMIT]
    ]
    if rest := [counts for _, counts in most[_LIMIT:]]:
        made, unpriced = (sum(counts[place] for counts in rest) for place in (0, 1))
        calls.append(ModelCalls(model=OVERFLOW, llm_calls=made, unpriced_calls=unpriced))
    return tuple(calls)


def shares_of(series: ToldSeries[Any]) -> tuple[CostShare, ...]:
    """Cost by role, model and usage id, dearest first."""
    parts: dict[tuple[str, str, str | None], list[float]] = defaultdict(list)
    for held in series.of(semconv.CONVERSATION_COST):
        role, model = held.named(semconv.LLM_ROLE), held.named(semconv.REQUEST_MODEL)
        key = UNKNOWN if role is None else role, UNKNOWN if model is None else model, held.named(semconv.USAGE_ID)
        parts[key].append(held.series.total)
    costs = sorted(((math.fsum(values), *key) for key, values in parts.items()), key=lambda part: -part[0])
    shares = [
        CostShare(role=role, model=model, usage_id=usage, accumulated_cost=cost)
        for cost, role, model, usage in costs[:_LIMIT]
    ]
    if rest := costs[_LIMIT:]:
        cost = math.fsum(part[0] for part in rest)
        shares.append(CostShare(role=OVERFLOW, model=OVERFLOW, accumulated_cost=cost))
    return tuple(shares)
