"""Whatever form of OTLP an agent is told to send, a viewer of ours comes to the same totals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel.stats import Breakdown, Share
from otlp_server import Answer, http_server

from .pipes import call, origin, pipeline, put

CALLS = 12


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


class Hazard:
    """What lies between an agent and a viewer: of each two requests one has no answer, though it arrives, and twice."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._count = itertools.count()

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        lost = next(self._count) % 2 == 0
        for _ in range(1 + lost):
            response = self._viewer.post(body, path, content_encoding=headers.get("content-encoding", "identity"))
            assert (response.status_code, response.content) == (200, b""), "all of it is taken"
        return (503 if lost else 200), b""


@pytest.mark.parametrize("aggregation", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
@pytest.mark.parametrize("temporality", ["cumulative", "delta", "lowmemory"])
def test_what_an_agent_may_be_told_to_send_a_viewer_takes(viewer: Viewer, temporality: str, aggregation: str) -> None:
    """Kind: what our exporter offers, our receiver refuses. Delta: $0.75 missing; exponential: 3 calls of 6."""
    model = f"{temporality}-{aggregation}"
    with http_server(Hazard(viewer), lambda: "application/x-protobuf") as port:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": aggregation,
        }
        with pipeline(environ) as pipe:
            for number in range(CALLS):
                put(pipe, *call(origin("c-" + model, model=model), cost=0.125))
                if number % 3:
                    pipe.flush(5)
    share = by_model(viewer)[model]
    assert (share.accumulated_cost, share.llm_calls) == (0.125 * CALLS, CALLS)
    assert share.accumulated_token_usage.prompt_tokens == 100 * CALLS
    stats = next(one for one in viewer.state().conversations if one.conversation_id == "c-" + model)
    assert (stats.accumulated_cost, stats.llm_calls) == (0.125 * CALLS, CALLS)
    shown = viewer.http.get("/metrics").text
    [latencies] = [
        line
        for line in shown.splitlines()
        if line.startswith("openhands_llm_response_latency_seconds_count") and model in line
    ]
    assert float(latencies.rsplit(" ", 1)[1]) == CALLS


def by_model(viewer: Viewer) -> dict[str, Share]:
    parts = Breakdown.model_validate_json(viewer.http.get("/api/v1/totals").raise_for_status().content)
    return {share.name: share for share in parts.by_model}


def test_calls_say_whose_they_are(viewer: Viewer) -> None:
    """A model without a price has no row of cost: its name, provider and calls are in the calls' own."""
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}) as pipe:
        put(pipe, *call(origin(model="unpriced", provider="openrouter"), cost=0.0))
        assert pipe.flush(50)
    assert by_model(viewer)["unpriced"].llm_calls == 1
    [line] = [
        line
        for line in viewer.http.get("/metrics").text.splitlines()
        if "llm_calls_total" in line and '"unpriced"' in line
    ]
    assert 'gen_ai_provider_name="openrouter"' in line
    assert semconv.CALLS.unit == "{call}"
