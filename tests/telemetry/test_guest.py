"""On a MeterProvider of the application: the fleet's metrics come with its reader, conversations through ours."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import SpanContext, TraceFlags

from openhands_otel import semconv
from openhands_otel._internal.ledger.intake import OfSpan
from otlp_receiver import Receiver

from .conftest import COLLECTORS, Start
from .pipes import call, origin, pipeline, put

COST = semconv.COST.name


class Application(MeterProvider):
    """A provider that knows whether somebody else flushes it."""

    flushed = 0

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        self.flushed += 1
        return super().force_flush(timeout_millis)


def read(reader: InMemoryMetricReader) -> dict[str, float]:
    """Sum or count of each metric."""
    data = reader.get_metrics_data()
    found: dict[str, float] = {}
    for scope in data.resource_metrics[0].scope_metrics if data else ():
        for metric in scope.metrics:
            points: list[Any] = list(metric.data.data_points)
            found[metric.name] = sum(getattr(point, "value", None) or getattr(point, "count", 0) for point in points)
    return found


def test_the_fleet_is_on_the_applications_provider_and_conversations_come_through_our_exporter(
    receiver: Receiver,
) -> None:
    reader = InMemoryMetricReader()
    provider = Application([reader], shutdown_on_exit=False)
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, guest_of=provider, budgets={"day": 20}) as pipe:
        put(pipe, *call(origin("c")), *call(origin("c")))
        seen_at_once = read(reader)
        assert pipe.flush(50)
        seen = read(reader)
    assert seen_at_once[COST] == seen[COST] == pytest.approx(0.002)
    assert seen[semconv.RESPONSE_LATENCY.name] == 2
    assert seen[semconv.BUDGET.name] == 20
    assert {point.scope for point in receiver.points()} == {semconv.SCOPE_CONVERSATIONS, semconv.SCOPE_PROCESS}
    assert receiver.total(semconv.CONVERSATION_COST.name) == pytest.approx(0.002)
    assert provider.flushed == 0
    provider.shutdown()


def test_histograms_on_the_applications_provider_have_exemplars(receiver: Receiver) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    span = SpanContext(7, 8, False, TraceFlags(TraceFlags.SAMPLED))
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, guest_of=provider) as pipe:
        for event in call(origin("c")):
            pipe.put(OfSpan(event, span))
        assert pipe.flush(50)
    data: Any = reader.get_metrics_data()
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    (exemplar,) = metrics[semconv.RESPONSE_LATENCY.name].data.data_points[0].exemplars
    assert (exemplar.trace_id, exemplar.span_id, exemplar.value) == (7, 8, 0.1)
    provider.shutdown()


def test_a_second_pipeline_on_the_same_provider_goes_on_where_the_first_stopped(receiver: Receiver) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for _ in range(3):
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, guest_of=provider) as pipe:
            put(pipe, *call(origin("c")))
            assert pipe.flush(50)
    assert read(reader)[COST] == pytest.approx(0.003)
    assert read(reader)[semconv.RESPONSE_LATENCY.name] == 3
    provider.shutdown()


def test_a_forked_child_says_its_own_spend_on_the_applications_provider(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, sys
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        import spending
        reader = InMemoryMetricReader()
        instrumentor = spending.instrument(meter_provider=MeterProvider([reader]))
        def cost():
            data = reader.get_metrics_data()
            found = [
                point.value
                for scope in data.resource_metrics[0].scope_metrics
                for metric in scope.metrics if metric.name == "openhands.llm.cost"
                for point in metric.data.data_points
            ]
            return round(sum(found), 6)
        spending.spend(100, conversation="c")
        print("parent-before", cost(), flush=True)
        if os.fork() == 0:
            print("child-before", cost() if reader.get_metrics_data() else 0, flush=True)
            spending.spend(1, conversation="c")
            print("child-after", cost(), flush=True)
            sys.exit(0)
        os.wait()
        print("parent-after", cost(), flush=True)
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert child.marks == {"parent-before": 0.1, "child-before": 0, "child-after": 0.001, "parent-after": 0.1}
    by_process = [points[-1].value for points in receiver.streams(semconv.CONVERSATION_COST.name).values()]
    assert sorted(p for p in by_process if p) == pytest.approx([0.001, 0.1])


def test_forks_while_the_applications_reader_is_busy_hang_nobody(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, sys, threading, time
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        import spending
        reader = InMemoryMetricReader()
        instrumentor = spending.instrument(meter_provider=MeterProvider([reader]))
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                spending.spend(1, conversation="c")
                time.sleep(0.0005)
        threads = [threading.Thread(target=busy)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            if os.fork() == 0:
                spending.spend(3, conversation="d")
                os._exit(0 if instrumentor.flush(50) else 1)
            assert os.wait()[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(100) == 0, child.err
    assert receiver.total(semconv.CONVERSATION_COST.name, gen_ai__conversation__id="d") == pytest.approx(0.03)


@pytest.mark.parametrize("collector", ["working", "silent", "refusing"])
def test_the_applications_end_stays_its_own(collector: str, start: Start, receiver: Receiver) -> None:
    """Its provider is shut down by itself, with all that was spent; ours adds two seconds at the most."""
    source = """
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
        import sys
        import spending
        class Application(MeterProvider):
            def force_flush(self, timeout_millis=10_000):
                spending.mark("flushed-by-somebody-else")
        reader = PeriodicExportingMetricReader(ConsoleMetricExporter(out=open("exported", "w")))
        spending.instrument(meter_provider=Application([reader]))
        spending.spend(50, conversation="c")
        spending.mark("end")
        """
    with COLLECTORS.get(collector, COLLECTORS["silent"])() as port:
        endpoint = f"{receiver.url}/v1/metrics" if collector == "working" else f"http://127.0.0.1:{port}"
        with_us, without_us = start(source, endpoint), start(source, endpoint, WITHOUT_US="1")
        assert with_us.wait() == without_us.wait() == 0, with_us.err
    assert with_us.exit_time() - without_us.exit_time() < 2.0
    assert "flushed-by-somebody-else" not in with_us.marks
    exported = (with_us.directory / "exported").read_text()
    assert '"value": 5000' in exported, "input tokens"
    if collector == "working":
        assert receiver.total(semconv.CONVERSATION_COST.name) == pytest.approx(0.05)
