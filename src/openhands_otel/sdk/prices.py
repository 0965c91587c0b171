"""What a cached input token saves, from litellm's own price table, asked once per model.

Custom prices know no cache discount, and where the provider named the price itself the table is still the best
statement of what the same tokens would have cost without a cache.
"""

from __future__ import annotations

import sys

_CACHE_LIMIT = 1024
_saved_per_token: dict[tuple[str, str], float | None] = {}


def cache_savings(model: str, provider: str, cached_tokens: int) -> float | None:
    """US dollars that ``cached_tokens`` cost less than full input tokens; None where the prices are unknown."""
    key = (model, provider)
    if key not in _saved_per_token:
        if len(_saved_per_token) >= _CACHE_LIMIT:
            return None
        _saved_per_token[key] = _look_up(model)
    saved = _saved_per_token[key]
    return None if saved is None else saved * cached_tokens


def _look_up(model: str) -> float | None:
    prices = getattr(sys.modules.get("litellm"), "model_cost", {}).get(model)
    if not prices:
        return None
    full, cached = prices.get("input_cost_per_token"), prices.get("cache_read_input_token_cost")
    return None if full is None or cached is None else max(0.0, full - cached)
