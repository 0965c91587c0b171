"""``StatsClient`` against a real viewer."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest
from span_sender import SpanSender
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.asking.changes import Changes
from openhands_otel._internal.asking.promql import spent
from openhands_otel.client import PROMETHEUS, AsyncStatsClient, StatsClient, StatsError, Unreachable
from openhands_otel.semconv import RunOutcome, Status
from openhands_otel.stats import ConversationUpdate, RemovedUpdate, SnapshotUpdate, TotalsUpdate, Update
from otlp_sender import Sender
from otlp_server import answering


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
    with answering(b"<html>hello</html>") as url, StatsClient(url) as client:
        for ask in (client.state, client.conversations, lambda: next(client.stream(reconnect=False))):
            with pytest.raises(StatsError):
                ask()


def test_the_stream_of_a_newer_viewer_is_read_as_far_as_it_is_known(viewer: Viewer) -> None:
    """Kinds of updates, fields, words for states and lines of the stream that this release has never heard of."""
    state = viewer.state()
    told = {"status": "meditating", "outcome": "enlightened", "mood": {"deep": [None]}, "accumulated_cost": 7.5}
    told |= {"conversation_id": "c"}
    updates = (
        {"type": "snapshot", "state": state.model_dump(mode="json") | {"weather": "fine"}},
        {"type": "forecast", "clouds": 3},
        {"type": "conversation", "received_unix_nano": 1, "conversation": told, "by": "whom"},
        {"type": ""},
        {"type": "removed", "conversation_id": "c"},
    )
    lines = (f": said\nevent: x\nretry: 10\nfoo: bar\ndata: {json.dumps(update)}\n\n" for update in updates)
    with answering("".join(lines).encode()) as url, StatsClient(url) as client:
        stream = client.stream(reconnect=False)
        assert next(stream) == SnapshotUpdate(state=state)
        conversation = _next(stream, ConversationUpdate).conversation
        assert (conversation.accumulated_cost, conversation.status) == (7.5, "meditating")
        assert next(stream) == RemovedUpdate(conversation_id="c")
        with pytest.raises(StatsError, match="ended the stream"):
            next(stream)


def _next[T](stream: Iterator[Update], kind: type[T]) -> T:
    return next(update for update in stream if isinstance(update, kind))


def test_without_its_extra_it_says_in_one_line_what_to_install() -> None:
    program = "import sys; sys.modules['httpx'] = None; from openhands_otel import StatsClient"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert child.returncode == 1
    assert child.stderr.endswith("StatsClient needs the package 'httpx': pip install 'openhands-otel[viewer]'\n")


# ---------------------------------------------------------------- spend, and the same on an event loop


def test_it_asks_for_spend_by_anything(fresh_viewer: Viewer) -> None:
    fresh_viewer.send(Sender("p").spend(0.5, model="gpt-5").spend(0.25, model="claude").converse("c/1", 0.5))
    with StatsClient(fresh_viewer.url) as client:
        found = client.spend(["month", "model"], timezone="Asia/Kathmandu", where=["model=gpt*", "model=claude"], top=1)
        assert [(group.keys.get("model"), group.accumulated_cost) for group in found.groups] == [
            ("gpt-5", 0.5),
            (None, 0.25),
        ]
        assert (found.timezone, found.by, found.total.accumulated_cost) == ("Asia/Kathmandu", ("month", "model"), 0.75)
        assert client.spend(until=0.0 + 900).total.accumulated_cost == 0
        assert client.spend().total.accumulated_cost == 0.75
        assert [each.conversation_id for each in client.presence()] == ["c/1"]
        with pytest.raises(StatsError, match="no condition"):
            client.spend(where=["model"])


def send_two_runs(viewer: Viewer) -> None:
    """Two conversations with a run each; of the first's calls there are spans."""
    sender = Sender("p")
    for name, cost in (("c/1", 0.5), ("c/2", 0.25)):
        viewer.send(sender.introduce(name).state(name, Status.RUNNING).converse(name, cost))
    outcome = {semconv.CONVERSATION_ID: "c/1", semconv.RUN_OUTCOME: RunOutcome.FINISHED}
    viewer.send(sender.state("c/1", Status.FINISHED).add(semconv.CONVERSATION_OUTCOME, 1, outcome))
    spans = SpanSender()
    spans.call(1, "c/1", end=2.0)
    spans.call(2, "c/1", start=2.0, end=6.0)
    told = {"content-type": "application/x-protobuf"}
    viewer.http.post("/v1/traces", content=spans.request().SerializeToString(), headers=told).raise_for_status()


