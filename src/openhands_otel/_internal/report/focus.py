"""FOCUS 1.2 rows, the format of FinOps tools, as CSV: for each day, service, provider and model one row for each kind
of token, and one for the calls, which carries the cost.

What a kind of token cost is known to nobody: providers' prices differ by tier, time and cache, and OpenHands tells the
cost of a call as a whole. So rows of tokens have a quantity and no cost, and BilledCost adds up to what was spent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.report.documents import cell, written_csv
from openhands_otel._internal.report.figures import is_lower_bound
from openhands_otel._internal.spend.periods import BEFORE, Period, named, period_of
from openhands_otel._internal.spend.rows import Dimension, Unit
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel.stats import Spend, SpendGroup, TokenUsage

BY: Final = (Unit.DAY, Dimension.SERVICE, Dimension.PROVIDER, Dimension.MODEL)
"""What spend has to be grouped by, in this order; further names are labels, and become tags."""
_FACTS: Final = frozenset(Dimension)
_EMPTY: Final[Mapping[str, object]] = {}


def as_focus(spend: Spend) -> str:
    """The rows as CSV. ``spend`` is grouped by ``BY`` and perhaps more, and is not cut to its top."""
    zone = zone_of(spend.timezone)
    rows = [row for group in spend.groups for row in _rows(group, spend, zone)]
    columns = list(_row(SpendGroup(), spend, Period("", 0.0, 0.0), "", _EMPTY))
    return written_csv([columns, *([cell(value) for value in row.values()] for row in rows)])


def _rows(group: SpendGroup, spend: Spend, zone: ZoneInfo) -> Iterator[dict[str, object]]:
    day = _day(group.keys[Unit.DAY], zone)
    model = group.keys[Dimension.MODEL]
    calls: dict[str, object] = {
        "ConsumedQuantity": float(group.llm_calls),
        "ConsumedUnit": "Calls",
        "BilledCost": group.accumulated_cost,
        "x_ReadCost": group.read_cost,
        "x_CacheSavings": group.cache_savings,
        "x_UnpricedCalls": group.unpriced_calls,
        "x_Seconds": group.llm_seconds,
    }
    yield _row(group, spend, day, f"LLM calls to {model}, with what they cost", calls)
    for kind, quantity, details in _tokens(group.accumulated_token_usage):
        if quantity:
            tokens: dict[str, object] = {
                "ConsumedQuantity": float(quantity),
                "ConsumedUnit": "Tokens",
                "SkuMeter": kind,
                "SkuPriceId": f"{model}/{kind}",
                "SkuPriceDetails": json.dumps(details),
            }
            yield _row(group, spend, day, f"{kind} of {model}; their cost stands with the calls", tokens)


def _day(name: str, zone: ZoneInfo) -> Period:
    """What has no date is charged to all the time before the date that its name says."""
    if name.startswith(BEFORE):
        return Period(name, 0.0, named(name.removeprefix(BEFORE), zone).begin)
    return named(name, zone)


def _tokens(tokens: TokenUsage) -> Sequence[tuple[str, int, Mapping[str, str]]]:
    """Kinds that have no token in common; the names of the draft for token rows, as properties of our own."""
    fresh = tokens.prompt_tokens - tokens.cache_read_tokens - tokens.cache_write_tokens
    return (
        ("Input tokens", max(0, fresh), {"x_TokenDirection": "Input", "x_CacheAction": "None"}),
        ("Cache read tokens", tokens.cache_read_tokens, {"x_TokenDirection": "Input", "x_CacheAction": "Read"}),
        ("Cache write tokens", tokens.cache_write_tokens, {"x_TokenDirection": "Input", "x_CacheAction": "Write"}),
        ("Output tokens", tokens.completion_tokens, {"x_TokenDirection": "Output", "x_CacheAction": "None"}),
    )


def _row(
    group: SpendGroup, spend: Spend, day: Period, description: str, own: Mapping[str, object]
) -> dict[str, object]:
    zone = zone_of(spend.timezone)
    # The last second of the day: what has no date would else be billed from 1970 on.
    month = period_of(Unit.MONTH, max(day.begin, day.end - 1), zone)
    provider = group.keys.get(Dimension.PROVIDER, "")
    cost = own.get("BilledCost", 0.0)
    # Quantities are decimals, also where they are whole.
    quantity = own.get("ConsumedQuantity", 0.0)
    tags = {name: value for name, value in group.keys.items() if name not in BY and name not in _FACTS}
    others = {
        f"x_{name.title().replace('_', '')}": group.keys.get(name)
        for name in spend.by
        if name in _FACTS and name not in BY[2:]
    }
    return {
        "BilledCost": cost,
        "BillingAccountId": provider,
        "BillingAccountName": None,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _moment(month.begin),
        "BillingPeriodEnd": _moment(month.end),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        # The only text that has to be ASCII.
        "ChargeDescription": description.encode("ascii", "backslashreplace").decode(),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _moment(day.begin),
        "ChargePeriodEnd": _moment(day.end),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": own.get("ConsumedUnit", ""),
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceId": None,
        "InvoiceIssuerName": provider,
        "ListCost": cost,
        "PricingQuantity": quantity,
        "PricingUnit": own.get("ConsumedUnit", ""),
        "ProviderName": provider,
        "PublisherName": provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": provider,
        "ServiceSubcategory": "Generative AI",
        "SkuId": group.keys.get(Dimension.MODEL),
        "SkuMeter": own.get("SkuMeter", "Calls"),
        "SkuPriceId": own.get("SkuPriceId"),
        "SkuPriceDetails": own.get("SkuPriceDetails"),
        "Tags": json.dumps(tags),
        "x_LowerBound": "true" if is_lower_bound(group) else "false",
        "x_ReadCost": own.get("x_ReadCost", 0.0),
        "x_CacheSavings": own.get("x_CacheSavings", 0.0),
        "x_UnpricedCalls": own.get("x_UnpricedCalls", 0),
        "x_Seconds": own.get("x_Seconds", 0.0),
        **others,
    }


def _moment(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
