"""``OTEL_CONFIG_FILE``: a file stands in the place of the variables, as OpenTelemetry's specification has it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openhands_otel._internal.export import config_file, config_tree
from openhands_otel._internal.export.config_file import standard
from openhands_otel._internal.export.config_tree import ConfigFileError, read_tree
from openhands_otel._internal.export.otlp_config import read_otlp_config
from openhands_otel._internal.metrics.resource import base_resource
from openhands_otel._internal.process.pipeline import Pipeline
from openhands_otel.semconv import GenAINames
from openhands_otel.settings import Settings
from otlp_receiver import Receiver, grpc_receiver, http_receiver

from .pipes import call, origin, put

COST = "openhands.llm.cost"

EVERYTHING = """
file_format: "1.0"
log_level: info
resource:
  attributes_list: "service.name=loser,team=payments"
  attributes:
    - {name: service.name, value: "${SERVICE:-coder}"}
    - {name: replicas, value: 3}
    - {name: weights, value: [1, 2], type: double_array}
  detection/development: {detectors: [{host: }]}
meter_provider:
  exemplar_filter: always_off
  views:
    - {selector: {instrument_name: x}, stream: {name: y}}
  readers:
    - pull: {exporter: {prometheus/development: {port: 1}}}
    - periodic:
        interval: 1000
        exporter:
          otlp_grpc:
            endpoint: ${SCHEME}://collector:4317
            tls: {ca_file: /ca.pem, cert_file: /cert.pem, key_file: /key.pem, insecure: true}
            headers_list: "x-one=1,x-two=2"
            headers:
              - {name: x-two, value: "a=b, c"}
              - {name: price, value: "$${5}"}
            compression: gzip
            timeout: ${TIMEOUT_MS}
            temporality_preference: low_memory
            default_histogram_aggregation: base2_exponential_bucket_histogram
            max_request_size: 5
tracer_provider:
  sampler: {always_off: }
  processors:
    - batch:
        schedule_delay: 100
        exporter:
          otlp_http: {endpoint: "http://traces:4318/v1/traces"}
instrumentation/development:
  general: {stability_opt_in_list: gen_ai_latest_experimental}
  python: {openhands: {}}
