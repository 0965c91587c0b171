"""What a collector gets from a pipeline of our own, over HTTP and gRPC."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA

from openhands_otel import semconv
from openhands_otel._internal.metrics.samples import HISTOGRAMS
from openhands_otel.semconv import Status, ToolOutcome
from otlp_receiver import NO_RECORDED_VALUE, Point, Receiver, grpc_receiver, http_receiver

from .conftest import slow_link
from .pipes import call, closed, opened, origin, pipeline, put, response, run_ended, run_started

COST, CONVERSATION_COST = semconv.COST.name, semconv.CONVERSATION_COST.name
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
COUNTERS = [
    semconv.COST,
    *semconv.TOKEN_COUNTERS.values(),
    semconv.UNPRICED_CALLS,
    semconv.CACHE_SAVINGS,
    semconv.CONVERSATION_COST,
    semconv.CONVERSATION_TOKENS,
    semconv.CONVERSATION_CALLS,
    semconv.CONVERSATION_UNPRICED,
]


@contextmanager
def receiving(protocol: str) -> Iterator[tuple[Receiver, dict[str, str]]]:
    with http_receiver() if protocol == "http" else grpc_receiver() as receiver:
        yield receiver, {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url} | (GRPC if protocol == "grpc" else {})


def everything(conversation: str) -> list:
    """Events that make every counter rise."""
    from openhands_otel import events

    whose, now = origin(conversation), time.time_ns()
    return [
        opened(conversation),
        *call(whose),
        events.TokensUsed(now, whose, 100, 20, 40, 20, 10, 128_000, "r"),
        events.ResponseRecorded(now, whose, False, 0.002),
    ]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_counter_starts_with_an_exported_0_at_an_earlier_time(protocol: str) -> None:
    with receiving(protocol) as (receiver, environ), pipeline(environ) as pipe:
        for conversation in ("a", "b"):
            put(pipe, *everything(conversation))
            assert pipe.flush(50)
        put(pipe, *everything("a"))
        assert pipe.flush(50)
    for metric in COUNTERS:
        streams = receiver.streams(metric.name)
        assert streams, metric.name
        for points in streams.values():
            zero, first, *_ = points
            assert zero.value == 0 < first.value, metric.name
            assert zero.time + 1_000_000 <= first.time, metric.name
            assert first.time - zero.time < 1_100_000_000, "a back end would refuse it as too old"
            assert {point.start for point in points} == {zero.time}, metric.name
            assert [p.value for p in points] == sorted(p.value for p in points)
            assert [p.time for p in points] == sorted(p.time for p in points)
            assert {(p.monotonic, p.temporality, p.unit) for p in points} == {
                (True, AGGREGATION_TEMPORALITY_CUMULATIVE, metric.unit)
            }


def test_histograms_start_with_an_exported_0_too(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("a")))
        assert pipe.flush(50)
    for metric in (semconv.TOKEN_USAGE, semconv.RESPONSE_LATENCY):
        for zero, first in receiver.streams(metric.name).values():
            assert (zero.count, zero.value, sum(zero.buckets)) == (0, 0, 0)
            assert (first.count, sum(first.buckets)) == (1, 1)
            assert zero.time + 1_000_000 <= first.time
            assert len(first.buckets) == len(metric.buckets or ()) + 1


def test_money_does_not_wait_for_distributions_and_these_come_without_being_asked_for(receiver: Receiver) -> None:
    histograms = {metric.name for metric in HISTOGRAMS}
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("a")))
        receiver.wait_for(lambda seen: bool(seen.points(semconv.RESPONSE_LATENCY.name)), timeout_s=20)
        before = len(receiver.requests)
        *first, last = (_metrics_of(receiver, at) for at in range(before))
        assert {COST, CONVERSATION_COST} <= set().union(*first)
        assert not histograms & set().union(*first)
        assert histograms & last
        # From now on with a heartbeat, a flush or the end.
        put(pipe, *call(origin("a")))
        receiver.wait_for(lambda seen: seen.total(COST) == pytest.approx(0.002))
        assert pipe.flush(5)
        *then, last = (_metrics_of(receiver, at) for at in range(before, len(receiver.requests)))
    assert not histograms & set().union(*then)
    assert histograms & last
    assert [points[-1].count for points in receiver.streams(semconv.RESPONSE_LATENCY.name).values()] == [2]


def test_a_metric_has_small_attributes_and_a_conversation_series_its_id(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *everything("a"))
        assert pipe.flush(50)
    for point in receiver.points():
        has_id = semconv.CONVERSATION_ID in point.attributes
        assert has_id == (point.scope == semconv.SCOPE_CONVERSATIONS), point


def test_gzip_headers_and_a_token_from_a_file_that_changes(receiver: Receiver, tmp_path: Path) -> None:
    from openhands_otel._internal.export.otlp_config import read_otlp_config
    from openhands_otel._internal.process.pipeline import Pipeline
    from openhands_otel.settings import Settings

    token = tmp_path / "token"
    token.write_text("first\n")
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b, X-Other=2",
    }
    pipe = Pipeline(Settings(), read_otlp_config(environ, token), lambda: 0)
    pipe.start()
    put(pipe, *call(origin("a")))
    assert pipe.flush(50)
    token.write_text("second\n")
    put(pipe, *call(origin("a")))
    assert pipe.stop(50)
    first, *_, last = receiver.headers
    assert first["content-encoding"] == "gzip"
    assert (first["x-tenant"], first["x-other"]) == ("a b", "2")
    assert (first["authorization"], last["authorization"]) == ("Bearer first", "Bearer second")
    assert receiver.total(COST) == pytest.approx(0.002)


def test_gzip_and_headers_over_grpc() -> None:
    with grpc_receiver() as receiver:
        environ = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a",
        }
        with pipeline(environ) as pipe:
            put(pipe, *call(origin("a")))
            assert pipe.flush(50)
    assert receiver.headers[0]["x-tenant"] == "a"
    assert receiver.total(COST) == pytest.approx(0.001)


def test_a_collector_far_away_is_reached_over_grpc() -> None:
    # Connecting takes several round trips.
    with (
        grpc_receiver() as receiver,
        slow_link(receiver.port, one_way_s=0.15) as port,
        pipeline(GRPC | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}) as pipe,
    ):
        put(pipe, *call(origin("a")))
        receiver.wait_for(lambda seen: bool(seen.requests))


def test_the_metrics_endpoint_wins_and_is_taken_as_it_is(receiver: Receiver) -> None:
    with http_receiver() as general:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": general.url,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{receiver.url}/anywhere",
        }
        with pipeline(environ) as pipe:
            put(pipe, *call(origin("a")))
            assert pipe.flush(50)
        assert receiver.requests
        assert not general.requests


class Flaky:
    """Refuses every other request, after having read it."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self) -> tuple[int, bytes]:
        self.requests += 1
        return (503 if self.requests % 2 else 200), b""


