"""However a server is started under us, and by whatever signal it ends: what it spent arrives, and its end is its own.

The viewer comes up only when the run is over, so what arrives is what the server still had to say.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from viewer_process import running_viewer

from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import State

from .agent_server import (
    Launch,
    RemoteClient,
    agent_server,
    by_import,
    by_opentelemetry_instrument,
    free_port,
)
from .scripts import playing, running

EXACT = 1e-9
WAYS = {
    "opentelemetry-instrument": (by_opentelemetry_instrument, signal.SIGTERM),
    "--import-modules openhands_otel.auto": (by_import, signal.SIGINT),
}


@dataclass(frozen=True)
class Outcome:
    code: int
    conversation: str
    billed: float
    state: State
    """What a viewer knows that was not there before the end."""


@pytest.fixture(scope="module")
def outcomes(client: RemoteClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """All ways at the same time: a server takes seconds to start."""
    with ThreadPoolExecutor() as pool:
        known = [way for way in WAYS if way.startswith("opentelemetry") or client.has_option(option="--import-modules")]
        yield {way: pool.submit(play, *WAYS[way], client, tmp_path_factory.mktemp("server")) for way in known}


def play(launch: Launch, number: signal.Signals, client: RemoteClient, directory: Path) -> Outcome:
    port = free_port()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    with LLMServer() as provider, agent_server(launch, directory, **variables) as server:
        provider.script("main", playing(running("echo one")))
        conversation = client.open(host=server.url, provider=provider.base_url("main"), tools=("terminal",))
        client.run(conversation=conversation, text="hello")
        with running_viewer(port=port) as viewer:
            code = server.end(number)
            return Outcome(code, conversation, provider.bill.total, viewer.state())


@pytest.mark.parametrize("way", WAYS)
def test_what_a_server_has_spent_arrives_at_its_end(way: str, outcomes: dict[str, Future[Outcome]]) -> None:
    if way not in outcomes:
        pytest.skip("the agent server of this release has no --import-modules")
    outcome = outcomes[way].result()

    assert outcome.code == -WAYS[way][1]
    assert outcome.billed > 0
    assert outcome.state.totals.accumulated_cost == pytest.approx(outcome.billed, abs=EXACT)
    found = {stats.conversation_id: stats for stats in outcome.state.conversations}
    assert found[outcome.conversation].accumulated_cost == pytest.approx(outcome.billed, abs=EXACT)
