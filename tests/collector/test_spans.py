"""Spans at the viewer's doors and in its file: taken or refused, kept by age and size, never in the way of money."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from span_sender import SECOND, SpanSender
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from openhands_otel._internal.cli import main
from openhands_otel._internal.collector.receive.span_intake import REQUESTS
from openhands_otel._internal.collector.spans.span import Span, SpanKind
from otlp_sender import Sender

from .held import HeldStore, as_layout


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


@pytest.fixture
def viewer(database: Path) -> Iterator[Viewer]:
    with running_viewer(database=database) as running:
        yield running


def rows(database: Path, query: str = "SELECT trace, span FROM spans") -> list[tuple[object, ...]]:
    """As a reader finds them that knows nothing of the viewer, while that has the file."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def post(viewer: Viewer, sender: SpanSender) -> None:
    response = viewer.post(sender.body(), "/v1/traces")
    assert response.status_code == 200, response.text
    assert response.content == b"", "spans were refused"


def test_what_is_acknowledged_is_in_the_file_over_either_door(viewer: Viewer, database: Path) -> None:
    def over_grpc(sender: SpanSender) -> None:
        with grpc.insecure_channel(viewer.grpc) as channel:
            TraceServiceStub(channel).Export(sender.request(), timeout=100)

    def as_json(sender: SpanSender) -> None:
        body = sender.request()
        document = json_format.MessageToDict(body)
        for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            span |= {
                "traceId": body.resource_spans[0].scope_spans[0].spans[0].trace_id.hex(),
                "spanId": "00" * 7 + "03",
            }
        headers = {"content-type": "application/json"}
        assert viewer.http.post("/v1/traces", json=document, headers=headers).content == b"{}"

    doors: list[Callable[[SpanSender], None]] = [lambda sender: post(viewer, sender), over_grpc, as_json]
    for number, door in enumerate(doors, 1):
        sender = SpanSender()
        sender.call(number, "c")
        door(sender)
        assert [span for _, span in rows(database)] == [f"{each:016x}" for each in range(1, number + 1)]
    # A sender whose answer was lost says it again.
    again = SpanSender()
    again.call(1, "c")
    post(viewer, again)
    assert len(rows(database)) == 3


def test_what_was_acknowledged_is_there_after_kill_9(database: Path) -> None:
    """Killed in the middle of a load from several senders: whatever was answered 200."""
    viewer = start_viewer(database=database)
    answered: set[str] = set()

    def send(first: int) -> None:
        number = first
        while True:
            sender = SpanSender()
            for each in range(20):
                sender.call(number + each, "c", trace=first)
            try:
                if viewer.post(sender.body(), "/v1/traces").status_code == 200:
                    answered.update(f"{number + each:016x}" for each in range(20))
            except Exception:
                return
            number += 20

    senders = [threading.Thread(target=send, args=(first * 1_000_000,)) for first in (1, 2, 3)]
    for thread in senders:
        thread.start()
    wait_for(lambda: len(answered) > 500, "a load")
    viewer.process.kill()
    viewer.process.wait()
    for thread in senders:
        thread.join(60)
    viewer.http.close()
    with running_viewer(database=database):
        assert answered <= {span for _, span in rows(database)}


def test_a_flood_of_spans_takes_nothing_from_metrics(viewer: Viewer) -> None:
    """More senders than spans may wait for: they are told to come again, and each metrics request is taken at once."""
    flood = SpanSender()
    for number in range(2_000):
        flood.call(number + 1, "flood")
    body, statuses, done = flood.body(), list[int](), threading.Event()

    def send() -> None:
        while not done.is_set():
            statuses.append(viewer.post(body, "/v1/traces").status_code)

    senders = [threading.Thread(target=send) for _ in range(REQUESTS + 16)]
    for thread in senders:
        thread.start()
    try:
        wait_for(lambda: 503 in statuses, "a refusal")
        begun = time.time_ns()
        for number in range(1, 40):
            viewer.send(Sender("money", start=begun).spend(number * 0.25).converse("money", number * 0.25))
        assert viewer.state().totals.accumulated_cost == 39 * 0.25
    finally:
        done.set()
        for thread in senders:
            thread.join(100)
    assert set(statuses) <= {200, 503}


def test_spans_that_are_none_are_refused_and_the_others_taken(viewer: Viewer, database: Path) -> None:
    sender = SpanSender()
    sender.call(1, "c")
    sender.call(2, "c", end=400 * 86_400.0)
    sender.call(3, "c").start_time_unix_nano = 5
    sender.call(4, "c").trace_id = bytes(16)
    sender.call(5, "c").span_id = b"short"
    sender.call(6, "c").start_time_unix_nano = 2**64 - 1
    sender.call(7, "c", start=5.0, end=2.0)
    response = viewer.post(sender.body(), "/v1/traces")
    answer = ExportTraceServiceResponse.FromString(response.content)
    assert (response.status_code, answer.partial_success.rejected_spans) == (200, 5)
    assert "span" in answer.partial_success.error_message
    assert len(rows(database)) == 2
    assert rows(database, "SELECT ended - started FROM spans WHERE span LIKE '%7'") == [(0,)]
    assert viewer.http.get("/healthz").status_code == 200