def test_with_delta_temporality_the_deltas_add_up_whatever_failed(receiver: Receiver) -> None:
    receiver.answer = Flaky()
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }
    with pipeline(environ) as pipe:
        for number in range(20):
            put(pipe, *call(origin("a", model=f"model-{number % 3}"), cost=0.1))
            pipe.flush(5)
        pipe.flush(5)
    for metric, expected in ((COST, 2.0), (semconv.INPUT_TOKENS.name, 2000), (semconv.RESPONSE_LATENCY.name, 2.0)):
        points = receiver.points(metric)
        assert {point.temporality for point in points} == {AGGREGATION_TEMPORALITY_DELTA}
        assert math.fsum(point.value for point in points) == pytest.approx(expected, abs=1e-9)
    latencies = receiver.points(semconv.RESPONSE_LATENCY.name)
    assert sum(point.count for point in latencies) == sum(sum(point.buckets) for point in latencies) == 20
    for points in receiver.streams(COST).values():
        for earlier, later in itertools.pairwise(points):
            assert earlier.time == later.start, "deltas of a stream join without a gap"
    assert {p.temporality for p in receiver.points(CONVERSATION_COST)} == {AGGREGATION_TEMPORALITY_CUMULATIVE}


def test_exponential_histograms_on_request(receiver: Receiver) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
    }
    with pipeline(environ) as pipe:
        for _ in range(3):
            put(pipe, *call(origin("a")))
            assert pipe.flush(50)
    metrics = [
        metric
        for request in receiver.requests
        for scope in request.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == semconv.RESPONSE_LATENCY.name
    ]
    assert {metric.WhichOneof("data") for metric in metrics} == {"exponential_histogram"}
    assert metrics[-1].exponential_histogram.data_points[-1].count == 3
    assert metrics[0].exponential_histogram.data_points[0].count == 0


def test_only_what_changed_is_sent_and_a_heartbeat_says_all_again(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, heartbeat_s=0.5) as pipe:
        put(pipe, *call(origin("a", model="one")), *call(origin("b", model="two")))
        assert pipe.flush(50)
        before = len(receiver.requests)
        put(pipe, *call(origin("b", model="two")))
        assert pipe.flush(50)
        changed = _points_of(receiver, before)
        assert {point.attributes[semconv.CONVERSATION_ID] for point in changed if _is_conversation(point)} == {"b"}
        assert {point.attributes.get(semconv.REQUEST_MODEL, "two") for point in changed} == {"two"}
        before = len(receiver.requests)
        receiver.wait_for(lambda seen: len(seen.requests) > before)
        heartbeat = _points_of(receiver, before)
    assert {p.attributes[semconv.CONVERSATION_ID] for p in heartbeat if _is_conversation(p)} == {"a", "b"}
    assert {p.attributes[semconv.REQUEST_MODEL] for p in heartbeat if p.metric == COST} == {"one", "two"}
    assert {metric.name for metric in (semconv.FLUSHES, semconv.FAILED_EXPORTS)} <= {p.metric for p in heartbeat}
    assert not any(p.value == 0 for p in heartbeat if p.metric == COST), "no second 0"


