"""What the workspaces of openhands-workspace hand on to the servers that they start: docs/containers.md says it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

workspaces = pytest.importorskip("openhands.workspace")

OURS = {"PYTHONPATH": "/opt/bundle/site", "OPENHANDS_OTEL_TOKEN_FILE": "/run/token", "OTEL_SERVICE_NAME": "agents"}


@contextmanager
def runtime_api() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and what it is asked to start, which it refuses."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path == "/start":
                asked.append(json.loads(body))
            self.send_error(400)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def started(**options: Any) -> dict[str, Any]:
    with runtime_api() as (url, asked):
        with pytest.raises(Exception, match="400"):
            workspaces.APIRemoteWorkspace(
                runtime_api_url=url, runtime_api_key="x", server_image="an-image", target_type="source", **options
            )
        (request,) = asked
    return request


def test_the_runtime_api_is_given_what_is_named_and_starts_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    assert started()["environment"] == {}
    named = started(forward_env=list(OURS))
    assert named["environment"] == OURS
    assert named["command"].startswith("/agent-server/.venv/bin/python -m openhands.agent_server")


def test_by_default_a_container_is_given_nothing_of_ours() -> None:
    for kind in (workspaces.DockerWorkspace, workspaces.ApptainerWorkspace):
        default = set(kind.model_fields["forward_env"].get_default(call_default_factory=True))
        assert default <= {"DEBUG", "SESSION_API_KEY", "OH_SESSION_API_KEYS_0"}


def test_a_server_that_starts_containers_hands_on_the_destination_alone() -> None:
    registry = pytest.importorskip("openhands.agent_server.docker_runtime.registry")
    handed_on = set(registry._OBSERVABILITY_ENV_VARS)
    common = {f"OTEL_EXPORTER_OTLP_{what}" for what in ("ENDPOINT", "HEADERS", "PROTOCOL")}
    traces = {name.replace("OTLP_", "OTLP_TRACES_") for name in common}
    assert common | traces <= handed_on
    assert not {name for name in handed_on if "METRICS" in name or name.startswith("OPENHANDS_OTEL")}
    assert not {"PYTHONPATH", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"} & handed_on