def test_it_lists_runs_and_says_how_long_calls_took(fresh_viewer: Viewer) -> None:
    send_two_runs(fresh_viewer)
    with StatsClient(fresh_viewer.url) as client:
        told = {run.conversation_id: (run.number, run.outcome, run.accumulated_cost) for run in client.runs()}
        assert told == {"c/1": (1, RunOutcome.FINISHED, 0.5), "c/2": (1, None, 0.25)}
        assert [run.conversation_id for run in client.runs("c/2")] == ["c/2"]
        assert [run.conversation_id for run in client.runs(outcome=RunOutcome.FINISHED)] == ["c/1"]
        pages = [client.runs(limit=1), client.runs(limit=1, offset=1), client.runs(offset=2)]
        assert sum(pages, ()) == client.runs()
        took = client.latency()
        assert (took.calls, took.p50, took.longest) == (2, 2.0, 4.0)
        assert client.latency(since="today", timezone="UTC", where=["model!=gpt"]).calls == 0
        with pytest.raises(StatsError, match="no condition"):
            client.latency(where=["model"])


def test_a_prometheus_says_that_a_viewer_is_to_be_asked(viewer: Viewer) -> None:
    with StatsClient(f"{PROMETHEUS}{viewer.url}") as client:
        for ask in (client.runs, client.latency, client.budgets):
            with pytest.raises(StatsError, match="ask a viewer"):
                ask()


