"""Three accounts of the same work, and whether they agree: the provider's, OpenHands' own, the viewer's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from openhands_otel.stats import ConversationStats

COST_TOLERANCE = 1e-9
"""US dollars; floating-point sums of the same amounts in another order differ by less."""


@dataclass(frozen=True, slots=True)
class DemoTotals:
    """One account. Cached tokens are part of the input, reasoning is part of the output."""

    cost: float
    calls: int
    input: int
    cached: int
    output: int
    reasoning: int

    @classmethod
    def of_bill(cls, bill: Mapping[str, Any]) -> Self:
        """From what ``GET /bill`` of the scripted provider answers."""
        return cls(cost=bill["total"], calls=bill["calls"], **bill["tokens"])

    @classmethod
    def of_stats(cls, stats: ConversationStats) -> Self:
        """From what the viewer streams."""
        tokens = stats.accumulated_token_usage
        return cls(
            cost=stats.accumulated_cost,
            calls=stats.llm_calls,
            input=tokens.prompt_tokens,
            cached=tokens.cache_read_tokens,
            output=tokens.completion_tokens,
            reasoning=tokens.reasoning_tokens,
        )

    def differences(self, other: DemoTotals) -> list[str]:
        """Names of what is not the same in ``other``: tokens and calls exactly, cost to COST_TOLERANCE."""
        mine, theirs = asdict(self), asdict(other)
        exact = [name for name in mine if name != "cost" and mine[name] != theirs[name]]
        return exact if abs(self.cost - other.cost) <= COST_TOLERANCE else ["cost", *exact]
