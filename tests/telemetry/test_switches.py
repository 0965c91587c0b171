"""Settings that cannot be used cost one line of log; the application runs on, and switches switch."""

from __future__ import annotations

import pytest

from openhands_otel import semconv
from openhands_otel._internal.export.otlp_config import read_otlp_config
from otlp_receiver import Receiver

from .conftest import Start

PROGRAM = """
    import spending
    from openhands.sdk.llm.utils.metrics import Metrics
    before = Metrics.add_cost
    instrumentor = spending.instrument()
    print("patched", int(Metrics.add_cost is not before), flush=True)
    spending.spend(3, conversation="c")
    instrumentor.flush(5)
    spending.mark("end")
    """


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_SDK_DISABLED", "TRUE"), ("OPENHANDS_OTEL_ENABLED", "false")],
)
def test_switched_off_means_untouched(name: str, value: str, start: Start, receiver: Receiver) -> None:
    child = start(PROGRAM, f"{receiver.url}/v1/metrics", **{name: value})
    assert child.wait() == 0, child.err
    assert child.marks["patched"] == 0
    assert child.log == []
    assert not receiver.requests


def test_without_an_exporter_nothing_is_sent_and_the_process_ends_at_once(start: Start, receiver: Receiver) -> None:
    child = start(PROGRAM, f"{receiver.url}/v1/metrics", OTEL_METRICS_EXPORTER="none")
    assert child.wait() == 0, child.err
    assert child.log == []
    assert not receiver.requests
    assert child.exit_time() < 1.2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENHANDS_OTEL_FLUSH_WINDOW_MS", "soon"),
        ("OPENHANDS_OTEL_ENABLED", "perhaps"),
        ("OPENHANDS_OTEL_HEARTBEAT_S", "-1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_warning_and_an_application_that_runs_on(
    name: str, value: str, start: Start, receiver: Receiver
) -> None:
    child = start(PROGRAM, f"{receiver.url}/v1/metrics", **{name: value})
    assert child.wait() == 0, child.err
    (line,) = child.log
    assert name in line
    assert "end" in child.marks
    assert not receiver.requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-separator"),
        ("OTEL_METRICS_EXPORTER", "console,otlp"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sideways"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "broken,a=b"),
    ],
)
def test_an_otel_variable_that_cannot_be_used_is_replaced_by_its_default(
    name: str, value: str, start: Start, receiver: Receiver
) -> None:
    child = start(PROGRAM, f"{receiver.url}/v1/metrics", **{name: value})
    assert child.wait() == 0, child.err
    assert len(child.log) <= 1, child.err
    assert receiver.total(semconv.COST.name) == pytest.approx(0.003)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"},
        {"OPENHANDS_OTEL_TOKEN_FILE": "/nowhere/token"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "x=line%0Abreak"},
    ],
    ids=["grpc certificate", "http certificate", "token file", "header"],
)
def test_files_and_headers_that_cannot_be_used_are_one_warning(environ: dict[str, str], start: Start) -> None:
    child = start(PROGRAM, "https://127.0.0.1:9/v1/metrics", **environ)
    assert child.wait() == 0, child.err
    # And one at the end, of the money.
    warning, farewell = child.log
    reason = warning.removeprefix("metrics cannot be sent now: ").partition(";")[0]
    assert "$0.0030 of 3 calls did not reach" in farewell
    assert f"({reason})" in farewell
    assert "end" in child.marks


@pytest.mark.parametrize("endpoint", ["http://[", "http://secret@127.0.0.1:port/"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_that_cannot_be_read_is_one_warning_without_it(
    endpoint: str, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    usable = "http://127.0.0.1:5/v1/metrics"
    variables = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:5"}
    config = read_otlp_config(variables | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert config.endpoint == (usable if protocol == "http/protobuf" else "127.0.0.1:5")
    (record,) = caplog.records
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in record.getMessage()
    assert "secret" not in record.getMessage()