def test_it_lists_those_that_left_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_CONVERSATION_LIMIT", "10")
    with running_viewer() as viewer, StatsClient(viewer.url) as client:
        for number in range(14):
            name = f"c{number:02}"
            sender = Sender(f"p{number}", f"service-{number % 2}").introduce(name).converse(name, 1.0 + number)
            closed = {semconv.CONVERSATION_ID: name, semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
            viewer.send(sender.add(semconv.CONVERSATION_INFO, None, closed))
        wait_for(lambda: len(client.conversations()) == 10, "that some leave memory")
        held = {stats.conversation_id for stats in client.conversations()}
        past = [f"c{number:02}" for number in range(14) if f"c{number:02}" not in held]

        def found(**asked: Any) -> list[str]:
            return [stats.conversation_id for stats in client.past_conversations(**asked)]

        assert found(sort="conversation_id") == past
        assert found(sort="-accumulated_cost", limit=2, offset=1) == past[-2:-4:-1]
        assert found(search=past[2]) == past[2:3]
        odd = [name for name in past if int(name[1:]) % 2]
        assert found(where=["service=service-1"], sort="conversation_id") == odd
        with pytest.raises(StatsError, match="sort takes no"):
            client.past_conversations(sort="nothing")


def test_an_event_loop_is_told_the_same(fresh_viewer: Viewer) -> None:
    fresh_viewer.send(Sender("p").spend(0.5).introduce("c/1").converse("c/1", 0.5))
    send_two_runs(fresh_viewer)

    async def ask() -> list[object]:
        async with AsyncStatsClient(fresh_viewer.url) as client:
            return [
                (await client.state()).conversations,
                await client.totals(),
                await client.conversations(),
                await client.conversation("c/1"),
                (await client.history("c/1", bucket_s=60)).conversation_id,
                await client.spend(["conversation"], timezone="UTC"),
                await client.presence(),
                await client.runs("c/2", limit=5),
                await client.latency(where=["model=gpt"]),
                await client.past_conversations(where=["agent=A*"], sort="-accumulated_cost", limit=5),
            ]

    with StatsClient(fresh_viewer.url) as client:
        expected = [
            client.state().conversations,
            client.totals(),
            client.conversations(),
            client.conversation("c/1"),
            client.history("c/1", bucket_s=60).conversation_id,
            client.spend(["conversation"], timezone="UTC"),
            client.presence(),
            client.runs("c/2", limit=5),
            client.latency(where=["model=gpt"]),
            client.past_conversations(where=["agent=A*"], sort="-accumulated_cost", limit=5),
        ]
    assert asyncio.run(ask()) == expected


def test_a_stream_on_an_event_loop_outlives_a_restart_of_the_viewer() -> None:
    viewer = start_viewer()
    port = int(viewer.url.rpartition(":")[2])
    told: list[StatsError | None] = []

    async def follow() -> None:
        nonlocal viewer
        async with AsyncStatsClient(viewer.url) as client:
            stream = client.stream(on_connection=told.append)
            assert isinstance(await anext(stream), SnapshotUpdate)
            viewer.send(Sender("p").spend(0.5))
            while not isinstance(update := await anext(stream), TotalsUpdate):
                pass
            assert update.totals.accumulated_cost == 0.5

            async def greeted() -> None:
                while not isinstance(await anext(stream), SnapshotUpdate):
                    pass

            waiting = asyncio.create_task(greeted())
            await asyncio.to_thread(viewer.stop)
            viewer = await asyncio.to_thread(start_viewer, port=port)
            await waiting

    try:
        asyncio.run(follow())
    finally:
        viewer.stop()
    assert told[-1] is None
    assert isinstance(told[0], StatsError)


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:9", "http://[::1"])
def test_an_event_loop_is_told_what_is_wrong_in_the_same_words(url: str) -> None:
    async def ask() -> None:
        async with AsyncStatsClient(url) as client:
            await client.state()

    with pytest.raises(StatsError) as awaited:
        asyncio.run(ask())
    with pytest.raises(StatsError) as waited, StatsClient(url) as client:
        client.state()
    assert (type(awaited.value), str(awaited.value)) == (type(waited.value), str(waited.value))
    assert "\n" not in str(awaited.value)


# ---------------------------------------------------------------- a Prometheus (more of it: tests/stack/test_client.py)


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://[bad"])
def test_an_address_of_no_prometheus_says_how_one_looks(url: str) -> None:
    with pytest.raises(StatsError, match=r"no address of a Prometheus: it should look like http://127\.0\.0\.1:9090"):
        StatsClient(f"{PROMETHEUS}{url}")


def test_each_question_has_an_answer_there_or_a_reason_why_not() -> None:
    """Where nobody listens what has an answer is unreachable, and what has none is refused without a request."""
    names = [name for name in dir(StatsClient) if name[0] != "_" and name not in ("close", "stream")]
    refused: dict[str, str] = {}
    with StatsClient(f"{PROMETHEUS}http://127.0.0.1:9") as client:
        for name in names:
            ask = getattr(client, name)
            needed = [each for each in inspect.signature(ask).parameters.values() if each.default is each.empty]
            with pytest.raises(StatsError) as raised:
                ask(*("id" for _ in needed))
            if not isinstance(raised.value, Unreachable):
                refused[name] = str(raised.value)
    assert refused.keys() == {"budgets", "calls", "latency", "past_conversations", "runs", "timeline"}
    assert all(": ask a viewer" in why for why in refused.values())


def test_where_no_prometheus_is_the_error_says_so(viewer: Viewer) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{holder.getsockname()[1]}"
        for url, word in ((nobody, "name another URL"), (viewer.url, "40[45]")):
            with StatsClient(f"{PROMETHEUS}{url}") as client:
                for ask in (client.state, client.totals, client.spend, client.history, lambda: next(client.stream())):
                    with pytest.raises(StatsError, match=word) as error:
                        ask()
                    assert "\n" not in str(error.value)
                    assert url in str(error.value)


def test_what_has_changed_leads_from_one_state_to_the_next(fresh_viewer: Viewer) -> None:
    """What a source that has to be asked is followed by, whatever came, changed and went."""
    sender = Sender("p").converse("a", 0.1).converse("b", 0.1)
    fresh_viewer.send(sender)
    before = fresh_viewer.state()
    fresh_viewer.send(sender.converse("b", 0.3).converse("c", 0.2).spend(0.5))
    after = fresh_viewer.state()
    kept = after.model_copy(
        update={"conversations": [each for each in after.conversations if each.conversation_id != "a"]}
    )
    changes = Changes()
    assert list(changes.since(before)) == [SnapshotUpdate(state=before)]
    assert list(changes.since(before)) == []
    *told, last = changes.since(kept)
    assert isinstance(last, TotalsUpdate)
    assert last.totals == after.totals
    assert {update.conversation_id for update in told if isinstance(update, RemovedUpdate)} == {"a"}
    changed = [update.conversation for update in told if isinstance(update, ConversationUpdate)]
    assert {each.conversation_id: each for each in changed} == {
        each.conversation_id: each for each in kept.conversations
    }


def test_neighbouring_periods_meet_to_the_millisecond() -> None:
    """With whole seconds what was spent in the half second around midnight counted on both days, or on none."""
    end = 1_795_000_000.0
    for length_s, text in ((86_399.5, "86399500ms"), (0.0004, "1ms"), (900.0, "900000ms")):
        formula = spent("cost", end - length_s, end, ["job"])
        assert formula.count(f"[{text}]") == 3
        assert formula.count(f"offset {text}") == 1


def test_doubles_of_both_clients_are_made_as_of_any_class() -> None:
    """People's own tests put ``create_autospec`` in a client's place; ``help`` says what a method returns."""
    create_autospec(StatsClient, instance=True).spend(["model"], since="7d")
    double = create_autospec(AsyncStatsClient, instance=True)
    asyncio.run(double.spend(["model"], since="7d"))
    with pytest.raises(TypeError):
        double.spend(nobody="knows this")
    assert inspect.iscoroutinefunction(AsyncStatsClient.spend)
    assert inspect.signature(StatsClient.state).return_annotation == "State"
