"""Spend from a Prometheus, by the formula that is exact: see docs/metrics.md.

``increase()`` extrapolates, so what was spent in a period is where each process stood at its end less where it stood at
its beginning. Each period is asked for by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.host.network import proxy_for, tls_context, without_secrets
from openhands_otel._internal.prometheus import label_name
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.spend.amounts import COUNTERS, EXACT, SECONDS, Amount
from openhands_otel._internal.spend.periods import periods
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension, SpendRow
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Spend

_TIMEOUT_S: Final = 30.0
_SILENCE: Final = "24h"
"""How long a process may have been silent when a period begins."""
_EVER_S: Final = 400 * 86_400
"""What is asked for where the period has no beginning, seconds."""
_PERIOD_LIMIT: Final = 1_000
"""Periods, each of which takes some queries."""
_JOB: Final = "job"
_LABELS: Final[Mapping[str, str]] = {
    Dimension.SERVICE: _JOB,
    Dimension.NAMESPACE: _JOB,
    Dimension.PROVIDER: label_name(semconv.PROVIDER_NAME),
    Dimension.MODEL: label_name(semconv.REQUEST_MODEL),
    Dimension.ROLE: label_name(semconv.LLM_ROLE),
    Dimension.AGENT: label_name(semconv.AGENT_NAME),
    "environment": label_name(semconv.DEPLOYMENT_ENVIRONMENT),
}
_NOT_THERE: Final = frozenset(Dimension) - _LABELS.keys()


_FIGURES: Final[Mapping[str, str]] = {
    **{metric.prometheus_name: field for metric, field in COUNTERS.items()},
    f"{semconv.RESPONSE_LATENCY.prometheus_name}_sum": SECONDS,
}
"""The field of an amount that each series adds to."""


def ask_prometheus(url: str, token: str | None, question: SpendQuestion) -> Spend:
    """What its series say. Raises SourceError."""
    missing = next((name for name in question.names if name in _NOT_THERE), None)
    if missing is not None:
        known = ", ".join(sorted(_LABELS))
        raise SourceError(f"a Prometheus does not know '{missing}' of all spend: group by {known} or a label")
    labels = {name: _LABELS.get(name) or label_name(semconv.LABEL_PREFIX + name) for name in question.names}
    with _Prometheus(url, token) as prometheus:
        rows = [row for period in _periods(question) for row in prometheus.spent(*period, labels)]
    return question.answered_by(rows)


def _periods(question: SpendQuestion) -> Iterator[tuple[float, float]]:
    until = time.time() if question.until is None else min(question.until, time.time())
    since = until - _EVER_S if question.since is None else question.since
    if question.finest is None:
        yield since, until
        return
    for number, period in enumerate(periods(question.finest, since, until, question.zone)):
        if number >= _PERIOD_LIMIT:
            raise SourceError(f"more than {_PERIOD_LIMIT} periods: name a shorter time, or group by longer ones")
        yield max(since, period.begin), min(until, period.end)


class _Prometheus:
    """One server, over its HTTP API."""

    def __init__(self, url: str, token: str | None) -> None:
        self._shown = printable(without_secrets(url), 200)
        try:
            import httpx
        except ModuleNotFoundError:
            raise SourceError("--prometheus needs the package 'httpx': pip install 'openhands-otel[viewer]'") from None
        self._error: type[Exception] = httpx.HTTPError
        if not url.startswith(("http://", "https://")):
            raise SourceError(f"{self._shown} is no address of a Prometheus: it should look like http://127.0.0.1:9090")
        try:
            self._http = httpx.Client(
                base_url=url.rstrip("/"),
                headers={} if token is None else {"authorization": f"Bearer {token}"},
                timeout=_TIMEOUT_S,
                trust_env=False,
                proxy=proxy_for(url),
                verify=tls_context(None, speaks_tls=url.startswith("https:")),
            )
        except (httpx.InvalidURL, ValueError):
            raise SourceError(f"{self._shown} is no address of a Prometheus") from None

    def __enter__(self) -> _Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def spent(self, begin: float, end: float, labels: Mapping[str, str]) -> Iterator[SpendRow]:
        """A row for each set of labels."""
        amounts: dict[tuple[tuple[str, str], ...], Amount] = {}
        for metric, field in _FIGURES.items():
            for sample in self._query(_formula(metric, begin, end, labels.values()), end):
                keys = tuple(_keys(sample["metric"], labels).items())
                value = float(sample["value"][1])
                amounts.setdefault(keys, Amount()).grow(field, 0, value if field in EXACT else round(value))
        for keys, amount in amounts.items():
            if amount.anything:
                yield SpendRow(begin, end, dict(keys), amount)

    def _query(self, expression: str, at: float) -> list[Any]:
        try:
            response = self._http.post("/api/v1/query", data={"query": expression, "time": f"{at:.3f}"})
            answer = response.json()
            if answer["status"] == "success":
                return answer["data"]["result"]
            said = printable(str(answer.get("error", "it refused")), 200)
        except self._error as error:
            said = printable(str(error) or type(error).__name__, 200)
        except (ValueError, KeyError, TypeError, AttributeError):
            said = "it does not answer as a Prometheus does"
        raise SourceError(f"{self._shown}: {said}")


def _formula(metric: str, begin: float, end: float, labels: Iterator[str] | Any) -> str:
    by = f"sum by ({', '.join(sorted(set(labels)))})"
    length = max(1, round(end - begin))
    here = f"max_over_time({metric}[{length}s])"
    before = f"last_over_time({metric}[{_SILENCE}] offset {length}s)"
    return f"{by}({here}) - ({by}({before} and {here}) or 0 * {by}({here}))"


def _keys(found: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    keys = {name: found[label] for name, label in labels.items() if found.get(label)}
    if _JOB in found:
        namespace, slash, service = found[_JOB].rpartition("/")
        own = {Dimension.SERVICE: service, Dimension.NAMESPACE: namespace if slash else ""}
        keys |= {str(name): value for name, value in own.items() if name in keys and value}
        if not namespace:
            keys.pop(Dimension.NAMESPACE, None)
    return keys
