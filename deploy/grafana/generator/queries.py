"""PromQL: Prometheus' names of our metrics, and the formulas that are used more than once.

Names come from ``semconv.py``, so a metric that is renamed there is renamed in the dashboards.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def spent(series: str, window: str = RANGE, by: Sequence[str] = ()) -> str:
    """How much counters grew in ``window``, exactly: where they stand less where they stood when it began.

    ``increase()`` would extrapolate, and not see the first value of a process that lives for seconds.
    """
    ends = f"max_over_time({series}[{window}])"
    began = f"last_over_time({series}[{LOOK_BACK}] offset {window}) and {ends}"
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
    return spent(select(metric, *matchers, part=part), window, by)


def quantile(share: float, metric: Metric, by: Sequence[str] = (), *matchers: str) -> str:
    """A percentile of a histogram over the range, of what was added to its buckets in it."""
    return f"histogram_quantile({share:g}, {grown(metric, *matchers, by=('le', *by), part='_bucket')})"


def ratio(part: str, whole: str) -> str:
    """One as a share of the other; nothing where there is nothing to share."""
    return f"({part}) / ({whole} > 0)"
