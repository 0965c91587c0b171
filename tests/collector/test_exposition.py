"""What a Prometheus scrapes: names as its own OTLP receiver makes them, and text that its own parser reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel.collector.naming import label_name, metric_name
from otlp_sender import Sender

GOLDEN = """\
# HELP openhands_conversation_cost_USD_total Cost of a conversation in this process, by role, model, usage id.
# TYPE openhands_conversation_cost_USD_total counter
openhands_conversation_cost_USD_total{gen_ai_conversation_id="c\\"1",gen_ai_request_model="gpt",instance="p",job="lab/agent",openhands_llm_role="agent",openhands_usage_id="agent"} 0.5
# HELP openhands_conversation_status_ratio 1 for the state that the conversation is in.
# TYPE openhands_conversation_status_ratio gauge
openhands_conversation_status_ratio{gen_ai_conversation_id="c\\"1",instance="p",job="lab/agent",openhands_conversation_status="running"} 1
# HELP openhands_llm_cost_USD_total What LLM calls cost.
# TYPE openhands_llm_cost_USD_total counter
openhands_llm_cost_USD_total{gen_ai_provider_name="openai",gen_ai_request_model="gpt",instance="p",job="lab/agent",openhands_llm_role="agent"} 0.75
"""  # noqa: E501


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        sender = Sender("p", resource={"service.namespace": "lab", "host.name": "box"})
        sender.spend(0.75).converse('c"1', 0.5).state('c"1', "idle").observe(
            semconv.RESPONSE_LATENCY, [0.005, 0.3, 99.0]
        )
        viewer.send(sender)
        viewer.send(sender.state('c"1', "idle", ended=True).state('c"1', "running"))
        yield viewer


def test_the_text_format_is_as_it_should_be(viewer: Viewer) -> None:
    response = viewer.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = ("openhands_conversation_cost", "openhands_conversation_status", "openhands_llm_cost")
    lines = [line for line in response.text.splitlines() if any(family in line for family in families)]
    assert "\n".join([*lines, ""]) == GOLDEN


def test_a_prometheus_parser_reads_both_formats_alike(viewer: Viewer) -> None:
    text = viewer.http.get("/metrics").text
    response = viewer.http.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")

    def samples(families: Iterator[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    from_text = samples(parse_text(text))
    from_openmetrics = samples(parse_openmetrics(response.text))
    own = "openhands_otel_collector"
    assert {k: v for k, v in from_text.items() if own not in k[0]} == {
        k: v for k, v in from_openmetrics.items() if own not in k[0]
    }
    latency = "openhands_llm_response_latency_seconds"
    where = (("instance", "p"), ("job", "lab/agent"))
    assert from_text[f"{latency}_count", where] == 3
    assert from_text[f"{latency}_bucket", (*where, ("le", "0.01"))] == 1
    assert from_text[f"{latency}_bucket", (*where, ("le", "0.32"))] == 2
    assert from_text[f"{latency}_bucket", (*where, ("le", "+Inf"))] == 3
    assert from_text["target_info", (("host_name", "box"), *where)] == 1


def test_what_has_ended_is_no_longer_scraped(viewer: Viewer) -> None:
    assert 'openhands_conversation_status="idle"' not in viewer.http.get("/metrics").text


@pytest.mark.parametrize(
    ("name", "kind", "unit", "expected"),
    [
        ("openhands.llm.cost", "counter", "USD", "openhands_llm_cost_USD_total"),
        ("gen_ai.client.token.usage", "histogram", "{token}", "gen_ai_client_token_usage"),
        ("http.server.duration", "histogram", "ms", "http_server_duration_milliseconds"),
        ("requests.total", "counter", "1", "requests_total"),
        ("cpu.utilization", "gauge", "1", "cpu_utilization_ratio"),
        ("net.speed", "gauge", "By/s", "net_speed_bytes_per_second"),
        ("queue.rate", "gauge", "{item}/min", "queue_rate_per_min"),
        ("wait.seconds", "gauge", "s", "wait_seconds"),
        ("2xx", "counter", "", "_2xx_total"),
        ("a..b--c", "gauge", "", "a_b_c"),
    ],
)
def test_names_are_those_of_prometheus_own_receiver(name: str, kind: str, unit: str, expected: str) -> None:
    assert metric_name(name, kind, unit) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gen_ai.request.model", "gen_ai_request_model"), ("2nd", "key_2nd"), ("_own", "key_own"), ("__name", "__name")],
)
def test_label_names_are_those_of_prometheus_own_receiver(name: str, expected: str) -> None:
    assert label_name(name) == expected
