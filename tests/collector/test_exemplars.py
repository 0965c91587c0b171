"""From a number in Prometheus to the trace behind it: exemplars that senders put on points stand in OpenMetrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.samples import Exemplar
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.serve.exposition import Exposition
from openhands_otel._internal.collector.state.fleet import Fleet
from otlp_sender import Sender, key_values

from .held import HeldStore

TRACE, SPAN = bytes(range(16)), bytes(range(8))
IDS = {"trace_id": TRACE.hex(), "span_id": SPAN.hex()}
COST = "openhands_llm_cost_USD_total"
SECOND = 10**9
ROOM = 2**20
"""For what is others', here."""


def exemplar(value: float | None = 0.25, at: int | None = None, **more: Any) -> pb.Exemplar:
    given = {"trace_id": TRACE, "span_id": SPAN, "time_unix_nano": time.time_ns() if at is None else at} | more
    return pb.Exemplar(**given) if value is None else pb.Exemplar(**given, as_double=value)


def take(held: HeldStore, *exemplars: pb.Exemplar, cost: float = 1.0) -> None:
    request = Sender("p").spend(cost).request()
    request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].exemplars.extend(exemplars)
    assert held.take_body(request.SerializeToString()) == 0


def shown(page: str) -> dict[tuple[str, str], Exemplar]:
    """Exemplars by sample and bucket."""
    return {
        (sample.name, sample.labels.get("le", "")): sample.exemplar
        for family in parse_openmetrics(page)
        for sample in family.samples
        if sample.exemplar
    }


def scraped(held: HeldStore) -> dict[tuple[str, str], Exemplar]:
    return shown(held.run(Exposition.OPENMETRICS.render(held.store)).decode())


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


def scrape(viewer: Viewer) -> dict[tuple[str, str], Exemplar]:
    return shown(viewer.http.get("/metrics", headers={"accept": "application/openmetrics-text"}).text)


@pytest.mark.parametrize("exponential", [False, True], ids=["explicit", "exponential"])
@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_what_an_opentelemetry_sdk_measured_in_a_span_leads_to_it(
    viewer: Viewer, temporality: AggregationTemporality, exponential: bool
) -> None:
    name = f"work.{temporality.name}.{exponential}".lower()
    exporter = OTLPMetricExporter(
        f"{viewer.url}/v1/metrics",
        preferred_temporality={sdk.Counter: temporality, sdk.Histogram: temporality},
        preferred_aggregation={sdk.Histogram: ExponentialBucketHistogramAggregation()} if exponential else {},
    )
    # The SDK puts into the exemplar what a view takes out of the attributes.
    provider = sdk.MeterProvider(
        [PeriodicExportingMetricReader(exporter, 1e9)],
        Resource({"service.name": name}),
        views=[View(instrument_name="*", attribute_keys={"kept"})],
    )
    meter, tracer = provider.get_meter("shop"), TracerProvider().get_tracer("shop")
    counter, histogram = meter.create_counter(f"{name}.count"), meter.create_histogram(name, "s")
    attributes = {"kept": "k", "order.id": "o-7"}
    for seconds in (0.2, 3.0, 30.0):
        with tracer.start_as_current_span("order") as span:
            counter.add(2, attributes)
            histogram.record(seconds, attributes)
        assert provider.force_flush()
    provider.shutdown()
    context, base = span.get_span_context(), name.replace(".", "_")
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    found = {key: one for key, one in scrape(viewer).items() if key[0].startswith(base)}
    assert {one.labels["trace_id"] for one in found.values()} == {ids["trace_id"]}, found
    assert found[f"{base}_count_total", ""][:2] == (ids, 2)
    [bucket] = [le for sample, le in found if sample == f"{base}_seconds_bucket"]
    assert found[f"{base}_seconds_bucket", bucket][:2] == (ids, 30)
    assert 30 <= float(bucket) <= 50
    assert abs(float(found[f"{base}_count_total", ""].timestamp or 0) - time.time()) < 600
    assert "trace_id" not in viewer.http.get("/metrics").text


def test_the_newest_one_stands_whatever_came_last() -> None:
    now = time.time_ns()
    with HeldStore() as held:
        take(held, exemplar(0.1, now - 3 * SECOND), exemplar(0.2, now - SECOND), exemplar(0.3, now - 2 * SECOND))
        assert scraped(held)[COST, ""].value == 0.2
        take(held, exemplar(0.4, now - 2 * SECOND), cost=2.0)
        assert scraped(held)[COST, ""].value == 0.2
        take(held, cost=3.0)
        assert scraped(held)[COST, ""].value == 0.2
        take(held, exemplar(0.5, now), cost=4.0)
        assert scraped(held)[COST, ""].value == 0.5


