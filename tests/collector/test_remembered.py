"""What is read once of an agent's requests and remembered: it reads as if it had been read again, and it is bounded."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint

from collector.test_mutated_bodies import bend_fields, seed_request
from openhands_otel import semconv
from openhands_otel._internal.collector.points import points
from openhands_otel._internal.collector.points.decode import DecodedMetrics, decode_metrics
from openhands_otel._internal.collector.points.points import read_attributes
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.points.remembered import Remembered
from openhands_otel._internal.collector.points.series import Attributes
from otlp_sender import Sender


def read(request: Message) -> DecodedMetrics:
    return decode_metrics(request.SerializeToString(), json=False)


def test_a_point_reads_the_same_the_second_time_whatever_is_in_it() -> None:
    chance = random.Random(13)
    for _ in range(400):
        request = seed_request(chance)
        if chance.random() < 0.8:
            bend_fields(chance, request)
        first = read(request)
        assert read(request) == first


def test_what_is_remembered_of_one_point_is_said_of_none_that_differs_from_it() -> None:
    """The same series with another value, time, flag, exemplar or attribute: each is read for what it is."""
    sender = Sender("p")

    def told(value: float | None = 1.0, at: int = 5, label: str = "a") -> ExportMetricsServiceRequest:
        attributes = {semconv.REQUEST_MODEL: "gpt", semconv.LABEL_PREFIX + "team": label}
        return sender.add(semconv.COST, value, attributes, at=at, start=3).request()

    for _ in range(2):
        for value, at, label in ((1.0, 5, "a"), (2.5, 6, "a"), (None, 7, "a"), (2.5, 6, "b"), (7, 8, "a")):
            request = told(value, at, label)
            [point] = read(request).updates[0].points
            assert (point.value, point.time, point.start) == (value, at, 3)
            assert dict(point.attributes)[semconv.LABEL_PREFIX + "team"] == label
        for impossible in (-1.0, 1e300, float("nan")):
            assert read(told(impossible)).refusals.count == 1
        with_exemplar = told()
        given = with_exemplar.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
        given.exemplars.add(trace_id=b"t" * 16, span_id=b"s" * 8, time_unix_nano=5, as_double=1.0)
        [point] = read(with_exemplar).updates[0].points
        assert point.exemplar is not None
        assert point.attributes == read_attributes(given.attributes)


def test_attributes_of_a_known_series_are_not_read_again() -> None:
    """The second time they are those of the first: the very same."""
    sender = Sender("p")
    [first] = read(sender.converse("conversation-remembered", 0.5).request()).updates[0].points
    [again] = read(sender.converse("conversation-remembered", 0.75).request()).updates[0].points
    assert again.attributes is first.attributes


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    held = Remembered[int](50_000)
    for number in range(10_000):
        held.put(b"%d" % number * 10, number)
        assert len(held) <= 100
        assert held.get(b"%d" % number * 10) == number
    held.put(b"x" * 5_000, 1)
    assert held.get(b"x" * 5_000) is None


def test_a_flood_of_attributes_does_not_grow_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Remembered[Attributes](8 * 1024 * 1024)
    monkeypatch.setattr(points, "_KNOWN", known)
    for number in range(0, 40_000, 100):
        sender = Sender("flood")
        for one in range(100):
            sender.converse(f"{number + one}-" + "x" * 400, 0.5)
        read(sender.request())
    assert 0 < len(known) < 8 * 1024 * 1024 / (16 * 400)


def nested(depth: int) -> AnyValue:
    value = AnyValue(array_value=ArrayValue())
    for _ in range(depth):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    return value


@pytest.mark.parametrize(
    "attributes",
    [
        lambda number: {str(number): AnyValue(string_value="")},
        lambda number: {f"{chr(0x1F600 + each)}{number}": nested(19) for each in range(25)},
        lambda number: {f"{each}{number}": AnyValue(string_value=chr(0x1F600) + "a" * 40) for each in range(60)},
        lambda number: {f"{each}": AnyValue(bytes_value=b"%30d" % number) for each in range(60)},
    ],
    ids=["small", "nested", "wide characters", "bytes"],
)
def test_what_is_remembered_takes_no_more_memory_than_it_may(
    attributes: Callable[[int], dict[str, AnyValue]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a sender says: what Python itself counts of the objects that are held."""
    limit = 256 * 1024
    known = Remembered[Attributes](limit)
    monkeypatch.setattr(points, "_KNOWN", known)
    most = 0
    for number in range(1_000):
        point = NumberDataPoint(start_time_unix_nano=5, time_unix_nano=6, as_int=1)
        point.attributes.extend(KeyValue(key=key, value=value) for key, value in attributes(number).items())
        metric = Metric(name="foreign", gauge=Gauge(data_points=[point]))
        points.ScopeSource("scope", True, Refusals()).read(metric, [])
        if number % 50 == 49:
            most = max(most, size_of(known._held))  # pyright: ignore[reportPrivateUsage]
    assert 0 < most <= limit


def size_of(held: object) -> int:
    """Bytes of an object and all that only it leads to; each object once."""
    seen: set[int] = set()
    todo, size = [held], 0
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen.add(id(one))
            size += sys.getsizeof(one)
            todo.extend(gc.get_referents(one))
    return size
