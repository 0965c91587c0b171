"""PromQL: Prometheus' names of our metrics, and the formulas that are used more than once.

Names come from ``semconv.py``, so a metric that is renamed there is renamed in the dashboards. Processes send today's
GenAI names, the newest or both: of each process the newest are taken where it sends them, and else today's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from openhands_otel import semconv
from openhands_otel.semconv import Metric, prometheus_label

LOOK_BACK: Final = "1d"
"""How far back a series' value at the window's begin is looked for. An agent may be silent that long."""
RANGE: Final = "$__range"
"""The range that a dashboard shows."""
INTERVAL: Final = "$__interval"
RATE: Final = "$__rate_interval"

label = prometheus_label

VARIABLES: Final = {
    "namespace": label(semconv.SERVICE_NAMESPACE),
    "environment": label(semconv.DEPLOYMENT_ENVIRONMENT),
    **{name: label(semconv.LABEL_PREFIX + name) for name in ("team", "project", "experiment")},
}
"""Variables of each dashboard beside ``job``, and the labels that they select: those that prometheus.yml promotes. A
pattern that fits anything fits a series without the label too, so "All" leaves out nothing."""
OF_SERVICE: Final = f'job=~"$job", {VARIABLES["namespace"]}=~"$namespace"'
"""What is known of a service as a whole, such as its budget."""
WHERE: Final = ", ".join(('job=~"$job"', *(f'{selected}=~"${name}"' for name, selected in VARIABLES.items())))
"""What the variables of each dashboard select."""


def name(metric: Metric, part: str = "") -> str:
    """Prometheus' name of a metric; ``part`` is ``_count``, ``_sum`` or ``_bucket`` of a histogram."""
    return metric.prometheus_name + part


def select(metric: Metric, *matchers: str, part: str = "") -> str:
    """The series that the dashboard's variables and ``matchers`` leave."""
    return f"{name(metric, part)}{{{', '.join((WHERE, *matchers))}}}"


def generations(metric: Metric, *matchers: str, part: str = "") -> tuple[str, ...]:
    """``select`` of a metric and, before it, of what the newest GenAI names call it."""
    newest = semconv.RENAMED.get(metric)
    today = select(metric, *matchers, part=part)
    return (today,) if newest is None else (select(newest, *matchers, part=part), today)


def either(make: Callable[[str], str], series: Sequence[str]) -> str:
    """What ``make`` makes of the first of ``series`` that a process sends."""
    made = " or on (job, instance) ".join(make(each) for each in series)
    return made if len(series) == 1 else f"({made})"


def spent(series: str | Sequence[str], window: str = RANGE, by: Sequence[str] = ()) -> str:
    """How much counters grew in ``window``, exactly: where they stand less where they stood when it began.

    ``increase()`` would extrapolate, and not see the first value of a process that lives for seconds. Of several
    ``series`` each process's first is taken.
    """
    names = (series,) if isinstance(series, str) else series
    ends = either(lambda each: f"max_over_time({each}[{window}])", names)
    began = f"{either(lambda each: f'last_over_time({each}[{LOOK_BACK}] offset {window})', names)} and {ends}"
    if not by:
        return f"(sum({ends}) or vector(0)) - (sum({began}) or vector(0))"
    level = f"sum by ({', '.join(by)})"
    return f"{level} ({ends}) - ({level} ({began}) or 0 * {level} ({ends}))"


def counted(series: str, window: str = RANGE) -> str:
    """``spent`` of counters that may start over in a series (the collector's): after that, what the new one says."""
    ends = f"max_over_time({series}[{window}])"
    began = f"(last_over_time({series}[{LOOK_BACK}] offset {window}) <= {ends}) or 0 * {ends}"
    return f"sum({ends} - ({began})) or vector(0)"


def grown(metric: Metric, *matchers: str, window: str = RANGE, by: Sequence[str] = (), part: str = "") -> str:
    """``spent`` of a metric's series."""
    return spent(generations(metric, *matchers, part=part), window, by)


def quantile(share: float, metric: Metric, by: Sequence[str] = (), *matchers: str) -> str:
    """A percentile of a histogram over the range, of what was added to its buckets in it."""
    return quantile_of(share, generations(metric, *matchers, part="_bucket"), by)


def quantile_of(share: float, buckets: Sequence[str], by: Sequence[str] = ()) -> str:
    """The same of the first of ``buckets`` that a process sends."""
    return f"histogram_quantile({share:g}, {spent(buckets, by=('le', *by))})"


def ratio(part: str, whole: str) -> str:
    """One as a share of the other; nothing where there is nothing to share."""
    return f"({part}) / ({whole} > 0)"
