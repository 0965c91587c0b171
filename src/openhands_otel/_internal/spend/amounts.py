"""What was spent: money, tokens, calls and seconds, added up without rounding in whatever order rows come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.exact import ExactSum
from openhands_otel.semconv import Metric, TokenType
from openhands_otel.stats import Share, TokenUsage

TOKEN_FIELDS: Final[Mapping[TokenType, str]] = {
    TokenType.INPUT: "prompt_tokens",
    TokenType.OUTPUT: "completion_tokens",
    TokenType.CACHE_READ: "cache_read_tokens",
    TokenType.CACHE_WRITE: "cache_write_tokens",
    TokenType.REASONING: "reasoning_tokens",
}
"""Fields of ``Amount`` that count tokens, by kind."""
CALLS_FIELD: Final = "calls"
SECONDS_FIELD: Final = "seconds"
EXACT: Final = ("cost", "savings", SECONDS_FIELD)
"""Fields that are sums without rounding (``read_cost`` is a part of one of them)."""
WHOLE: Final = (*TOKEN_FIELDS.values(), CALLS_FIELD, "unpriced_calls")
"""Fields that are whole numbers."""
COUNTERS: Final[Mapping[Metric, str]] = {
    semconv.COST: "cost",
    semconv.CACHE_SAVINGS: "savings",
    semconv.CALLS: CALLS_FIELD,
    semconv.UNPRICED_CALLS: "unpriced_calls",
    **{metric: TOKEN_FIELDS[kind] for kind, metric in semconv.TOKEN_COUNTERS.items()},
}
"""The field that each counter of a process adds to."""
RESIDUE: Final = 1e-12
"""What rounding leaves."""


@dataclass(slots=True)
class Amount:
    """A sum. Fields are named as ``stats.SpendGroup`` names them."""

    cost: ExactSum = field(default_factory=ExactSum)
    """US dollars, of both kinds below."""
    read_cost: ExactSum = field(default_factory=ExactSum)
    """That part of ``cost`` that was read from OpenHands' own files: a lower bound."""
    savings: ExactSum = field(default_factory=ExactSum)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    unpriced_calls: int = 0
    seconds: ExactSum = field(default_factory=ExactSum)

    def include(self, other: Amount, sign: int = 1) -> None:
        """Add all that another holds, or take it away where ``sign`` is -1."""
        self.cost.include(other.cost, sign)
        self.read_cost.include(other.read_cost, sign)
        self.savings.include(other.savings, sign)
        self.prompt_tokens += sign * other.prompt_tokens
        self.completion_tokens += sign * other.completion_tokens
        self.cache_read_tokens += sign * other.cache_read_tokens
        self.cache_write_tokens += sign * other.cache_write_tokens
        self.reasoning_tokens += sign * other.reasoning_tokens
        self.calls += sign * other.calls
        self.unpriced_calls += sign * other.unpriced_calls
        self.seconds.include(other.seconds, sign)

    def grow(self, name: str, before: float, after: float) -> None:
        """Add to one of its fields what a value has grown by; their difference may not be a float."""
        if name in EXACT:
            held: ExactSum = getattr(self, name)
            held.add(after)
            held.add(-before)
        else:
            setattr(self, name, getattr(self, name) + int(after) - int(before))

    @property
    def whole(self) -> tuple[int, ...]:
        """What is counted in whole numbers, in the order of ``WHOLE``."""
        return tuple(getattr(self, name) for name in WHOLE)

    @property
    def anything(self) -> bool:
        """Whether it is more, or less, than nothing; what rounding leaves of it is nothing."""
        return any(self.whole) or any(abs(part.value) > RESIDUE for part in (self.cost, self.savings, self.seconds))

    @property
    def tokens(self) -> TokenUsage:
        """The tokens by kind."""
        return TokenUsage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


def shares(amounts: Mapping[str, Amount]) -> tuple[Share, ...]:
    """Parts of one total by name, the largest first."""
    parts = [
        Share(
            name=name,
            accumulated_cost=amount.cost.value,
            accumulated_token_usage=amount.tokens,
            llm_calls=amount.calls,
            unpriced_calls=amount.unpriced_calls,
        )
        for name, amount in amounts.items()
    ]
    return tuple(sorted(parts, key=lambda share: (-share.accumulated_cost, share.name)))
