"""What each usage id spent: a conversation's cost and tokens in the shape that OpenHands' own stats have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from openhands_otel.semconv import AGENT_ROLES, OVERFLOW, UNKNOWN, TokenType
from openhands_otel.stats import CostShare, ModelCalls, TokenUsage, UsageMetrics

TokenCounts = Mapping[str, int]
"""Tokens by type."""
ContextWindow = tuple[int, int]
"""Tokens of the agent's last turn, and how many its model takes."""

_USAGE_LIMIT = 32


def token_usage(parts: Iterable[TokenCounts], context: ContextWindow = (0, 0)) -> TokenUsage:
    """The sum of some counts."""
    counts = list(parts)

    def total(kind: TokenType) -> int:
        return sum(each.get(kind, 0) for each in counts)

    per_turn, window = context
    return TokenUsage(
        prompt_tokens=total(TokenType.INPUT),
        completion_tokens=total(TokenType.OUTPUT),
        cache_read_tokens=total(TokenType.CACHE_READ),
        cache_write_tokens=total(TokenType.CACHE_WRITE),
        reasoning_tokens=total(TokenType.REASONING),
        context_window=window,
        per_turn_token=per_turn,
    )


def most_used(shares: Sequence[CostShare], calls: Sequence[ModelCalls]) -> tuple[str, str | None]:
    """Model and provider that stand for all: where most money went, or, where none did, most calls."""
    spent = shares[0].model if shares and shares[0].accumulated_cost > 0 else None
    model = spent or next((each.model for each in (*calls, *shares) if each.model != UNKNOWN), UNKNOWN)
    return model, next((each.provider for each in calls if each.model == model), None)


def by_usage(
    shares: Sequence[CostShare], tokens: Mapping[str, TokenCounts], context: ContextWindow, calls: Sequence[ModelCalls]
) -> dict[str, UsageMetrics]:
    """Dearest first; what is beyond the limit shares one entry."""
    called = {each.model for each in calls}
    # Calls don't tell their usage id; where all went to one model, that is whose they were.
    otherwise = called.pop() if len(called) == 1 else UNKNOWN
    costs: dict[str, list[CostShare]] = {}
    for share in shares:
        costs.setdefault(share.usage_id or UNKNOWN, []).append(share)
    named = list(dict.fromkeys([*costs, *tokens]))
    groups = {name: [name] for name in named[:_USAGE_LIMIT]}
    if rest := named[_USAGE_LIMIT:]:
        groups.setdefault(OVERFLOW, []).extend(rest)
    agents = next((share.usage_id for share in shares if share.role in AGENT_ROLES), None)
    return {
        name: UsageMetrics(
            model_name=next((share.model for each in group for share in costs.get(each, ())), otherwise),
            accumulated_cost=math.fsum(share.accumulated_cost for each in group for share in costs.get(each, ())),
            accumulated_token_usage=token_usage(
                (tokens[each] for each in group if each in tokens), context if name == agents else (0, 0)
            ),
        )
        for name, group in groups.items()
    }
