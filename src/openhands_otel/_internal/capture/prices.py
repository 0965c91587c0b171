"""What litellm's price table says, by the very function that priced a call: ``Telemetry._compute_cost``.

A price depends on the key under which litellm finds a model (its provider, region, route, the name in the answer), on
the size of the input, the service tier, the time of day. So nothing is looked up here a second time: what a cache saved
is what the same function asks for the same answer without cached tokens, less what it asked. That takes as long as the
call's own price, so where the table has one flat price, and the difference is just that, it is remembered.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

LITELLM_COST_HEADER = "llm_provider-x-litellm-response-cost"
_NOT_FLAT = ("tiered", "off_peak")
"""In names of prices that depend on more than the kind of token. So do those above a number of tokens (below)."""
_THRESHOLD = re.compile(r"_above_(\d+)(k?)_tokens")
_SAME = 1e-9
"""As part of a price: two floats that were added up in another order."""
_BASE_TIERS = (None, "auto", "default", "standard")
_NAME_PRICES = ("openrouter", "perplexity", "xai")
"""Providers whose price in ``usage`` litellm takes for the price. Of a streamed answer it writes its own there."""
_OWN_MACHINE = ("ollama", "ollama_chat", "llamafile", "lm_studio", "hosted_vllm", "vllm")
_OTHER_KINDS = ("audio_tokens", "image_tokens", "video_tokens", "cached_tokens_details")
_CACHE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class PriceQuery:
    """One question for a price, as OpenHands asked it: ``Telemetry._compute_cost(response, ...)`` and its answer."""

    telemetry: Any
    response: Any
    more: tuple[Any, ...]
    keywords: dict[str, Any]
    cost: float

    def again(self, response: Any) -> float | None:
        """What the same function says of another response."""
        return self.telemetry._compute_cost(response, *self.more, **self.keywords)


@dataclass(frozen=True, slots=True)
class _Flat:
    """A flat price of the table: the entry, what it said, and between which numbers of input tokens it holds."""

    entry: dict[str, Any]
    full_name: str
    cached_name: str
    full: float
    cached: float
    above: float
    below: float

    @property
    def stands(self) -> bool:
        """Whether the entry still says so: prices can be registered at any time."""
        return (self.full, self.cached) == _pair(self.entry, self.full_name, self.cached_name)


_EFFORT: Final = re.compile(r"\[[^\[\]]*\]$")


@dataclass(frozen=True, slots=True)
class AgentTokens:
    """Tokens of one turn as an ACP agent reports them: cached ones beside the input."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int = 0
    """Of the output."""


_flat: dict[tuple[Any, ...], tuple[_Flat, ...]] = {}
"""By provider and names of a model: its flat prices that were seen to be what litellm takes."""


def cache_savings(asked: PriceQuery, cached_tokens: int) -> float | None:
    """US dollars that ``cached_tokens`` cost less than full input tokens; None where that is not known."""
    usage: Any = getattr(asked.response, "usage", None)
    names = (*_names(asked), asked.telemetry.model_name)
    simple = _is_simple(asked.response, usage, cached_tokens) and not any(name in _NAME_PRICES for name in names)
    if not simple:
        return _ask(asked, usage)
    known = _flat.get(names, ())
    for flat in known:
        if flat.above < usage.prompt_tokens < flat.below and flat.stands:
            return (flat.full - flat.cached) * cached_tokens
    saved = _ask(asked, usage)
    flat = _flat_price(_entry(asked), usage.prompt_tokens)
    if saved is None or flat is None or len(_flat) >= _CACHE_LIMIT:
        return saved
    if abs((flat.full - flat.cached) * cached_tokens - saved) <= _SAME * (asked.cost + saved):
        _flat[names] = (flat, *(each for each in known if each.above != flat.above))
    return saved


