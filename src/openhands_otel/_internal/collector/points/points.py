"""OTLP's data points as ours, whatever kind of metric they are of; what cannot be taken is left out, with a reason."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel._internal.collector.points.exponential import Exponential, from_exponential
from openhands_otel._internal.collector.points.ranges import implausible_stamp, out_of_range, range_of
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.points.remembered import Remembered
from openhands_otel._internal.collector.points.series import Attributes, Exemplar, MetricInfo, Point
from openhands_otel._internal.collector.points.values import BUCKET_LIMIT, Distribution, PointValue
from openhands_otel._internal.combining.told import AttributeValue
from openhands_otel._internal.exact import INT64_MAX
from openhands_otel.semconv import SCOPE_CONVERSATIONS, SCOPE_FLEET, SCOPE_PROCESS

_NO_RECORDED_VALUE: Final = 1
_TEXT_LIMIT: Final = 1024
_NAME_LIMIT: Final = 100
_ATTRIBUTE_LIMIT: Final = 64
_TEMPORALITIES: Final[dict[int, bool]] = {
    pb.AGGREGATION_TEMPORALITY_CUMULATIVE: False,
    pb.AGGREGATION_TEMPORALITY_DELTA: True,
}
"""Whether a value is what was added since the last one."""
_KINDS: Final = {
    "gauge": "gauge",
    "sum": "counter",
    "histogram": "histogram",
    "exponential_histogram": "histogram",
}
_NUMBERS: Final = frozenset({"gauge", "sum"})
_OUR_SCOPES: Final = frozenset({SCOPE_FLEET, SCOPE_CONVERSATIONS, SCOPE_PROCESS})

_PLAIN: Final = Struct("<BQBQBd")
"""How a number begins on the wire: start, time and value, each after its tag; what comes after these is the rest."""
_START, _TIME, _DOUBLE, _INT = 0x11, 0x19, 0x21, 0x31
"""Their tags."""
_INT_VALUE: Final = Struct("<q")
_VALUE_AT: Final = _PLAIN.size - _INT_VALUE.size
_DESCRIPTIONS: Final = 1_024
_KNOWN: Final = Remembered[Attributes](64 * 1024 * 1024)
"""The attributes of numbers without exemplars and flags, by the rest of their bytes."""

_Data = pb.NumberDataPoint | pb.HistogramDataPoint | pb.ExponentialHistogramDataPoint


class _LeftOut(Exception):
    """A metric or a point is of no use here; the message says why, to follow the metric's name."""


@dataclass(frozen=True, slots=True)
class ScopeSource:
    """Where the metrics of one scope come from, and who is told of what is left out."""

    scope: str
    named: bool
    """Whether the process has an instance id."""
    refusals: Refusals

    @property
    def foreign(self) -> bool:
        """Whether it is others' instrumentation: what it says counts nowhere, whatever the names are."""
        return self.scope not in _OUR_SCOPES

    def read(self, metric: pb.Metric, into: list[Point]) -> None:
        """Add the points of one metric."""
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        name = metric.name[:_NAME_LIMIT] or "a metric"
        try:
            described = _describe(metric, kind, data)
        except _LeftOut as why:
            self.refusals.add(f"{name} {why}", len(data.data_points))
            return
        scope = self.scope[:_TEXT_LIMIT] if self.foreign else None
        quickly = kind in _NUMBERS and bool(described.info.name)
        for given in data.data_points:
            rest = b""
            if quickly:
                point, rest = _read_known(given, described, scope)
                if point is not None:
                    into.append(point)
                    continue
            try:
                point = self._point(described, scope, given)
            except _LeftOut as why:
                # What stays the same when the value changes is behind the comma.
                self.refusals.add(f"{name} {why}", rule=f"{name} {str(why).partition(',')[2] or why}")
                continue
            if rest and not given.flags and not given.exemplars:
                _KNOWN.put(rest, point.attributes)
            into.append(point)

    def _point(self, described: _Described, scope: str | None, given: _Data) -> Point:
        info = described.info
        value = None if given.flags & _NO_RECORDED_VALUE else _READERS[type(given)](given)
        why = None if value is None else out_of_range(info, value)
        if why := why or implausible_stamp(given.start_time_unix_nano, given.time_unix_nano):
            raise _LeftOut(why)
        if not info.name or len(given.attributes) > _ATTRIBUTE_LIMIT:
            raise _LeftOut("has no name or too many attributes")
        start = given.start_time_unix_nano
        if not start and not self.named and not self.foreign and info.accumulates and value is not None:
            raise _LeftOut("has neither a start time nor an instance id, so its senders cannot be told apart")
        exemplar = _newest(given.exemplars) if info.accumulates and given.exemplars else None
        attributes = read_attributes(given.attributes)
        return Point(info, attributes, start, given.time_unix_nano, value, described.delta, scope, exemplar)


class _Described(NamedTuple):
    """What a metric is."""

    info: MetricInfo
    delta: bool
    """Whether it comes as deltas."""
    least: float
    most: float
    """Between these a number surely is in range."""