def test_one_of_the_future_does_not_keep_others_from_prometheus() -> None:
    with HeldStore() as held:
        take(held, exemplar(0.1, time.time_ns() + 3600 * SECOND))
        assert float(scraped(held)[COST, ""].timestamp or 0) <= time.time()
        take(held, exemplar(0.2), cost=2.0)
        assert scraped(held)[COST, ""].value == 0.2


BAD = {
    "no trace": {"trace_id": b""},
    "no span": {"span_id": b""},
    "a trace of zeros": {"trace_id": bytes(16)},
    "a span of zeros": {"span_id": bytes(8)},
    "a short id": {"trace_id": TRACE[:8]},
    "a long id": {"span_id": TRACE},
    "no value": {"value": None},
    "no number": {"value": float("nan")},
    "no end": {"value": float("inf")},
    "no time": {"at": 0},
    "no such time": {"at": 2**64 - 1},
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_one_costs_neither_its_point_nor_a_good_one(why: str) -> None:
    with HeldStore() as held:
        take(held, exemplar(**BAD[why]))
        assert held.cost == 1.0
        assert scraped(held) == {}
        take(held, exemplar(0.5), exemplar(**BAD[why]), cost=2.0)
        assert (held.cost, scraped(held)[COST, ""].value) == (2.0, 0.5)


@pytest.mark.parametrize("bad", ["xyz", 7, "é" * 32, None, "00" * 15])
def test_an_id_in_json_that_is_none_costs_the_exemplar_alone(viewer: Viewer, bad: object) -> None:
    point = {"asDouble": 0.5, "timeUnixNano": str(time.time_ns()), "startTimeUnixNano": "1"}
    point["exemplars"] = [{"traceId": bad, "spanId": SPAN.hex(), "asDouble": 0.5, "timeUnixNano": "9"}]  # type: ignore[assignment]
    data = {"isMonotonic": True, "aggregationTemporality": 2, "dataPoints": [point]}
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": f"json.{bad}", "sum": data}]}]}]}
    response = viewer.http.post("/v1/metrics", json=document)
    assert (response.status_code, response.json()) == (200, {})


def test_a_gauge_has_none() -> None:
    metric = pb.Metric(name="level")
    metric.gauge.data_points.add(as_double=1, time_unix_nano=1, exemplars=[exemplar()])
    updown = pb.Metric(name="up.down")
    updown.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
    updown.sum.data_points.add(as_double=1, time_unix_nano=1, exemplars=[exemplar()])
    request = Sender("p").spend(1.0).request()
    request.resource_metrics[0].scope_metrics[0].metrics.extend([metric, updown])
    with HeldStore() as held:
        assert held.take_body(request.SerializeToString()) == 0
        assert scraped(held) == {}


def test_they_weigh_as_much_as_they_take_and_leave_with_their_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind: a table that a sender can grow."""
    monkeypatch.setattr(f"{Fleet.__module__}.FOREIGN_BYTES", ROOM)
    attributes = key_values({f"{number}": "x" * 100 for number in range(8)})
    metric = pb.Metric(name="foreign")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, pb.AGGREGATION_TEMPORALITY_CUMULATIVE
    for number in range(2_000):
        metric.sum.data_points.add(
            attributes=key_values({"n": str(number)}),
            as_int=1,
            start_time_unix_nano=1,
            time_unix_nano=2,
            exemplars=[exemplar(1.0, 5, filtered_attributes=attributes)],
        )
    request = Sender("p").spend(1.0).request()
    request.resource_metrics[0].scope_metrics[0].metrics.append(metric)
    with HeldStore() as held:
        held.take_body(request.SerializeToString())
        fleet = held.store.fleet
        [process] = fleet.processes.values()
        assert 500 < len(process.exemplars) < len(process.series)
        assert ROOM * 0.9 < process.foreign_weight <= ROOM
        held.let_all_go()
        assert fleet.processes == {}
        assert held.take_body(Sender("q").spend(1.0, model=semconv.UNKNOWN).body()) == 0
        [process] = fleet.processes.values()
        assert (process.foreign_weight, process.exemplars) == (0, {})
