"""All that is held, as Prometheus scrapes it: text format 0.0.4, or OpenMetrics for those who ask for it.

A series that has ended is not in it, which is how Prometheus learns of the end. How names and labels of anybody become
a page that is valid as a whole is families.py's business.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from enum import Enum
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.series import (
    Attributes,
    Exemplar,
    MetricInfo,
    Series,
)
from openhands_otel._internal.collector.serve.families import FamilySet, Group, MetricSample
from openhands_otel._internal.collector.sight import Sight
from openhands_otel._internal.collector.state.process import OWN_METRICS
from openhands_otel._internal.collector.state.series_set import INFOS
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.combining.told import AttributeValue
from openhands_otel._internal.prometheus import label_name

_INFO: Final = MetricInfo("target", "info", "", "The resource that telemetry came from.")
_LEFT_OUT: Final = MetricInfo(
    "openhands_otel.collector.unrendered_metrics",
    "gauge",
    "",
    "Metrics that cannot stand beside the others here: their names are taken.",
)
_RESERVED: Final = frozenset({"le", "quantile", "job", "instance"})
"""Labels that mean something to Prometheus; an attribute of this name is shown as Prometheus does it: exported_job."""
_QUALITY: Final = re.compile(r";\s*q=([0-9.]+)")


class Exposition(Enum):
    """The two formats."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @classmethod
    def accepted(cls, accept: str) -> Exposition:
        wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
        for media_range in accept.lower().split(","):
            media_type = media_range.partition(";")[0].strip()
            if media_type in wanted:
                quality = _QUALITY.search(media_range)
                wanted[media_type] = max(wanted[media_type], _number(quality.group(1)) if quality else 1.0)
        openmetrics = wanted["application/openmetrics-text"]
        return cls.OPENMETRICS if openmetrics and openmetrics >= wanted["text/plain"] else cls.TEXT

    @property
    def media_type(self) -> str:
        return self.value

    async def render(self, sight: Sight) -> bytes:
        """All that is in sight: gathered at once, so that it fits together; written in a thread, as it may be long."""
        groups = _gather(sight)
        return await asyncio.to_thread(self._write, groups)

    def _write(self, groups: list[Group]) -> bytes:
        families = FamilySet(self is Exposition.OPENMETRICS)
        left_out = Group(_LEFT_OUT, own=True)
        for group in (left_out, *sorted(groups, key=lambda group: (not group.own, group.info.name, group.info.kind))):
            families.add(group)
        pages = [*families.write()]
        last = FamilySet(self is Exposition.OPENMETRICS)
        left_out.samples.append(MetricSample({}, families.left_out))
        last.add(left_out)
        return b"".join([*pages, *last.write(), families.end])


class _Groups:
    """Samples by metric."""

    def __init__(self) -> None:
        self._by_info: dict[MetricInfo, Group] = {}

    def add(self, info: MetricInfo, sample: MetricSample, own: bool) -> None:
        group = self._by_info.get(info)
        if group is None:
            group = self._by_info[info] = Group(info, own)
        group.samples.append(sample)

    def all(self) -> list[Group]:
        return list(self._by_info.values())


def _gather(sight: Sight) -> list[Group]:
    groups = _Groups()
    if isinstance(sight, Store):
        for info, value in _about_collector(sight):
            groups.add(info, MetricSample({}, value, sight.counts.started), own=True)
    bases = {key: _base(process.instance) for key, process in sight.processes.items()}
    for key, process in sight.processes.items():
        for (name, attributes), held in process.series.items():
            if not held.ended:
                sample = _sample(attributes, held, bases[key], process.exemplars.get((name, attributes)))
                groups.add(sight.metrics[name], sample, own=name in OWN_METRICS)
        groups.add(_INFO, MetricSample(_resource_labels(process.instance) | bases[key], 1), own=True)
    for conversation in sight.conversations.by_id.values():
        own = (semconv.CONVERSATION_ID, conversation.id)
        for name, held in conversation.series.each():
            if not held.series.ended and held.process in bases:
                sample = _sample((own, *held.attributes), held.series, bases[held.process])
                groups.add(INFOS[name], sample, own=True)
    return groups.all()


def _sample(
    attributes: Attributes, series: Series, base: dict[str, str], exemplar: Exemplar | None = None
) -> MetricSample:
    return MetricSample(labels(attributes) | base, series.value, series.start, exemplar)


def _about_collector(store: Store) -> Iterator[tuple[MetricInfo, int]]:
    counts = store.counts
    for name, value, description in (
        ("requests", counts.requests, "Export requests taken."),
        ("refused_requests", counts.refused_requests, "Export requests that could not be read."),
        ("points", counts.points, "Data points taken."),
        ("refused_points", counts.refused_points, "Data points left out."),
        ("shared_points", store.fleet.shared_points, "Data points of series beyond what one process may have."),
        ("refusals", store.refusals.total, "Data points and requests refused."),
        ("spans", counts.spans, "Spans received."),
        ("log_records", counts.log_records, "Log records received (and counted only)."),
    ):
        yield MetricInfo(f"openhands_otel.collector.{name}", "counter", "", description), value
    yield (
        MetricInfo("openhands_otel.collector.viewers", "gauge", "", "Viewers connected to the event stream."),
        store.broker.viewers,
    )


def _base(instance: Instance) -> dict[str, str]:
    resource = dict(instance.resource)
    namespace = resource.get(semconv.SERVICE_NAMESPACE)
    job = f"{namespace}/{instance.service}" if namespace else instance.service
    # Who has no instance id must still be told apart from the next who has none.
    own = str(resource.get(semconv.SERVICE_INSTANCE_ID, "")) or hashlib.sha256(instance.key.encode()).hexdigest()[:12]
    return {"job": job, "instance": own}


def _resource_labels(instance: Instance) -> dict[str, str]:
    identifying = {semconv.SERVICE_NAMESPACE, semconv.SERVICE_NAME, semconv.SERVICE_INSTANCE_ID}
    rest: Attributes = tuple(pair for pair in instance.resource if pair[0] not in identifying)
    return labels(rest)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def labels(attributes: Attributes) -> dict[str, str]:
    """Labels of an attribute set; names that become equal share their values, as in Prometheus."""
    result: dict[str, str] = {}
    for name, value in attributes:
        label = label_name(name)
        if label in _RESERVED:
            label = f"exported_{label}"
        result[label] = f"{result[label]};{_text(value)}" if label in result else _text(value)
    return result


def _text(value: AttributeValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