def is_free(asked: PriceQuery, *, has_tokens: bool) -> bool:
    """Whether a cost of zero by litellm's table is a price, and not an entry without one or an answer without tokens.

    litellm's code, too, prices what is not in the table: at nothing what runs on one's own machine, and so it does with
    models that are newer than the table, of a family that it knows, which nobody has a price of.
    """
    entry = _entry(asked)
    if entry is None:
        return has_tokens and any(name in _OWN_MACHINE for name in _providers(asked))
    prices = [price for name, price in entry.items() if "cost" in name or "pricing" in name]
    return any(price is not None for price in prices) and (has_tokens or not any(prices))


def price_of_tokens(model: str, tokens: AgentTokens) -> float | None:
    """US dollars that so many tokens cost by litellm's table; None where it has no price of the model.

    For what an agent's own program asked, of which nothing is known but this. Agents write how hard a model is to think
    behind its name, as in ``gpt-5.6[high]`` or ``gpt-5.6/high``.
    """
    table: dict[str, dict[str, Any]] = getattr(sys.modules.get("litellm"), "model_cost", {})
    plain = _EFFORT.sub("", model)
    names = (
        name
        for each in (model, plain, plain.rpartition("/")[0], plain.rpartition("/")[2])
        for name in (each, each.lower())
    )
    entry = next((table[name] for name in names if name in table), None)
    if entry is None:
        return None
    full, output = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if full is None or output is None:
        return None
    read, written = entry.get("cache_read_input_token_cost"), entry.get("cache_creation_input_token_cost")
    cached = tokens.cache_read * (full if read is None else read)
    return tokens.input * full + cached + tokens.cache_write * (written or full) + tokens.output * output


def _ask(asked: PriceQuery, usage: Any) -> float | None:
    if getattr(usage, "cost", None) is not None:
        # The provider may have named the price of this answer: then it is not litellm's, and not to be compared.
        cost = asked.again(_with_usage(asked.response, usage.model_copy(update={"cost": None})))
        if cost is None or abs(cost - asked.cost) > _SAME * asked.cost:
            return None
    without = asked.again(_with_usage(asked.response, _without_cache(usage)))
    return None if without is None or without < asked.cost else without - asked.cost


def _with_usage(response: Any, usage: Any) -> Any:
    return response.model_copy(update={"usage": usage})


def _without_cache(usage: Any) -> Any:
    """The same usage, all of its input read anew."""
    changed: dict[str, Any] = {}
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = getattr(usage, name, None)
        if details is not None:
            # Text tokens may be counted with or without cached ones; litellm takes what is left for text.
            nothing = {"cached_tokens": 0, "text_tokens": None, "cached_tokens_details": None}
            changed[name] = details.model_copy(update={key: nothing[key] for key in nothing if hasattr(details, key)})
    for name in ("cache_read_input_tokens", "prompt_cache_hit_tokens"):
        if getattr(usage, name, None):
            changed[name] = 0
    if getattr(usage, "prompt_cache_miss_tokens", None) is not None:
        changed["prompt_cache_miss_tokens"] = usage.prompt_tokens
    if getattr(usage, "cost", None) is not None:
        changed["cost"] = None
    plain = usage.model_copy(update=changed)
    if getattr(plain, "_cache_read_input_tokens", 0):
        plain._cache_read_input_tokens = 0
    return plain


def _is_simple(response: Any, usage: Any, cached_tokens: int) -> bool:
    """Whether nothing but the number of input tokens can matter: no service tier, no sounds and images, no discount."""
    litellm = sys.modules.get("litellm")
    said, details = _fields(usage), _fields(getattr(usage, "prompt_tokens_details", None))
    if not details or any(getattr(litellm, name, None) for name in ("cost_discount_config", "cost_margin_config")):
        return False
    if any(details.get(name) for name in _OTHER_KINDS) or said.get("speed") or said.get("inference_geo"):
        return False
    text = details.get("text_tokens")
    if text and text not in (usage.prompt_tokens, usage.prompt_tokens - cached_tokens):
        return False
    tiers = (_fields(response).get("service_tier"), said.get("service_tier"))
    return all(tier in _BASE_TIERS for tier in tiers) and not _hidden(response).get("provider_specific_fields")