def test_the_oldest_give_way_to_size_and_to_age(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_SPAN_MB", "1")
    with running_viewer(database=database) as viewer:
        for number in range(1, 9):
            sender = SpanSender()
            sender.call(number, "c", attributes={"gen_ai.input.messages": "x" * 300_000})
            post(viewer, sender)
        held = rows(database, "SELECT span, size FROM spans ORDER BY id")
        assert sum(int(str(size)) for _, size in held) <= 1_000_000
        assert [span for span, _ in held] == [f"{number:016x}" for number in range(9 - len(held), 9)]
        assert len(held) >= 2
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_SPAN_DAYS", "1e-9")
    with running_viewer(database=database):
        wait_for(lambda: rows(database) == [], "the end of what is too old")


def test_what_came_while_the_clock_was_ahead_keeps_no_older_span() -> None:
    """It is as old as what came next; and a clock that was behind makes nothing old that came before it."""
    day, now = 86_400, time.time()
    ahead, behind = now + 365 * day, now - 3_000 * day
    for came, left in (
        ([ahead, now - 30 * day, now - day], [3]),
        ([now - 30 * day, ahead, ahead, now - 9 * day, ahead, now], [5, 6]),
        ([ahead, now, now - 30 * day], [1, 2, 3]),
        ([ahead] * 3, [1, 2, 3]),
        ([now - day, behind, now], [1, 2, 3]),
    ):
        with HeldStore() as held:
            archive = held.store.archive
            for number, received in enumerate(came, 1):
                ids = f"{number:032x}", f"{number:016x}"
                held.run(
                    archive.add_spans([Span(*ids, "", "c", "s", SpanKind.CALL, "x", 1, 2, "{}", "{}", "{}")], received)
                )
            while held.run(archive.trim_spans(now - 7 * day, 0)):
                pass
            assert held.run(archive.read(lambda database: database.execute("SELECT id FROM spans").fetchall())) == [
                (number,) for number in left
            ]


def test_a_file_that_is_ruined_costs_what_was_in_it_and_no_span_that_comes_later(database: Path) -> None:
    with running_viewer(database=database) as viewer:
        sender = SpanSender()
        sender.call(1, "c")
        post(viewer, sender)
        database.write_bytes(b"no database" * 1_000)
        again = SpanSender()
        again.call(2, "c")
        body = again.body()
        wait_for(lambda: viewer.post(body, "/v1/traces").status_code == 200, "room for a span")
        assert [span for _, span in rows(database)] == [f"{2:016x}"]
        wait_for(lambda: viewer.http.get("/healthz").status_code == 200, "health")


def test_none_are_kept_where_there_is_no_room_for_any(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_SPAN_MB", "0")
    with running_viewer(database=database) as viewer:
        sender = SpanSender()
        sender.call(1, "c")
        post(viewer, sender)
        assert rows(database) == []
        assert viewer.state().receiver.spans == 1


def test_a_file_of_the_layout_before_takes_spans_and_is_still_there_as_it_was(database: Path) -> None:
    with running_viewer(database=database) as viewer:
        viewer.send(Sender("p").spend(0.5).converse("c", 0.5))
    as_layout(database, 2)
    assert main(["report", "--database", str(database)]) == 0
    with running_viewer(database=database) as viewer:
        assert viewer.state().totals.accumulated_cost == 0.5
        sender = SpanSender()
        sender.call(1, "c")
        post(viewer, sender)
        assert len(rows(database)) == 1
    assert rows(database.with_name(f"{database.name}.layout-2"), "PRAGMA user_version") == [(2,)]


def told(service: str, conversation: str, trace: int, first: int, **labels: str) -> SpanSender:
    """A run with a call and a tool, and below that another library's span."""
    sender = SpanSender(service, resource={f"openhands.label.{name}": value for name, value in labels.items()})
    sender.run(first, conversation, trace=trace, end=9.0)
    sender.call(first + 1, conversation, trace=trace, parent=first)
    sender.tool(first + 2, conversation, trace=trace, parent=first)
    return sender


def foreign(trace: int, number: int, parent: int, name: str) -> SpanSender:
    sender = SpanSender("web", scope="opentelemetry.instrumentation.httpx")
    sender.add(number, name, trace=trace, parent=parent)
    return sender


@pytest.mark.parametrize(
    "words",
    [
        ("--service", "secretsvc"),
        ("--conversation", "conv-one"),
        ("--label", "team=secretteam"),
        ("--conversation", "conv-one", "--since", "2d"),
        ("--until", "today", "--service", "secretsvc", "--label", "team=secretteam"),
    ],
)
def test_what_is_forgotten_is_gone_with_what_hangs_on_it_and_does_not_come_back(
    database: Path, words: tuple[str, ...]
) -> None:
    """A retry, whole or in part, brings nothing of it; the others stay, and so does what comes later."""

    def requests(viewer: Viewer) -> None:
        for sender in (
            told("secretsvc", "conv-one", 1, 10, team="secretteam"),
            told("other", "conv-two", 2, 20, team="known"),
            foreign(1, 30, 12, "GET secretsvc.example/conv-one"),
            foreign(2, 40, 22, "GET other.example"),
            foreign(2, 41, 0, "POST other.example"),
        ):
            post(viewer, sender)

    with running_viewer(database=database) as viewer:
        requests(viewer)
        viewer.send(
            Sender("i1", "secretsvc", resource={"openhands.label.team": "secretteam"}).converse("conv-one", 1.0)
        )
    assert main(["forget", *words, "--yes", "--database", str(database)]) == 0
    left = {f"{number:016x}" for number in (20, 21, 22, 40, 41)}
    assert {span for _, span in rows(database)} == left
    content = b"".join(path.read_bytes() for path in database.parent.iterdir())
    assert b"GET secretsvc" not in content
    with running_viewer(database=database) as viewer:
        requests(viewer)
        assert {span for _, span in rows(database)} == left
        if "--until" not in words:
            later = SpanSender("secretsvc", began=SpanSender().began + 120 * SECOND)
            later.call(50, "conv-one", trace=1)
            post(viewer, later)
            assert {span for _, span in rows(database)} == left | {f"{50:016x}"}
