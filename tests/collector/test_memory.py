"""What senders can make the viewer hold is bounded, money is in the totals all the same, and what gave way is told.

The kind of fault: a table that a sender can grow. Each burst is sent twice to a real viewer; the second finds the room
that the first left. The bound for all of them is generous: what counts is that a burst of any size does not pass it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import batched

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from otlp_sender import Sender, key_values

BOUND_MB = 380
"""What limits.py allows to all kinds together, and the viewer itself."""
FLAT_MB = 60
"""What the second burst may add, by the allocator's and SQLite's caches."""
START = 10**18


def counter(name: str, value: float, sets: Iterable[dict[str, str]], unit: str = "USD") -> pb.Metric:
    metric = pb.Metric(name=name, unit=unit)
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, pb.AGGREGATION_TEMPORALITY_CUMULATIVE
    for attributes in sets:
        metric.sum.data_points.add(
            attributes=key_values(attributes), start_time_unix_nano=START, time_unix_nano=START + 1, as_double=value
        )
    return metric


def request(*resources: tuple[dict[str, str], list[pb.Metric]]) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    for resource, metrics in resources:
        resource_metrics = made.resource_metrics.add()
        resource_metrics.resource.attributes.extend(key_values(resource))
        scope = resource_metrics.scope_metrics.add()
        scope.scope.name = semconv.SCOPE_FLEET
        scope.metrics.extend(metrics)
    return made


def process(name: str, service: str = "s") -> dict[str, str]:
    return {"service.name": service, "service.instance.id": name}


def many_instances() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(12_000), 6_000):
        yield request(*((process(f"p{n}"), [counter(semconv.COST.name, 0.01, [{}])]) for n in numbers))


def many_services() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(12_000), 6_000):
        yield request(*((process("x", f"s{n}"), [counter(semconv.COST.name, 0.01, [{"m": "x"}])]) for n in numbers))


def many_models_of_one_process() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(40_000), 20_000):
        sets = ({semconv.REQUEST_MODEL: f"m{n}"} for n in numbers)
        yield request((process("one"), [counter(semconv.COST.name, 0.01, sets)]))


def many_conversations() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(8_000), 4_000):
        sets = ({semconv.CONVERSATION_ID: f"c{n}", semconv.REQUEST_MODEL: "m"} for n in numbers)
        yield request((process("talks"), [counter(semconv.CONVERSATION_COST.name, 0.01, sets)]))


def many_foreign_names() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(40_000), 20_000):
        metrics = [counter(f"foreign.{n}.{'x' * 200}", 1.0, [{}], "1") for n in numbers]
        yield request((process("foreign"), metrics))


def large_attributes() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(4_000), 800):
        sets = ({"n": str(n)} | {f"a{k}": "y" * 1000 for k in range(20)} for n in numbers)
        yield request((process("large"), [counter("foreign", 1.0, sets, "1")]))


def large_resources() -> Iterator[ExportMetricsServiceRequest]:
    for numbers in batched(range(300), 50):
        extra = {f"a{k}": "y" * 1000 for k in range(200)}
        yield request(*((process(f"r{n}") | extra, [counter(semconv.COST.name, 0.01, [{}])]) for n in numbers))


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with running_viewer(database=tmp_path_factory.mktemp("bursts") / "history.sqlite3") as viewer:
        viewer.send(Sender("first").spend(0.0))
        yield viewer


@pytest.mark.parametrize(
    ("burst", "money", "refused"),
    [
        (many_instances, 120.0, False),
        (many_services, 120.0, False),
        (many_models_of_one_process, 400.0, False),
        (many_conversations, 0.0, False),
        (many_foreign_names, 0.0, True),
        (large_attributes, 0.0, True),
        (large_resources, 3.0, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_burst_costs_neither_memory_without_end_nor_money(
    viewer: Viewer, burst: Callable[[], Iterator[ExportMetricsServiceRequest]], money: float, refused: bool
) -> None:
    before = viewer.state().totals.accumulated_cost
    reached: list[float] = []
    for _ in range(2):
        rejected = 0
        for each in burst():
            response = viewer.post(each.SerializeToString())
            assert response.status_code == 200, response.text
            rejected += ExportMetricsServiceResponse.FromString(response.content).partial_success.rejected_data_points
        assert (rejected > 0) is refused
        # Sent again it counts once, wherever it is held by now.
        assert viewer.state().totals.accumulated_cost == pytest.approx(before + money, rel=1e-12)
        reached.append(viewer.memory_mb())
    print(f"{burst.__name__}: {reached[0]:.0f} MB, then {reached[1]:.0f} MB")
    assert max(reached) < BOUND_MB
    assert reached[1] < reached[0] + FLAT_MB
    receiver = viewer.state().receiver
    assert bool(receiver.refusals) >= refused
    assert viewer.http.get("/healthz").status_code == 200
    if burst is many_models_of_one_process:
        assert receiver.shared_points > 0


def test_without_a_file_the_records_are_bounded_too() -> None:
    with running_viewer() as viewer:
        for _ in range(2):
            for each in many_instances():
                viewer.post(each.SerializeToString())
            assert viewer.state().totals.accumulated_cost == pytest.approx(120.0, rel=1e-12)
        assert viewer.memory_mb() < BOUND_MB
