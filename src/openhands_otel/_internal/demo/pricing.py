"""The scripted provider's own price list.

Written out here, not taken from litellm, because a bill that is computed by the program under test proves nothing. A
test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from openhands_otel._internal.demo.answers import Usage


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the provider sells: the name its responses carry, and US dollars per million tokens."""

    dated_name: str
    input: float
    cached: float
    output: float


MODELS = {
    "gpt-4o": Model("gpt-4o-2024-08-06", input=2.50, cached=1.25, output=10.00),
    "gpt-4o-mini": Model("gpt-4o-mini-2024-07-18", input=0.15, cached=0.075, output=0.60),
    "gpt-5": Model("gpt-5-2025-08-07", input=1.25, cached=0.125, output=10.00),
    "gpt-5-mini": Model("gpt-5-mini-2025-08-07", input=0.25, cached=0.025, output=2.00),
}
_PER_MILLION = 1e-6


def price(model: str, usage: Usage) -> float | None:
    """What ``usage`` costs, or None for a model that has no price."""
    sold = MODELS.get(model)
    if sold is None:
        return None
    full = usage.input - usage.cached
    return (full * sold.input + usage.cached * sold.cached + usage.output * sold.output) * _PER_MILLION
