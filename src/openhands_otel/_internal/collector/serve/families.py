"""Metric families that are valid as a set, whatever names and labels their senders chose.

Prometheus refuses a scrape as a whole for one name that stands twice, or one sample. So names are given out: first to
our own metrics, then to those of others by their name. Who comes too late, or cannot be written, is left out alone and
counted. Samples that have come to the same labels are one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, cast

from prometheus_client import exposition as text
from prometheus_client import utils
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as Shown
from prometheus_client.samples import Timestamp

from openhands_otel._internal.collector.points.series import Exemplar, MetricInfo
from openhands_otel._internal.collector.points.values import Distribution, PointValue
from openhands_otel._internal.prometheus import family_name, unit_name

_TYPES: Final = {
    "counter": "counter",
    "updowncounter": "gauge",
    "gauge": "gauge",
    "histogram": "histogram",
    "info": "info",
}
_SUFFIXES: Final = {
    True: {
        "counter": ("", "_total", "_created"),
        "gauge": ("",),
        "histogram": ("", "_bucket", "_sum", "_count", "_created"),
        "info": ("", "_info"),
    },
    False: {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("", "_bucket", "_sum", "_count"),
        "info": ("_info",),
    },
}
"""The names that a family takes for itself: in OpenMetrics, and in the text format."""
_END: Final = b"# EOF\n"
_number_text = cast(Callable[[float], str], utils.floatToGoString)  # pyright: ignore[reportUnknownMemberType]
_write_openmetrics = cast(Callable[[Collector], bytes], openmetrics.generate_latest)  # pyright: ignore[reportUnknownMemberType]


@dataclass(slots=True)
class MetricSample:
    """One series' value; ``start`` is when it began (unix nanoseconds), 0 where that is unknown."""

    labels: dict[str, str]
    value: PointValue
    start: int = 0
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Group:
    """The samples of one metric."""

    info: MetricInfo
    own: bool
    """Whether the metric is ours: its name is never given to another."""
    samples: list[MetricSample] = field(default_factory=list[MetricSample])


@dataclass(slots=True)
class _Family:
    name: str
    own: bool
    info: MetricInfo
    samples: dict[frozenset[tuple[str, str]], MetricSample] = field(
        default_factory=dict[frozenset[tuple[str, str]], MetricSample]
    )

    @property
    def kind(self) -> str:
        return _TYPES[self.info.kind]

    def take(self, sample: MetricSample) -> None:
        # A label without a value is no label.
        sample.labels = {name: value for name, value in sample.labels.items() if value}
        key = frozenset(sample.labels.items())
        held = self.samples.get(key)
        self.samples[key] = sample if held is None else _merged(self.info.kind, held, sample)


class FamilySet:
    """Families in one of the formats; ``left_out`` counts the metrics that are not among them."""

    def __init__(self, is_openmetrics: bool) -> None:
        self._is_openmetrics = is_openmetrics
        self._families: dict[str, _Family] = {}
        self._taken: set[str] = set()
        self.left_out = 0

    def add(self, group: Group) -> None:
        """Take a metric in, if its name is free. Our own ones are to come first."""
        name = family_name(group.info.name, group.info.kind, group.info.unit)
        family = self._families.get(name)
        if family is not None:
            # Names of others that became the same (a.b and a_b) are one metric; nobody joins ours.
            if family.kind != _TYPES[group.info.kind] or family.own != group.own:
                self.left_out += 1
                return
        else:
            taken = {name + suffix for suffix in _SUFFIXES[self._is_openmetrics][_TYPES[group.info.kind]]}
            if taken & self._taken:
                self.left_out += 1
                return
            self._taken |= taken
            family = self._families[name] = _Family(name, group.own, group.info)
        for sample in group.samples:
            family.take(sample)

    def write(self) -> Iterator[bytes]:
        """Each family as it is scraped, by name."""
        for _, family in sorted(self._families.items()):
            if not family.samples:
                continue
            try:
                yield _encode(_metric(family, self._is_openmetrics), self._is_openmetrics)
            except Exception:  # The one that cannot be written must not take the others with it.
                self.left_out += 1

    @property
    def end(self) -> bytes:
        return _END if self._is_openmetrics else b""


class _One(Collector):
    """The library writes what a registry has; this one has one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def _encode(metric: Metric, is_openmetrics: bool) -> bytes:
    if not is_openmetrics:
        return text.generate_latest(_One(metric))
    return _write_openmetrics(_One(metric)).removesuffix(_END)


def _metric(family: _Family, is_openmetrics: bool) -> Metric:
    unit = unit_name(family.info.unit, family.info.kind)
    named = unit if unit and family.kind != "info" and family.name.endswith(f"_{unit}") else ""
    metric = Metric(family.name, family.info.description, family.kind, named)
    for _, sample in sorted(family.samples.items(), key=lambda item: sorted(item[0])):
        # The text format has no place for it.
        exemplar = _shown(sample.exemplar) if is_openmetrics and sample.exemplar else None
        if isinstance(sample.value, Distribution):
            _add_histogram(metric, sample, sample.value, exemplar)
        else:
            suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
            metric.add_sample(f"{family.name}{suffix}", sample.labels, sample.value, exemplar=exemplar)
        if is_openmetrics and sample.start and family.kind in {"counter", "histogram"}:
            metric.add_sample(f"{family.name}_created", sample.labels, sample.start / 1e9)
    return metric


def _shown(exemplar: Exemplar) -> Shown:
    ids = {"trace_id": exemplar.trace_id.hex(), "span_id": exemplar.span_id.hex()}
    return Shown(ids, exemplar.value, Timestamp(*divmod(exemplar.time, 10**9)))


def _add_histogram(metric: Metric, sample: MetricSample, value: Distribution, exemplar: Shown | None) -> None:
    reached = 0
    for bound, count in zip(value.bounds, value.counts, strict=False):
        reached += count
        here = exemplar if exemplar is not None and exemplar.value <= bound else None
        metric.add_sample(f"{metric.name}_bucket", sample.labels | {"le": _number_text(bound)}, reached, exemplar=here)
        exemplar = None if here else exemplar
    metric.add_sample(f"{metric.name}_bucket", sample.labels | {"le": "+Inf"}, value.count, exemplar=exemplar)
    # OpenMetrics: what may fall has no sum, and what has no sum has no count.
    if value.sum >= 0 and not any(bound < 0 for bound in value.bounds):
        metric.add_sample(f"{metric.name}_sum", sample.labels, value.sum)
        metric.add_sample(f"{metric.name}_count", sample.labels, value.count)


def _merged(kind: str, held: MetricSample, other: MetricSample) -> MetricSample:
    """One sample for two that nothing tells apart any more."""
    start = min(held.start, other.start)
    newest = max(filter(None, (held.exemplar, other.exemplar)), key=lambda one: one.time, default=None)
    if isinstance(held.value, Distribution) and isinstance(other.value, Distribution):
        return replace(held, value=held.value.plus(other.value), start=start, exemplar=newest)
    if kind in {"counter", "updowncounter"} and not isinstance(held.value, Distribution | None):
        return replace(held, value=held.value + cast(float, other.value), start=start, exemplar=newest)
    return other
