"""``StatsClient`` against a real viewer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import ConversationUpdate, SnapshotUpdate, TotalsUpdate, Update
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def fresh_viewer() -> Iterator[Viewer]:
    """A viewer that has seen nothing yet."""
    with running_viewer() as viewer:
        yield viewer


def test_it_reads_all_that_a_viewer_tells(fresh_viewer: Viewer) -> None:
    fresh_viewer.send(Sender("p").spend(0.5).introduce("c/1").converse("c/1", 0.5))
    with StatsClient(fresh_viewer.url) as client:
        assert client.state().totals.accumulated_cost == 0.5
        assert client.totals().by_model[0].accumulated_cost == 0.5
        [conversation] = client.conversations()
        assert client.conversation("c/1") == conversation
        assert conversation.accumulated_cost == 0.5
        assert wait_for(lambda: client.history().points, "a sample")[-1].accumulated_cost == 0.5
        assert wait_for(lambda: client.history("c/1").points, "a sample")[-1].accumulated_cost == 0.5


def test_the_stream_begins_with_everything_and_goes_on_with_changes(viewer: Viewer) -> None:
    sender = Sender("p").converse("c", 0.1)
    viewer.send(sender)
    with StatsClient(viewer.url) as client:
        stream = client.stream()
        first = next(stream)
        assert isinstance(first, SnapshotUpdate)
        assert first.state.conversations[0].accumulated_cost == 0.1
        viewer.send(sender.converse("c", 0.2).spend(0.2))
        assert _next(stream, ConversationUpdate).conversation.accumulated_cost == 0.2
        assert _next(stream, TotalsUpdate).totals.accumulated_cost == 0.2


def test_the_stream_outlives_a_restart_of_the_viewer() -> None:
    viewer = start_viewer()
    port = int(viewer.url.rpartition(":")[2])
    with StatsClient(viewer.url) as client:
        stream = client.stream()
        next(stream)
        viewer.stop()
        with running_viewer(port=port) as viewer:
            viewer.send(Sender("p").converse("c", 0.4))
            costs: list[float] = []
            for update in stream:
                if isinstance(update, SnapshotUpdate):
                    costs = [stats.accumulated_cost for stats in update.state.conversations]
                elif isinstance(update, ConversationUpdate):
                    costs = [update.conversation.accumulated_cost]
                if costs:
                    break
            assert costs == [0.4]


def test_without_reconnecting_the_end_of_the_viewer_is_an_error() -> None:
    viewer = start_viewer()
    with StatsClient(viewer.url) as client:
        stream = client.stream(reconnect=False)
        next(stream)
        viewer.stop()
        with pytest.raises(StatsError, match=r"127\.0\.0\.1"):
            list(stream)


def test_the_token_is_shown_and_its_lack_is_told() -> None:
    with running_viewer(token="s3cret") as viewer:
        with StatsClient(viewer.url, token="s3cret") as client:
            assert client.state().totals.accumulated_cost == 0
            assert isinstance(next(client.stream()), SnapshotUpdate)
        for token in (None, "wrong"):
            with StatsClient(viewer.url, token=token) as client:
                with pytest.raises(StatsError, match="token"):
                    client.state()
                with pytest.raises(StatsError, match="token"):
                    next(client.stream())


def test_an_unknown_conversation_is_an_error_that_names_it(viewer: Viewer) -> None:
    with StatsClient(viewer.url) as client, pytest.raises(StatsError, match="nobody"):
        client.conversation("nobody")


def test_a_viewer_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        with StatsClient(f"http://127.0.0.1:{holder.getsockname()[1]}") as client:
            for ask in (client.state, lambda: next(client.stream())):
                with pytest.raises(StatsError, match="openhands-otel view") as error:
                    ask()
                assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://[bad", "http://host:99999999"])
def test_an_address_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(StatsError), StatsClient(url, timeout_s=1) as client:
        client.state()


def test_a_server_of_another_kind_is_an_error() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with StatsClient(f"http://127.0.0.1:{server.server_port}") as client:
            for ask in (client.state, client.conversations, lambda: next(client.stream(reconnect=False))):
                with pytest.raises(StatsError):
                    ask()
    finally:
        server.shutdown()
        server.server_close()


def _next[T](stream: Iterator[Update], kind: type[T]) -> T:
    return next(update for update in stream if isinstance(update, kind))


def test_without_its_extra_it_says_in_one_line_what_to_install() -> None:
    program = "import sys; sys.modules['httpx'] = None; from openhands_otel import StatsClient"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert child.returncode == 1
    assert child.stderr.endswith("StatsClient needs the package 'httpx': pip install 'openhands-otel[viewer]'\n")