def _read_known(given: pb.NumberDataPoint, described: _Described, scope: str | None) -> tuple[Point | None, bytes]:
    """A point as ``_point`` reads it, and the bytes that come after its value.

    None where these bytes are not known yet or anything is out of the ordinary.
    """
    # Protobuf reads attributes one by one, each text of its own; to write all of a point out costs a tenth of that.
    wire = given.SerializeToString()
    if len(wire) <= _PLAIN.size:
        return None, b""
    start_tag, start, time_tag, time, value_tag, value = _PLAIN.unpack_from(wire)
    if start_tag != _START or time_tag != _TIME:
        return None, b""
    if value_tag == _INT:
        (value,) = _INT_VALUE.unpack_from(wire, _VALUE_AT)
    elif value_tag != _DOUBLE:
        return None, b""
    rest = wire[_PLAIN.size :]
    attributes = _KNOWN.get(rest)
    info, delta, least, most = described
    if attributes is None or not least <= value <= most or start > INT64_MAX or time > INT64_MAX:
        return None, rest
    return Point(info, attributes, start, time, value, delta, scope), rest


def _describe(metric: pb.Metric, kind: str, data: Any) -> _Described:
    temporality = 0 if kind == "gauge" or kind not in _KINDS else data.aggregation_temporality
    monotonic = kind == "sum" and data.is_monotonic
    name, unit, description = metric.name[:_TEXT_LIMIT], metric.unit[:64], metric.description[:_TEXT_LIMIT]
    return _described(name, kind, unit, description, temporality, monotonic)


@lru_cache(_DESCRIPTIONS)
def _described(name: str, kind: str, unit: str, description: str, temporality: int, monotonic: bool) -> _Described:
    ours = _KINDS.get(kind)
    if ours is None:
        raise _LeftOut(f"is of the kind {kind}, which is not kept here")
    delta: bool | None = False if kind == "gauge" else _TEMPORALITIES.get(temporality)
    if delta is None:
        raise _LeftOut("does not say whether it is cumulative or delta")
    if kind == "sum" and not monotonic:
        ours = "updowncounter"
        if delta:
            raise _LeftOut("is sent as deltas that may fall, which are not kept here")
    info = MetricInfo(name, ours, unit, description)
    least, limit = range_of(info)
    most = sys.float_info.max if limit is None else limit
    return _Described(info, delta, max(least, -most), most)


def _number(given: pb.NumberDataPoint) -> PointValue:
    kind = given.WhichOneof("value")
    if kind is None:
        raise _LeftOut("has a point without a value")
    return given.as_int if kind == "as_int" else given.as_double


def _histogram(given: pb.HistogramDataPoint) -> PointValue:
    bounds, counts = tuple(given.explicit_bounds), tuple(given.bucket_counts)
    if len(bounds) > BUCKET_LIMIT or (counts and len(counts) != len(bounds) + 1):
        raise _LeftOut("has buckets that do not fit its bounds")
    return Distribution(given.count, given.sum, bounds if counts else (), counts)


def _exponential(given: pb.ExponentialHistogramDataPoint) -> PointValue:
    positive = Exponential(given.positive.offset, given.positive.bucket_counts)
    negative = Exponential(given.negative.offset, given.negative.bucket_counts)
    value = from_exponential(
        given.count, given.sum, given.scale, given.zero_count, given.zero_threshold, positive, negative
    )
    if value is None:
        raise _LeftOut(f"has more than {BUCKET_LIMIT} buckets, or a scale or threshold that is none")
    return value


_READERS: Final[dict[type[Any], Callable[[Any], PointValue]]] = {
    pb.NumberDataPoint: _number,
    pb.HistogramDataPoint: _histogram,
    pb.ExponentialHistogramDataPoint: _exponential,
}


def _newest(given: Iterable[pb.Exemplar]) -> Exemplar | None:
    """The newest exemplar of a point; those that lead to no span, or are no measurement, are as good as none."""
    return max(filter(None, map(_exemplar, given)), key=lambda exemplar: exemplar.time, default=None)


def _exemplar(given: pb.Exemplar) -> Exemplar | None:
    kind = given.WhichOneof("value")
    value = getattr(given, kind) if kind else math.nan
    leads = all(len(text) == size and any(text) for text, size in ((given.trace_id, 16), (given.span_id, 8)))
    if not leads or not math.isfinite(value) or not 0 < given.time_unix_nano <= INT64_MAX:
        return None
    return Exemplar(value, given.time_unix_nano, given.trace_id, given.span_id)


def read_attributes(attributes: Iterable[KeyValue]) -> Attributes:
    """Attributes in the order of their names."""
    return tuple(sorted({_cut(item.key): _value(item.value) for item in attributes}.items()))


def _value(value: AnyValue) -> AttributeValue:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return _cut(value.string_value)
    if kind == "int_value":
        return value.int_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "double_value" and math.isfinite(value.double_value):
        return value.double_value
    return "" if kind is None else _cut(str(value))


def _cut(text: str) -> str:
    """No longer than it may be, and still told apart from what begins like it: of series that became one, only the
    largest would count."""
    if len(text) <= _TEXT_LIMIT:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    # Plain letters alone: with one that is not, a text of a thousand takes twice the memory.
    return f"{text[: _TEXT_LIMIT - len(digest) - 1]}~{digest}"
