"""Spend from a Prometheus, by the formula that is exact. Each period is asked for by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.asking.promql import EVER_S, duration, now_values, series_of, spent, values_over_time
from openhands_otel._internal.asking.steps import CannotAnswer, Steps
from openhands_otel._internal.prometheus import label_name
from openhands_otel._internal.spend.amounts import COUNTERS, EXACT, SECONDS_FIELD, Amount
from openhands_otel._internal.spend.periods import periods
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension, SpendRow
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Spend

JOB: Final = "job"
INSTANCE: Final = "instance"
_NAMESPACE: Final = label_name(semconv.SERVICE_NAMESPACE)
_WARNINGS: Final = 3
"""Those that are passed on, each once."""
_PERIOD_LIMIT: Final = 1_000
_DAY_S: Final = 86_400.0
_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    Dimension.SERVICE: (JOB, _NAMESPACE),
    Dimension.NAMESPACE: (JOB, _NAMESPACE),
    Dimension.PROVIDER: (label_name(semconv.PROVIDER_NAME),),
    Dimension.MODEL: (label_name(semconv.REQUEST_MODEL),),
    Dimension.ROLE: (label_name(semconv.LLM_ROLE),),
    Dimension.AGENT: (label_name(semconv.AGENT_NAME),),
    "environment": (label_name(semconv.DEPLOYMENT_ENVIRONMENT),),
}
_NOT_THERE: Final = frozenset(Dimension) - _LABELS.keys()
_FIGURES: Final[Mapping[str, str]] = {
    **{metric.prometheus_name: field for metric, field in COUNTERS.items()},
    f"{semconv.RESPONSE_LATENCY.prometheus_name}_sum": SECONDS_FIELD,
}
"""The field of an amount that each series adds to."""


def ask_spend(question: SpendQuestion) -> Steps[Spend]:
    """What its series say. Raises CannotAnswer."""
    missing = next((name for name in question.names if name in _NOT_THERE), None)
    if missing is not None:
        known = ", ".join(sorted(_LABELS))
        cure = f"group by {known} or a label, or ask a viewer"
        raise CannotAnswer(f"a Prometheus does not know '{missing}' of all spend: {cure}")
    rows: list[SpendRow] = []
    warnings: list[str] = []
    for period in (yield from _ask_periods(question)):
        rows += yield from ask_rows(*period, question.names, warnings)
    spend = question.answered_by(rows)
    warned = tuple(f"the Prometheus warns: {printable(text, 200)}" for text in dict.fromkeys(warnings))
    return spend.model_copy(update={"remarks": (*spend.remarks, *warned[:_WARNINGS])})


def ask_rows(
    begin: float, end: float, names: tuple[str, ...], warnings: list[str] | None = None
) -> Steps[list[SpendRow]]:
    """What was spent between two moments, a row for each set of values of some facts and labels."""
    labels = {name: _LABELS.get(name) or (label_name(semconv.LABEL_PREFIX + name),) for name in names}
    by = [label for each in labels.values() for label in each]
    amounts: dict[tuple[tuple[str, str], ...], Amount] = {}
    for series, field in _FIGURES.items():
        found = yield from now_values(spent(series, begin, end, by), end, warnings)
        for sample in found:
            keys = tuple(_keys(sample.labels, labels).items())
            value = sample.value if field in EXACT else round(sample.value)
            amounts.setdefault(keys, Amount()).grow(field, 0, value)
    return [SpendRow(begin, end, dict(keys), amount) for keys, amount in amounts.items() if amount.anything]


def service_of(labels: Mapping[str, str]) -> tuple[str, str]:
    """Namespace, if any, and name of a service. Its job is both with a slash between them, or the name alone."""
    job, namespace = labels.get(JOB, ""), labels.get(_NAMESPACE, "")
    if namespace and job.startswith(f"{namespace}/"):
        return namespace, job.removeprefix(f"{namespace}/")
    # Of a Prometheus that does not have the namespace as a label: names of services rarely have a slash.
    namespace, _, service = job.rpartition("/")
    return namespace, service


def _ask_periods(question: SpendQuestion) -> Steps[list[tuple[float, float]]]:
    """The periods in which something may have been spent: each is asked for by itself, and takes some queries."""
    until = time.time() if question.until is None else min(question.until, time.time())
    since = until - EVER_S if question.since is None else question.since
    if question.finest is None or since >= until:
        return [(since, until)] if since < until else []
    days = yield from _ask_busy_days(since, until)
    found: list[tuple[float, float]] = []
    for period in periods(question.finest, max(since, days[0] - _DAY_S) if days else until, until, question.zone):
        if any(day - _DAY_S < period.end and period.begin <= day for day in days):
            found.append((max(since, period.begin), min(until, period.end)))
        if len(found) > _PERIOD_LIMIT:
            raise CannotAnswer(f"more than {_PERIOD_LIMIT} periods: name a shorter time, or group by longer ones")
    return found


def _ask_busy_days(since: float, until: float) -> Steps[list[float]]:
    """The ends of all stretches of 24 hours in which some process said something, counted back from the end."""
    series = series_of((semconv.COST, semconv.CALLS, semconv.INPUT_TOKENS))
    first = until - _DAY_S * ((until - since) // _DAY_S)
    said = yield from values_over_time(f"count(last_over_time({series}[{duration(_DAY_S)}]))", first, until, _DAY_S)
    return [at / 1000 for samples in said for at, _ in samples.values]


def _keys(found: Mapping[str, str], labels: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    namespace, service = service_of(found)
    own = {Dimension.SERVICE: service, Dimension.NAMESPACE: namespace}
    keys = {name: own[Dimension(name)] if name in own else found.get(label[0], "") for name, label in labels.items()}
    return {name: value for name, value in keys.items() if value}
