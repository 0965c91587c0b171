"""What the client's process knows of a viewer: what was said last, and nothing where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from viewer_process import running_viewer, start_viewer, wait_for

from openhands_otel._internal.remote import follower as following
from openhands_otel._internal.remote.follower import Follower
from otlp_sender import Sender
from otlp_server import answering

WAIT_S = 60


def cost(follower: Follower, conversation: str = "c") -> float | None:
    stats = follower.newest(conversation)
    return None if stats is None else stats.accumulated_cost


def test_it_knows_what_the_viewer_said_last(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("word")
    with running_viewer(token="word") as viewer:
        sender = Sender("p").introduce("c")
        viewer.send(sender.converse("c", 0.5))
        follower = Follower(viewer.url, token)
        try:
            wait_for(lambda: cost(follower) == 0.5, "the first cost", WAIT_S)
            viewer.send(sender.converse("c", 0.75))
            wait_for(lambda: cost(follower) == 0.75, "the second cost", WAIT_S)
            assert cost(follower, "another") is None
        finally:
            follower.stop()


def test_a_viewer_that_comes_later_is_found_and_its_absence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    gone = start_viewer()
    gone.stop()
    port = int(gone.url.rpartition(":")[2])
    follower = Follower(gone.url, None)

    def warnings() -> list[str]:
        return [record.message for record in caplog.records if record.name == "openhands_otel"]

    try:
        assert cost(follower) is None
        wait_for(warnings, "a warning", WAIT_S)
        with running_viewer(port=port) as viewer:
            viewer.send(Sender("p").introduce("c").converse("c", 0.5))
            wait_for(lambda: cost(follower) == 0.5, "the cost", WAIT_S)
            (warning,) = warnings()
            assert warning.startswith("the stats of remote conversations are the agent server's own for now: ")
        assert cost(follower) == 0.5, "what was known stays known"
    finally:
        follower.stop()


NONSENSE = {
    "another kind of answer": b"HTTP/1.0 200 OK\r\n\r\n<html>",
    "no HTTP": b"220 mail.example.com ESMTP\r\n",
    "nothing": b"",
    "not found": b"HTTP/1.0 404 Not Found\r\n\r\n",
    "an error": b'HTTP/1.0 500 Oh\r\ncontent-type: application/json\r\n\r\n{"message": [',
    "another place": b"HTTP/1.0 302 Found\r\nlocation: http://[::1\r\n\r\n",
    "no gzip": b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\ndata: {}\n\n",
    "no UTF-8": b"HTTP/1.0 200 OK\r\n\r\ndata: \xff\xfe\n\n",
    "too deep": b"HTTP/1.0 200 OK\r\n\r\ndata: " + 100_000 * b"[" + b"\n\n",
    "a number that is none": b"HTTP/1.0 200 OK\r\nopenhands-otel-keep-alive: NaN\r\n\r\ndata: NaN\n\n",
    "half an update": b'HTTP/1.0 200 OK\r\n\r\nid: \xc3\xa9\ndata: {"type": "removed", "conversation_id": "c"}\n\nda',
    "shorter than it says": b"HTTP/1.0 200 OK\r\ncontent-length: 99\r\n\r\ndata:",
}


def test_no_answer_ends_it_whatever_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind: a task that lives long dies unseen (issue 10, row 9)."""
    monkeypatch.setattr(following, "_PAUSE_S", 0.01)
    with running_viewer() as viewer:
        viewer.send(Sender("p").introduce("c").converse("c", 0.5))
        snapshot = {"type": "snapshot", "state": viewer.state().model_dump(mode="json")}
    good = b"HTTP/1.0 200 OK\r\n\r\ndata: " + json.dumps(snapshot).encode() + b"\n\n"
    with answering(*NONSENSE.values(), good, head=b"") as url:
        follower = Follower(url, None)
        try:
            wait_for(lambda: cost(follower) == 0.5, "the cost", WAIT_S)
        finally:
            follower.stop()
