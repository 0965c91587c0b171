"""What was spent: money, tokens, calls and seconds, added up without rounding in whatever order rows come."""

from __future__ import annotations

from dataclasses import dataclass, field

from openhands_otel._internal.exact import ExactSum
from openhands_otel.stats import TokenUsage


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

    @property
    def anything(self) -> bool:
        """Whether it is more, or less, than nothing; what rounding leaves of it is nothing."""
        counts = (self.calls, self.unpriced_calls, *self.tokens.model_dump().values())
        return any(counts) or any(abs(part.value) > 1e-12 for part in (self.cost, self.savings, self.seconds))

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