def _fields(model: Any) -> dict[str, Any]:
    """What a pydantic model holds. Asking it for what it does not have takes twenty times as long."""
    return {} if model is None else {**vars(model), **(getattr(model, "__pydantic_extra__", None) or {})}


def _names(asked: PriceQuery) -> tuple[Any, ...]:
    """Provider and names of the model, as they reach litellm."""
    hidden = _hidden(asked.response)
    provider = asked.keywords.get("provider_info") or (asked.more[0] if asked.more else None)
    return (
        getattr(provider, "name", None),
        getattr(provider, "model", None),
        hidden.get("custom_llm_provider"),
        hidden.get("region_name"),
        hidden.get("provider_response_model"),
        hidden.get("model"),
        getattr(asked.response, "model", None),
    )


def _entry(asked: PriceQuery) -> dict[str, Any] | None:
    """The table's entry that litellm most likely took, in the order in which it looks; None if it has none."""
    table: dict[str, dict[str, Any]] = getattr(sys.modules.get("litellm"), "model_cost", {})
    # litellm looks for a name in any case, and most of the table is written in small letters.
    names = (each for name in _candidates(asked) for each in (name, name.lower()))
    return next((table[name] for name in names if name in table), None)


def _providers(asked: PriceQuery) -> list[str]:
    info_name, _, provider, *_ = _names(asked)
    route, slash, _ = asked.telemetry.model_name.partition("/")
    return [each for each in (info_name, provider, route if slash else None) if each]


def _candidates(asked: PriceQuery) -> Iterator[str]:
    _, info_model, _, region, answered_as, hidden_model, model = _names(asked)
    whole: str = asked.telemetry.model_name
    providers, rest = _providers(asked), whole.partition("/")[2]
    for name in (answered_as, hidden_model, model, info_model, rest, whole):
        if name:
            yield from (f"{each}/{region}/{name}" for each in providers if region)
            yield from (f"{each}/{name}" for each in providers)
            yield name
            yield name.partition("/")[2]


def _flat_price(entry: dict[str, Any] | None, prompt_tokens: int) -> _Flat | None:
    """The price that ``entry`` has for so many input tokens, if it depends on nothing else."""
    if entry is None or any(word in name for name in entry for word in _NOT_FLAT):
        return None
    above, below, words = 0, float("inf"), ""
    for name in entry:
        found = _THRESHOLD.search(name)
        if found is not None:
            tokens = int(found[1]) * (1000 if found[2] else 1)
            if tokens < prompt_tokens:
                above, words = max((above, words), (tokens, found[0]))
            else:
                below = min(below, tokens)
    full_name, cached_name = f"input_cost_per_token{words}", f"cache_read_input_token_cost{words}"
    full, cached = _pair(entry, full_name, cached_name)
    if full is None or cached is None:
        return None
    return _Flat(entry, full_name, cached_name, full, cached, above, below)


def _pair(entry: dict[str, Any], full_name: str, cached_name: str) -> tuple[float | None, float | None]:
    """Where the table names no price of cached tokens, they cost what others do."""
    full, cached = entry.get(full_name), entry.get(cached_name)
    return full, full if cached is None else cached


def _hidden(response: Any) -> dict[str, Any]:
    return getattr(response, "_hidden_params", None) or {}


def named_by_header(response: Any) -> bool:
    """Whether a header of the response names its price."""
    headers: dict[str, Any] = _hidden(response).get("additional_headers") or {}
    return headers.get(LITELLM_COST_HEADER) is not None


def from_litellms_cache(response: Any) -> bool:
    """Whether litellm answered from a cache of its own, without asking a provider."""
    return _hidden(response).get("cache_hit") is True


def has_custom_price(telemetry: Any) -> bool:
    """Whether the LLM was given prices of its own."""
    return (
        getattr(telemetry, "input_cost_per_token", None) is not None
        and getattr(telemetry, "output_cost_per_token", None) is not None
    )
