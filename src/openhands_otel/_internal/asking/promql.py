"""What is said to a Prometheus, and what it answers: whichever speaks its HTTP API, such as Thanos or Mimir.

Names are those that its OTLP receiver makes of ours (``_internal/prometheus.py``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from openhands_otel._internal.asking.steps import Request, Steps, Unintelligible
from openhands_otel._internal.prometheus import label_name
from openhands_otel.semconv import Metric

EVER_S: Final = 400 * 86_400
"""What is asked for where there is no beginning, seconds."""
SILENCE_S: Final = 86_400
"""How long a process may have been silent when a period begins, seconds."""


class Sample(NamedTuple):
    """One value of one series."""

    labels: Mapping[str, str]
    value: float


class Samples(NamedTuple):
    """Values of one series, oldest first, with when they were said (unix milliseconds)."""

    labels: Mapping[str, str]
    values: list[tuple[int, float]]


def now_values(expression: str, at: float, warnings: list[str] | None = None) -> Steps[list[Sample]]:
    """What an expression says at a moment (unix seconds); what is no number is left out.

    ``warnings`` is given what the server warns of, such as that Thanos does not reach all that it reads from.
    """
    found = yield from _query("query", {"query": expression, "time": f"{at:.3f}"}, "vector", warnings)
    values = (Sample(labels, float(value)) for labels, (_, value) in found)
    return [each for each in values if math.isfinite(each.value)]


def all_values(selector: str, length_s: float, at: float) -> Steps[list[Samples]]:
    """All that series said in a time that ends at a moment."""
    asked = {"query": f"{selector}[{duration(length_s)}]", "time": f"{at:.3f}"}
    found = yield from _query("query", asked, "matrix")
    return [Samples(labels, list(_finite(values))) for labels, values in found]


def values_over_time(expression: str, begin: float, end: float, step_s: float) -> Steps[list[Samples]]:
    """What an expression says at each step of a time."""
    asked = {"query": expression, "start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step_s:.3f}"}
    found = yield from _query("query_range", asked, "matrix")
    return [Samples(labels, list(_finite(values))) for labels, values in found]


def _query(
    what: str, asked: dict[str, str], kind: str, warnings: list[str] | None = None
) -> Steps[list[tuple[dict[str, str], list[Any]]]]:
    answer = yield Request(f"/api/v1/{what}", form=asked)
    try:
        found = json.loads(answer)
        if found["status"] != "success" or found["data"]["resultType"] != kind:
            raise Unintelligible
        if warnings is not None:
            warnings += map(str, found.get("warnings", ()))
        field = "value" if kind == "vector" else "values"
        return [(series["metric"], series[field]) for series in found["data"]["result"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unintelligible from None


def _finite(values: Iterable[tuple[float, str]]) -> Iterator[tuple[int, float]]:
    for at, text in values:
        value = float(text)
        if math.isfinite(value):
            yield round(at * 1000), value


def duration(seconds: float) -> str:
    """A length of time; the shortest is a millisecond."""
    return f"{max(1, round(seconds * 1000))}ms"


def matching(attribute: str, values: Iterable[str]) -> str:
    """Matches an attribute that has one of some values."""
    text = "|".join(map(re.escape, values))
    return f"{label_name(attribute)}=~{json.dumps(text, ensure_ascii=False)}"


def series_of(metrics: Iterable[Metric], *matchers: str) -> str:
    """Selects the series of some metrics."""
    names = "|".join(metric.prometheus_name for metric in metrics)
    return f"{{{', '.join((f'__name__=~"{names}"', *matchers))}}}"


def spent(series: str, begin: float, end: float, by: Iterable[str] = ()) -> str:
    """How much counters grew between two moments, exactly, at the later one: see docs/metrics.md.

    ``increase()`` extrapolates, so it is where each process stood at the end less where it stood at the beginning.
    """
    level = f"sum by ({', '.join(sorted(set(by)))})"
    length = duration(end - begin)
    here = f"max_over_time({series}[{length}])"
    before = f"last_over_time({series}[{duration(SILENCE_S)}] offset {length})"
    return f"{level}({here}) - ({level}({before} and {here}) or 0 * {level}({here}))"
