"""A real Prometheus scrapes a real viewer to which strangers have sent whatever they liked, in both formats."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from viewer_process import Viewer, running_viewer

from deploy.native.build import binary
from deploy.native.ports import HOST, Ports
from deploy.native.server import Server
from openhands_otel import semconv
from openhands_otel._internal.demo.answers import Answer, Usage
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_sender import Sender, key_values
from trace_receiver import http_trace_receiver

from .prometheus_api import Prometheus, wait

CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}
scrape_configs:
- job_name: openmetrics
  honor_labels: true
  scrape_protocols: [OpenMetricsText1.0.0]
  static_configs: [{{targets: ["{viewer}"], labels: {{format: openmetrics}}}}]
- job_name: text
  honor_labels: true
  scrape_protocols: [PrometheusText0.0.4]
  static_configs: [{{targets: ["{viewer}"], labels: {{format: text}}}}]
"""
NAMES = ["foo", "foo.total", "foo.created", "foo_bucket", "foo.info", "f:oo", "...", "total", "target.info", "1", "é"]
LABELS = ["__name__", "le", "quantile", "job", "instance", "a.b", "a_b", "", "__", "exported_job", "\n"]


def strange_metrics() -> list[pb.Metric]:
    made: list[pb.Metric] = []
    for number, name in enumerate((*NAMES, semconv.COST.name, "openhands_llm_cost")):
        metric = pb.Metric(name=name, unit=["", "s", "1", "USD"][number % 4], description="\\ \n# EOF")
        common = {"start_time_unix_nano": 10**18, "time_unix_nano": 2 * 10**18}
        sets = (dict.fromkeys(LABELS, f'{number}"\\\n\u2028'), {"a.b": ""}, {"a_b": "x", "a.b": "y"}, {})
        for attributes in sets:
            exemplar = {
                "time_unix_nano": 2**63,
                "as_double": -1e-300,
                "trace_id": b"t" * 16,
                "span_id": b"s" * (number % 9),
            }
            said = key_values(dict.fromkeys(LABELS, "}# {"))
            given = {
                **common,
                "attributes": key_values(attributes),
                "exemplars": [{**exemplar, "filtered_attributes": said}],
            }
            if number % 3 == 0:
                metric.histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
                metric.histogram.data_points.add(
                    **given, count=3, sum=-1.0, bucket_counts=[1, 2], explicit_bounds=[-1e-300]
                )
            elif number % 3 == 1:
                metric.sum.is_monotonic = True
                metric.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
                metric.sum.data_points.add(**given, as_double=1.7e308)
            else:
                metric.gauge.data_points.add(**given, as_int=-(2**63))
        made.append(metric)
    return made


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        for number in range(2):
            request = Sender(f"p{number}", service="agent").spend(0.25).request()
            request.resource_metrics[0].scope_metrics[0].metrics.extend(strange_metrics())
            viewer.post(request.SerializeToString())
            # Twins without an instance id.
            resource = request.resource_metrics[0].resource
            del resource.attributes[:]
            resource.attributes.extend(key_values({"service.name": "twin", "host": str(number), "__name__": "x"}))
            viewer.post(request.SerializeToString())
        yield viewer


@pytest.fixture(scope="module")
def prometheus(viewer: Viewer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("scrape")
    config, port = folder / "prometheus.yml", Ports.free().prometheus
    config.write_text(CONFIG.format(viewer=viewer.url.removeprefix("http://")))
    url = f"http://{HOST}:{port}"
    command = [str(binary("prometheus")), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += ["--enable-feature=exemplar-storage"]
    server = Server("prometheus", [*command, f"--web.listen-address={HOST}:{port}"], f"{url}/-/ready", folder / "log")
    server.start()
    try:
        server.wait_ready()
        found = Prometheus(url)
        yield found
        found.close()
    finally:
        server.stop()


@pytest.mark.parametrize("form", ["openmetrics", "text"])
def test_what_strangers_send_costs_no_scrape_and_none_of_our_values(prometheus: Prometheus, form: str) -> None:
    """The kind of fault: one foreign name or label makes Prometheus refuse the page as a whole."""
    up = f'up{{format="{form}"}}'
    assert wait(lambda: prometheus.value(up), lambda value: value == 1) == 1, prometheus.ask("targets")
    ours = f'sum(openhands_llm_cost_USD_total{{format="{form}",gen_ai_provider_name="openai",job="agent"}})'
    assert prometheus.wait_for(ours, 0.5) == 0.5
    assert prometheus.wait_for(f'count(openhands_llm_cost_USD_total{{format="{form}",job="twin"}}) >= bool 1', 1) == 1
    dropped = f'sum(scrape_samples_scraped{{format="{form}"}} - scrape_samples_post_metric_relabeling)'
    assert prometheus.value(dropped) == 0
    # Nothing is written twice: Prometheus keeps as many samples as it reads.
    log = prometheus.ask("targets")["activeTargets"]
    assert [target["lastError"] for target in log] == ["", ""]


@pytest.mark.timeout(240)
def test_a_call_that_prometheus_shows_leads_to_its_trace(
    viewer: Viewer, prometheus: Prometheus, llm_server: LLMServer, tmp_path: Path
) -> None:
    """The kind of fault: what our sender says of a number is lost on its way through our own viewer."""
    llm_server.script("lead", [Answer(text="Done.", usage=Usage(input=900, output=30))])
    command = [str(Path(sys.executable).with_name("openhands-otel")), "run", "--endpoint", viewer.url]
    command += ["--service-name", "traced", "--", sys.executable, str(Path(__file__).with_name("agent.py"))]
    with http_trace_receiver() as traces:
        done = subprocess.run(
            [*command, llm_server.base_url("{script}"), str(tmp_path)],
            env={**os.environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.url},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [call] = [span for span in traces.spans if span.name.startswith("chat")]
    ids = {"trace_id": call.trace_id.hex(), "span_id": call.span_id.hex()}
    for name, value in (
        (semconv.COST.prometheus_name, call.attributes["gen_ai.usage.cost"]),
        (semconv.INPUT_TOKENS.prometheus_name, 900),
        (f"{semconv.RESPONSE_LATENCY.prometheus_name}_bucket", None),
    ):
        query = f'{name}{{job="traced",format="openmetrics"}}'
        found = wait(lambda query=query: prometheus.ask("query_exemplars", query=query, start=0, end=4e9), bool)
        [exemplar] = [one for series in found for one in series["exemplars"]]
        assert exemplar["labels"] == ids, name
        assert value is None or float(exemplar["value"]) == value, name


def test_promtool_finds_nothing_to_refuse(viewer: Viewer) -> None:
    page = viewer.http.get("/metrics").text
    checked = subprocess.run(
        [str(binary("promtool")), "check", "metrics"], input=page, capture_output=True, text=True, timeout=60
    )
    # Its advice about names (code 3) is for whoever chose them; what cannot be parsed is code 1.
    assert checked.returncode in {0, 3}, checked.stderr
    assert "error while linting" not in checked.stderr


def test_the_page_has_no_series_twice(viewer: Viewer) -> None:
    for accept in ("text/plain", "application/openmetrics-text"):
        page = viewer.http.get("/metrics", headers={"accept": accept}).text
        series = [line.rpartition(" ")[0] for line in page.split("\n") if line and not line.startswith("#")]
        assert len(series) == len(set(series))
