"""All that is held, as Prometheus scrapes it: text format 0.0.4, or OpenMetrics for those who ask for it.

A series that has ended is not in it, which is how Prometheus learns of the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from openhands_otel import semconv
from openhands_otel.collector.conversation import CONVERSATION_METRICS
from openhands_otel.collector.decode import Instance
from openhands_otel.collector.naming import labels, metric_name
from openhands_otel.collector.series import Attributes, Distribution, MetricInfo, Value
from openhands_otel.collector.store import Store

_TYPES: Final = {"counter": "counter", "updowncounter": "gauge", "gauge": "gauge", "histogram": "histogram"}
_INFO: Final = MetricInfo("target.info", "gauge", "", "The resource that telemetry came from.")


@dataclass(slots=True)
class _Sample:
    labels: dict[str, str]
    value: Value


class Exposition(Enum):
    """The two formats."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @classmethod
    def accepted(cls, accept: str) -> Exposition:
        return cls.OPENMETRICS if "application/openmetrics-text" in accept else cls.TEXT

    @property
    def media_type(self) -> str:
        return self.value

    async def render(self, store: Store) -> str:
        """The whole page: gathered at once, so that it fits together; written in a thread, as it may be long."""
        families = _gather(store)
        return await asyncio.to_thread(self._write, families)

    def _write(self, families: dict[MetricInfo, list[_Sample]]) -> str:
        named: dict[str, tuple[MetricInfo, list[_Sample]]] = {}
        for info, samples in families.items():
            # Two metrics may come to one name; a scrape with a name twice would be refused as a whole.
            named.setdefault(metric_name(info.name, info.kind, info.unit), (info, samples))
        lines: list[str] = []
        for name, (info, samples) in sorted(named.items()):
            family = name
            if self is Exposition.OPENMETRICS:
                family = name.removesuffix("_total") if info.kind == "counter" else name.removesuffix("_info")
            lines.append(f"# HELP {family} {_escape_help(info.description)}")
            kind = "info" if info is _INFO and self is Exposition.OPENMETRICS else _TYPES[info.kind]
            lines.append(f"# TYPE {family} {kind}")
            for sample in samples:
                lines.extend(_lines(name, sample))
        if self is Exposition.OPENMETRICS:
            lines.append("# EOF")
        return "\n".join([*lines, ""])


def _gather(store: Store) -> dict[MetricInfo, list[_Sample]]:
    families: dict[MetricInfo, list[_Sample]] = {}
    for process in store.fleet.processes.values():
        base = _base(process.instance)
        for (name, attributes), held in process.series.items():
            if not held.ended:
                sample = _Sample(labels(attributes) | base, held.value)
                families.setdefault(store.fleet.metrics[name], []).append(sample)
        families.setdefault(_INFO, []).append(_Sample(_resource_labels(process.instance) | base, 1))
    bases = {key: _base(process.instance) for key, process in store.fleet.processes.items()}
    for conversation in store.conversations.by_id.values():
        own = {semconv.CONVERSATION_ID: conversation.id}
        for name, all_held in conversation.held.items():
            for (key, _), held in all_held.items():
                if not held.series.ended and key in bases:
                    sample = _Sample(labels((*own.items(), *held.attributes)) | bases[key], held.series.value)
                    families.setdefault(CONVERSATION_METRICS[name], []).append(sample)
    for info, value in _about_collector(store):
        families[info] = [_Sample({}, value)]
    return families


def _about_collector(store: Store) -> Iterator[tuple[MetricInfo, int]]:
    counts = store.counts
    for name, value, description in (
        ("requests", counts.requests, "Export requests taken."),
        ("refused_requests", counts.refused_requests, "Export requests that could not be read."),
        ("points", counts.points, "Data points taken."),
        ("refused_points", counts.refused_points, "Data points left out."),
        ("spans", counts.spans, "Spans received (and counted only)."),
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
    return {"job": job, "instance": str(resource.get(semconv.SERVICE_INSTANCE_ID, ""))}


def _resource_labels(instance: Instance) -> dict[str, str]:
    identifying = {semconv.SERVICE_NAMESPACE, semconv.SERVICE_NAME, semconv.SERVICE_INSTANCE_ID}
    rest: Attributes = tuple(pair for pair in instance.resource if pair[0] not in identifying)
    return labels(rest)


def _lines(name: str, sample: _Sample) -> Iterator[str]:
    if not isinstance(sample.value, Distribution):
        yield f"{name}{_label_text(sample.labels)} {sample.value!r}"
        return
    reached = 0
    for bound, count in zip(sample.value.bounds, sample.value.counts, strict=False):
        reached += count
        yield f"{name}_bucket{_label_text(sample.labels | {'le': repr(bound)})} {reached}"
    yield f"{name}_bucket{_label_text(sample.labels | {'le': '+Inf'})} {sample.value.count}"
    yield f"{name}_sum{_label_text(sample.labels)} {sample.value.sum!r}"
    yield f"{name}_count{_label_text(sample.labels)} {sample.value.count}"


def _label_text(pairs: dict[str, str]) -> str:
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(pairs.items()) if value)
    return f"{{{inner}}}" if inner else ""


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