"""


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_file, "_said", set())


@pytest.fixture(params=["http/protobuf", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[str, Receiver]]:
    with (grpc_receiver if request.param == "grpc" else http_receiver)() as found:
        yield request.param, found


def name_file(patch: pytest.MonkeyPatch, folder: Path, text: str, name: str = "otel.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    patch.setenv("OTEL_CONFIG_FILE", str(file))
    return file


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "openhands_otel"]


def test_all_that_is_used_is_taken_and_all_else_is_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = name_file(monkeypatch, tmp_path, EVERYTHING)
    monkeypatch.setenv("SCHEME", "http")
    monkeypatch.setenv("TIMEOUT_MS", "1500")
    # Each of these would be read, were there no file.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-secret=1")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=h,service.name=other")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    caplog.set_level(logging.INFO, "openhands_otel")
    metrics, traces = read_otlp_config(), read_otlp_config(signal="traces")
    assert (metrics.exporter, metrics.protocol, metrics.endpoint) == ("otlp", "grpc", "collector:4317")
    assert (metrics.insecure, metrics.own_only) == (True, False)
    assert (metrics.certificate, metrics.client_certificate, metrics.client_key) == ("/ca.pem", "/cert.pem", "/key.pem")
    assert metrics.headers == {"x-one": "1", "x-two": "a=b, c", "price": "${5}"}
    assert (metrics.compression, metrics.timeout_s, metrics.temporality) == ("gzip", 1.5, "lowmemory")
    assert (metrics.exponential_histograms, metrics.exemplars) == (True, False)
    assert metrics.names is GenAINames.NEWEST
    assert (traces.endpoint, traces.headers) == ("http://traces:4318/v1/traces", {})
    attributes = dict(base_resource().attributes)
    assert (attributes["service.name"], attributes["team"], attributes["replicas"]) == ("coder", "payments", 3)
    assert attributes["weights"] == (1.0, 2.0)
    assert "host.name" not in attributes
    (line,) = lines(caplog)
    named = line.partition(": not used by openhands-otel: ")[2].partition(" (")[0].split(", ")
    assert str(file) in line
    exporter = "meter_provider.readers[1].periodic.exporter.otlp_grpc"
    assert set(named) == {
        "log_level",
        "resource.detection/development",
        "meter_provider.views",
        "meter_provider.readers[0].pull.exporter.prometheus/development",
        "meter_provider.readers[1].periodic.interval",
        f"{exporter}.max_request_size",
        "tracer_provider.sampler",
        "instrumentation/development.python",
    }
    assert metrics.variable("CERTIFICATE") == f"certificate of {exporter} in otel.yaml"


def test_what_is_spent_arrives_where_the_file_says(
    receiver: tuple[str, Receiver], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    protocol, there = receiver
    exporter = (
        {"otlp_grpc": {"endpoint": f"http://127.0.0.1:{there.port}"}}
        if protocol == "grpc"
        else {"otlp_http": {"endpoint": f"{there.url}/v1/metrics", "compression": "gzip"}}
    )
    tree = {
        "file_format": "1.0",
        "resource": {"attributes": [{"name": "service.name", "value": "${NAME}"}]},
        "meter_provider": {"readers": [{"periodic": {"exporter": exporter}}]},
    }
    monkeypatch.setenv("NAME", "from a file")
    name_file(monkeypatch, tmp_path, json.dumps(tree), "otel.json")
    pipe = Pipeline(Settings(), read_otlp_config(), lambda: 0)
    pipe.start()
    try:
        put(pipe, *call(origin("a"), 0.25))
        assert pipe.flush(50)
    finally:
        pipe.stop(2)
    assert there.total(COST) == 0.25
    assert {point.resource["service.name"] for point in there.points(COST)} == {"from a file"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it holds no mapping"),
        ("a: [", "it is no YAML"),
        ("resource: {}", "no file_format"),
        ('file_format: "2.0"', "file_format '2.0'"),
        ('file_format: "1.0"\nresource: [1]', "resource is no mapping"),
        ('file_format: "1.0"\nmeter_provider: {readers: 5}', "meter_provider.readers is no list"),
        ('file_format: "1.0"\nlog_level: ${1X}', "is no reference"),
        (
            'file_format: "1.0"\nmeter_provider: {readers: [{periodic: {exporter: {otlp_http: {timeout: soon}}}}]}',
            "timeout",
        ),
        ('file_format: "1.0"\nresource: {attributes: [{name: a, value: x, type: int}]}', "is no int"),
    ],
)
def test_a_bad_file_is_one_line_and_nothing_is_sent(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name_file(monkeypatch, tmp_path, text)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere:1")
    assert read_otlp_config().exporter == read_otlp_config(signal="traces").exporter == "none"
    assert base_resource().attributes["service.name"] == "openhands"
    (line,) = lines(caplog)
    assert line.startswith("OTEL_CONFIG_FILE=")
    assert why in line


def test_a_file_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(tmp_path / "missing.yaml"))
    assert read_otlp_config().exporter == "none"
    (line,) = lines(caplog)
    assert line.endswith("missing.yaml cannot be used, nothing is sent: No such file or directory")


def test_yaml_without_pyyaml_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name_file(monkeypatch, tmp_path, 'file_format: "1.0"')
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read_otlp_config().exporter == "none"
    (line,) = lines(caplog)
    assert "pip install pyyaml" in line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NUMBER}", 12),
        ('"${NUMBER}"', "12"),
        ("a${NUMBER}", "a12"),
        ("${env:NUMBER}", 12),
        ("${TRUTH}", True),
        ("${MISSING}", None),
        ('"${MISSING}"', ""),
        ("${MISSING:-7}", 7),
        ("${MISSING:-}", None),
        ("${EMPTY:-7}", None),
        ("${NUMBER:-7} and ${MISSING:-8}", "12 and 8"),
        ("$${NUMBER}", "${NUMBER}"),
        ("$$$${NUMBER}", "$${NUMBER}"),
        ("${REFERENCE}", "${NUMBER}"),
        ("${LINES}", "a: b\nc: d"),
        ("5 $", "5 $"),
    ],
)
def test_references_are_replaced_as_the_specification_says(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "otel.yaml"
    file.write_text(f'file_format: "1.0"\n# ${{NOT A REFERENCE}}\nkey: {text}\n')
    environ = {"NUMBER": "12", "TRUTH": "true", "EMPTY": "", "REFERENCE": "${NUMBER}", "LINES": "a: b\nc: d"}
    assert read_tree(file, environ)["key"] == value


def test_a_switch_in_the_file_leaves_openhands_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name_file(monkeypatch, tmp_path, 'file_format: "1.0"\ndisabled: true')
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    assert standard().environ["OTEL_SDK_DISABLED"] == "true"
    name_file(monkeypatch, tmp_path, 'file_format: "1.0"\ndisabled: ${OFF:-false}')
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert "OTEL_SDK_DISABLED" not in standard().environ


SECRET = "sk-of-nobody-else"


@pytest.mark.parametrize(
    "text",
    [
        f'file_format: "1.0"\nmeter_provider:\n  headers_list: "authorization=Bearer {SECRET}\n',
        f"file_format: '1.0'\nmeter_provider: {{headers_list: authorization: {SECRET}}}",
        f"file_format: '1.0'\nmeter_provider: *{SECRET}",
        f"file_format: '1.0'\nmeter_provider: !{SECRET} x",
        f"file_format: '1.0'\nheaders_list: ${{{SECRET}",
        f"file_format: '1.0'\n{SECRET}",
        f"@{SECRET}",
    ],
)
@pytest.mark.parametrize("by_opentelemetry", [False, True])
def test_what_is_wrong_with_a_file_is_said_without_what_stands_there(
    text: str, by_opentelemetry: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A header's value is the key that somebody sends with. PyYAML and schemas show what they complain of."""
    yaml = pytest.importorskip("yaml")

    def load_config_file(file: Path) -> Any:
        try:
            yaml.safe_load(file.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"Failed to parse YAML: {error}") from error
        raise ValueError(f"does not match schema: '{SECRET}' is not of type 'object'\n\nOn instance:\n    '{SECRET}'")

    if by_opentelemetry:
        loader = SimpleNamespace(load_config_file=load_config_file)
        monkeypatch.setitem(sys.modules, "opentelemetry.configuration", loader)
    file = tmp_path / "otel.yaml"
    file.write_text(text)
    with pytest.raises(ConfigFileError) as problem:
        read_tree(file, {})
    assert SECRET not in str(problem.value)
    assert str(problem.value)