def test_budgets_are_sent_once_and_with_each_heartbeat_and_start_with_no_0(receiver: Receiver) -> None:
    budgets = {"day": 20.0, "team": 100.0}
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, heartbeat_s=0.5, budgets=budgets) as pipe:
        put(pipe, *call(origin("a")))
        assert pipe.flush(50)
        receiver.wait_for(lambda seen: len([p for p in seen.points() if p.metric == semconv.BUDGET.name]) > 2)
    said = [point for point in receiver.points() if point.metric == semconv.BUDGET.name]
    assert {(p.attributes[semconv.BUDGET_SCOPE], p.value) for p in said} == {("day", 20), ("team", 100)}
    assert {(point.temporality, point.unit) for point in said} == {(0, semconv.USD)}


def test_no_attribute_is_empty_since_thanos_refuses_such_series(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("a", usage_id="")), *call(origin("a", model="", usage_id="")))
        assert pipe.flush(50)
    assert receiver.total(semconv.CONVERSATION_COST.name) == pytest.approx(0.002)
    assert all(value != "" for point in receiver.points() for value in point.attributes.values())


def test_a_thousand_conversations_are_sent_in_requests_that_receivers_take(receiver: Receiver) -> None:
    names = [f"conversation-{number:05}" for number in range(1200)]
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, heartbeat_s=1) as pipe:
        for name in names:
            put(pipe, opened(name), *call(origin(name)))
        assert pipe.flush(50)
        sent = len(receiver.bodies)
        assert receiver.total(semconv.CONVERSATION_CALLS.name) == len(names)
        receiver.wait_for(lambda seen: len(_ids(_points_of(seen, sent))) == len(names), timeout_s=100)
    assert max(map(len, receiver.bodies)) < 2_000_000


def test_a_status_that_gives_way_is_ended_in_the_same_request(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        for event in (opened("a"), run_started("a"), run_ended("a")):
            put(pipe, event)
            assert pipe.flush(50)
    states = [
        [(p.attributes[semconv.CONVERSATION_STATUS], p.flags) for p in _points_of(receiver, at, at + 1)
         if p.metric == semconv.CONVERSATION_STATE.name]
        for at in range(3)
    ]  # fmt: skip
    assert [sorted(state) for state in states] == [
        [("idle", 0)],
        [("idle", NO_RECORDED_VALUE), ("running", 0)],
        [("finished", 0), ("running", NO_RECORDED_VALUE)],
    ]


def test_an_activity_appears_and_is_ended(receiver: Receiver) -> None:
    whose = origin("a")
    events = list(call(whose))
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, events[0])
        assert pipe.flush(50)
        put(pipe, *events[1:])
        assert pipe.flush(50)
    began, ended = receiver.points(semconv.CONVERSATION_NOW.name)
    assert (began.attributes[semconv.CONVERSATION_ACTIVITY], began.flags) == ("llm", 0)
    assert began.value == pytest.approx(events[0].at / 1e9)
    assert ended.flags == NO_RECORDED_VALUE


def test_a_closed_conversation_is_ended_after_its_last_values(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, opened("a"), *call(origin("a")), *call(origin("a")), closed("a"))
        assert pipe.flush(50)
        put(pipe, *call(origin("b")))
        assert pipe.flush(50)
    last: dict[tuple[object, ...], list[Point]] = {}
    for point in receiver.points():
        if _is_conversation(point) and point.attributes[semconv.CONVERSATION_ID] == "a":
            last.setdefault((point.metric, *sorted(point.attributes.items())), []).append(point)
    assert {(semconv.CONVERSATION_COST.name), semconv.CONVERSATION_INFO.name} <= {key[0] for key in last}
    for points in last.values():
        *values, end = points
        assert end.flags == NO_RECORDED_VALUE
        assert not any(point.flags for point in values)
        assert values[-1].time < end.time
    assert receiver.total(CONVERSATION_COST, gen_ai__conversation__id="a") == pytest.approx(0.002)


def test_a_conversation_closed_and_resumed_under_its_id_goes_on(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, opened("a"), *call(origin("a")), closed("a"))
        assert pipe.flush(50)
        put(pipe, opened("a", restored=0.001), *call(origin("a")))
        assert pipe.flush(50)
        snapshot = pipe.snapshot("a")
    (points,) = receiver.streams(CONVERSATION_COST).values()
    assert [point.value for point in points if not point.flags] == pytest.approx([0, 0.001, 0.002])
    assert len({point.start for point in points}) == 1
    assert snapshot is not None
    assert (snapshot.restored_cost, snapshot.accumulated_cost) == (0, pytest.approx(0.002))


