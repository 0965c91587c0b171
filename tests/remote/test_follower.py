"""What the client's process knows of a viewer: what was said last, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from viewer_process import running_viewer, start_viewer, wait_for

from openhands_otel._internal.remote.follower import Follower
from otlp_sender import Sender

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