def test_the_sdks_own_loader_is_used_where_it_is_and_its_word_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its place is taken: the package wants another release of the SDK than the tests run with."""

    asked: list[Path] = []

    def load_config_file(file: Path) -> Any:
        asked.append(file)
        if "bad" in file.name:
            raise ValueError("does not match schema:\n  5 is not of type 'string'")
        return {"file_format": "1.0", "disabled": True}

    loader = SimpleNamespace(load_config_file=load_config_file)
    monkeypatch.setitem(sys.modules, "opentelemetry.configuration", loader)
    file = tmp_path / "otel.yaml"
    assert read_tree(file, {})["disabled"] is True
    with pytest.raises(ConfigFileError, match="does not match schema: 5 is not"):
        read_tree(tmp_path / "bad.yaml", {})
    assert asked == [file, tmp_path / "bad.yaml"]


def test_the_loaders_objects_are_read_as_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the package itself, where it is installed."""
    configuration = pytest.importorskip("opentelemetry.configuration")
    file = tmp_path / "otel.yaml"
    file.write_text(EVERYTHING.replace("            max_request_size: 5\n", ""))
    for name, value in (("SCHEME", "http"), ("TIMEOUT_MS", "1500")):
        monkeypatch.setenv(name, value)
    by_loader = standard({"OTEL_CONFIG_FILE": str(file), "SCHEME": "http", "TIMEOUT_MS": "1500"})
    monkeypatch.setattr(config_tree, "_by_opentelemetry", lambda file: None)
    by_ourselves = standard({"OTEL_CONFIG_FILE": str(file), "SCHEME": "http", "TIMEOUT_MS": "1500"})
    assert configuration is not None
    assert by_loader == by_ourselves