def test_an_amount_that_is_no_number_spoils_nothing(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *response(origin("a")), *response(origin("a"), cost=math.nan), *response(origin("a"), cost=math.inf))
        assert pipe.flush(50)
    assert receiver.total(COST) == pytest.approx(0.001)
    assert receiver.total(CONVERSATION_COST) == pytest.approx(0.001)


def test_attribute_sets_beyond_the_cap_share_a_bucket_and_are_counted(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, series_limit=10) as pipe:
        for number in range(30):
            put(pipe, *call(origin(None, model=f"model-{number}")))
        assert pipe.flush(50)
    streams = receiver.streams(COST)
    assert len(streams) == 11
    assert receiver.total(COST) == pytest.approx(0.03)
    assert receiver.total(COST, otel__metric__overflow=True) == pytest.approx(0.02)
    assert receiver.total(semconv.OVERFLOWS.name) > 0


def test_a_running_conversation_has_one_status_in_its_last_points(receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        for _ in range(5):
            put(pipe, opened("a"), run_started("a"), *call(origin("a")), run_ended("a", Status.PAUSED))
            assert pipe.flush(50)
    last = {
        p.attributes[semconv.CONVERSATION_STATUS]: p.flags for p in receiver.points(semconv.CONVERSATION_STATE.name)
    }
    assert [status for status, flags in last.items() if not flags] == ["paused"]


def _points_of(receiver: Receiver, first: int, end: int | None = None) -> list[Point]:
    part = Receiver(requests=receiver.requests[first:end])
    return part.points()


def _metrics_of(receiver: Receiver, at: int) -> set[str]:
    return {point.metric for point in _points_of(receiver, at, at + 1)}


def _ids(points: list[Point]) -> set[str]:
    return {p.attributes[semconv.CONVERSATION_ID] for p in points if _is_conversation(p)}


def _is_conversation(point: Point) -> bool:
    return point.scope == semconv.SCOPE_CONVERSATIONS


def test_the_sdks_own_metrics_are_beside_ours_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: a second scope where there was always one."""
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    with http_receiver() as receiver, pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        for _ in range(2):
            put(pipe, *call(origin("c"), 0.25))
            assert pipe.flush(50)
    assert receiver.total(COST) == 0.5
    for metric in (COST, semconv.RESPONSE_LATENCY.name):
        (points,) = receiver.streams(metric).values()
        assert {point.scope for point in points} == {semconv.SCOPE_FLEET}
        assert len({point.time for point in points}) == len(points)


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 1e300, -1.0])
def test_a_latency_that_can_be_none_is_a_call_and_no_value(seconds: float, receiver: Receiver) -> None:
    """Kind: numbers without a range. One such sum, and a receiver refuses the series from then on, and all of the
    process's money is kept as refused in part when it ends."""
    from openhands_otel import events

    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        for each in (0.25, seconds, 0.5):
            put(pipe, events.LatencyRecorded(time.time_ns(), origin("c"), each, "r"))
        assert pipe.flush(5)
    latency = receiver.points(semconv.RESPONSE_LATENCY.name)[-1]
    assert (latency.value, latency.count) == (0.75, 2)
    assert receiver.total(semconv.CALLS.name) == 3


HALF = "caf\udce9 \ud800"
"""What a name looks like to Python that is no UTF-8 in the environment, and half a character."""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_name_that_no_wire_holds_is_escaped_and_costs_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: one value that breaks every request of the process, and its spool, from then on."""
    from openhands_otel import events

    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=caf\udce9,caf\udce9=x")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "caf\udce9")
    whose = origin(f"c{HALF}", model=HALF, provider=HALF, agent=HALF, usage_id=HALF)
    with receiving(protocol) as (receiver, environ), pipeline(environ) as pipe:
        put(pipe, *call(whose, 0.5), *call(origin("d"), 0.25))
        put(pipe, events.ToolEnded(time.time_ns(), f"c{HALF}", HALF, 1, HALF, ToolOutcome.EXCEPTION, 0.5, HALF))
        assert pipe.flush(5)
        assert receiver.total(COST) == receiver.total(CONVERSATION_COST) == 0.75
        assert receiver.total(COST, gen_ai__request__model="caf\\udce9 \\ud800") == 0.5
        (point, *_) = receiver.points(semconv.TOOL_DURATION.name)
        assert point.attributes[semconv.TOOL_NAME] == "caf\\udce9 \\ud800"
        assert point.resource["service.name"] == point.resource["team"] == "caf\\udce9"
