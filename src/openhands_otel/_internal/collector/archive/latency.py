"""How long LLM calls took in a period: exact percentiles, of the spans that are kept."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from openhands_otel._internal.collector.spans.span import SpanKind
from openhands_otel._internal.exact import INT64_MAX
from openhands_otel._internal.spend.conditions import Conditions
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension
from openhands_otel.stats import Latency

_CALLS: Final = f"FROM spans WHERE kind = '{SpanKind.CALL}' AND ended >= ? AND ended < ?"
_UNTOLD: Final = frozenset({Dimension.RUN, Dimension.NAMESPACE, Dimension.COST_SOURCE})
"""What no span tells: under a condition of it no call is known to count."""


def latency(connection: sqlite3.Connection, question: SpendQuestion) -> Latency:
    """Read the calls that ended in the period of ``question`` and meet its conditions."""
    begin = 0 if question.since is None else int(question.since * 1e9)
    end = INT64_MAX if question.until is None else min(int(question.until * 1e9), INT64_MAX)
    if question.where:
        conditions = Conditions(question.where)
        told = _UNTOLD.isdisjoint(each.name for each in question.where)
        rows = connection.execute(
            f"SELECT ended - started, conversation, service, labels, facts {_CALLS}", (begin, end) if told else (0, 0)
        )
        took = sorted(nanos for nanos, *about in rows if conditions.accept(_keys(*about)))
    else:
        took = sorted(nanos for (nanos,) in connection.execute(f"SELECT ended - started {_CALLS}", (begin, end)))
    return Latency(
        since=question.since,
        until=question.until,
        calls=len(took),
        p50=_quantile(took, 0.5),
        p95=_quantile(took, 0.95),
        longest=_quantile(took, 1.0),
    )


def _keys(conversation: str, service: str, labels: str, facts: str) -> dict[str, str]:
    """What a condition may ask of a span."""
    known: dict[str, Any] = json.loads(facts)
    keys = {Dimension.CONVERSATION: conversation, Dimension.SERVICE: service}
    told = (Dimension.MODEL, Dimension.PROVIDER, Dimension.ROLE, Dimension.AGENT, Dimension.USAGE_ID)
    return json.loads(labels) | keys | {name: known[name] for name in told if known.get(name)}


def _quantile(nanos: Sequence[int], part: float) -> float | None:
    """Seconds that so large a part of them took at most: always one that was measured."""
    return nanos[max(0, math.ceil(part * len(nanos)) - 1)] / 1e9 if nanos else None
