"""The JSON API of a real viewer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel.stats import Breakdown, ConversationStats, History
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        sender = Sender("p").spend(0.5, model="a").spend(0.25, model="b")
        viewer.send(sender.introduce("c/with slash").converse("c/with slash", 0.5))
        yield viewer


def test_state_holds_totals_conversations_and_what_the_receiver_did(viewer: Viewer) -> None:
    state = viewer.state()
    assert state.totals.accumulated_cost == 0.75
    assert [stats.conversation_id for stats in state.conversations] == ["c/with slash"]
    assert state.receiver.points >= 4
    assert state.version


def test_one_conversation_can_be_asked_for_by_any_id(viewer: Viewer) -> None:
    response = viewer.http.get("/api/v1/conversations/c%2Fwith%20slash")
    assert ConversationStats.model_validate_json(response.content).accumulated_cost == 0.5
    assert viewer.http.get("/api/v1/conversations").json() == [response.json()]


def test_an_unknown_conversation_is_not_found_in_one_line(viewer: Viewer) -> None:
    response = viewer.http.get("/api/v1/conversations/nobody")
    assert response.status_code == 404
    assert "nobody" in response.json()["message"]


def test_totals_are_split_by_model(viewer: Viewer) -> None:
    parts = Breakdown.model_validate_json(viewer.http.get("/api/v1/totals").content)
    assert [(share.name, share.accumulated_cost) for share in parts.by_model] == [("a", 0.5), ("b", 0.25)]


def test_history_tells_of_everything_and_of_one_conversation(viewer: Viewer) -> None:
    def history(**query: str) -> History | None:
        response = viewer.http.get("/api/v1/history", params=query)
        found = History.model_validate_json(response.raise_for_status().content)
        return found if found.points else None

    assert wait_for(history, "a sample").points[-1].accumulated_cost == 0.75
    of_one = wait_for(lambda: history(conversation="c/with slash"), "a sample")
    assert of_one.points[-1].accumulated_cost == 0.5
    assert history(since=str(time.time() + 100), until=str(time.time() + 200)) is None


@pytest.mark.parametrize(
    "query", ["since=x", "bucket_s=0", "bucket_s=nan", "since=9&until=3", "since=nan", "until=inf", "bucket_s=-1"]
)
def test_a_history_that_cannot_be_is_refused(viewer: Viewer, query: str) -> None:
    response = viewer.http.get(f"/api/v1/history?{query}")
    assert response.status_code == 400
    assert response.json()["message"]


def test_health_is_told(viewer: Viewer) -> None:
    assert viewer.http.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v2/state", "/assets/../settings.py", "/assets/%2e%2e/x"])
def test_other_paths_are_not_found(viewer: Viewer, path: str) -> None:
    assert viewer.http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("/api/v1/history?conversation_id=c", "conversation_id"),
        ("/api/v1/history?Conversation=c", "Conversation"),
        ("/api/v1/history?conversation=c&bucket=5", "bucket"),
        ("/api/v1/history?conversation=c&conversation=d", "conversation is given 2 times"),
        ("/api/v1/history?conversation=", "conversation must name one"),
        ("/api/v1/history?conversation=c&since=1&since=2", "since is given 2 times"),
        ("/api/v1/totals?since=5", "since"),
        ("/api/v1/state?service=agent", "service"),
        ("/api/v1/conversations?status=running", "status"),
        ("/api/v1/conversations/c?x=%1b]0;", "x"),
        ("/api/v1/events?last-event-id=5", "last-event-id"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(viewer: Viewer, address: str, named: str) -> None:
    """The kind of fault: a question of one's own, answered with everybody's numbers."""
    response = viewer.http.get(address)
    assert response.status_code == 400
    assert named in response.json()["message"]
