"""Who may look at one service sees what a viewer would show that only ever heard of that service: by every route."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from span_sender import SpanSender
from viewer_process import PROTOBUF, Viewer, running_viewer, wait_for

from collector.held import HeldStore
from openhands_otel import semconv
from openhands_otel._internal import api_paths
from openhands_otel._internal.collector.serve.api import Api
from openhands_otel._internal.host import named_tokens
from openhands_otel._internal.host.named_tokens import Right
from otlp_sender import Sender

ASKED = {
    "/api/v1/state": [""],
    "/api/v1/conversations": ["", "?past=yes", "?search=", "?sort=-tree_cost", "?service=billing", "?outcome=finished"],
    "/api/v1/conversations/{conversation_id:path}": ["mine", "mine-child", "SECRET", "SECRET-child", "nobody"],
    "/api/v1/conversations/{conversation_id:path}/calls": ["mine", "SECRET", "SECRET-child", "nobody"],
    "/api/v1/conversations/{conversation_id:path}/timeline": ["mine", "mine-child", "SECRET", "SECRET-child", "nobody"],
    "/api/v1/runs": ["", "?conversation=SECRET"],
    "/api/v1/span": [
        f"?trace={1:032x}&span={1:016x}",
        f"?trace={1:032x}&span={9:016x}",
        f"?trace={2:032x}&span={8:016x}",
    ],
    "/api/v1/totals": [""],
    "/api/v1/glance": [""],
    "/api/v1/history": ["?conversation=SECRET", "?conversation=SECRET-child"],
    "/api/v1/spend": [
        "?last=all",
        *(
            f"?last=all&by={by}"
            for by in ("service", "model", "conversation", "run", "day", "role,agent", "team", "hour")
        ),
        "?last=all&where=service!=checkout",
        "?last=all&by=model&top=1",
    ],
    "/api/v1/latency": ["?last=all", "?last=all&where=service=billing"],
    "/api/v1/budgets": [""],
    "/api/v1/presence": [""],
    "/metrics": [""],
    "/api/v1/openapi.json": [""],
}
"""Each route that is read, and what is asked of it."""
ELSEWHERE = {"/api/v1/import", "/api/v1/events", "/healthz", api_paths.LOGIN}
"""Sending, the stream (below), and what is open to everybody."""
MOMENTS = {
    "unix_s", "server_unix_s", "received_unix_nano", "server_unix_nano", "burn", "cost_per_hour", "per_hour",
    "window_s", "projected", "receiver", "exhausted_unix_s", "since", "until", "begun", "ended",
}  # fmt: skip
"""What depends on when it arrived or was asked for."""
BUDGETS = "day=100,month:service=checkout=50,day:service=*=9,day:service=billing=7777"
THEIRS = (b"SECRET", b"billing", b"7777")


def start() -> int:
    return time.time_ns() - 5_000_000_000


def ours() -> list[bytes]:
    sender = Sender("p", "checkout", start=start(), resource={"openhands.label.team": "red"})
    sender.spend(2.0).spend(0.5, model="small").add(semconv.CALLS, 3, {semconv.REQUEST_MODEL: "gpt"})
    sender.introduce("mine").converse("mine", 1.5).state("mine", semconv.Status.RUNNING)
    sender.introduce("mine-child", parent="mine").converse("mine-child", 0.5)
    return [sender.body()]


def our_spans() -> bytes:
    spans = SpanSender("checkout")
    spans.call(1, "mine", cost=1.5)
    return spans.body()


def theirs() -> list[bytes]:
    """Under the same names where they may be, in the same traces, above and below."""
    sender = Sender("p", "billing", start=start(), resource={"openhands.label.team": "SECRET"})
    sender.spend(7777.0).spend(7777.0, model="SECRET").add(semconv.CALLS, 7777, {semconv.REQUEST_MODEL: "gpt"})
    sender.introduce("SECRET").converse("SECRET", 7777.0).state("SECRET", semconv.Status.RUNNING)
    sender.introduce("SECRET-child", parent="mine").converse("SECRET-child", 7777.0, model="SECRET")
    sender.add(semconv.CONVERSATION_CALLS, 7777, {semconv.CONVERSATION_ID: "SECRET", semconv.REQUEST_MODEL: "gpt"})
    wrong = Sender("p", "billing").add(semconv.COST, -7777.0, {semconv.REQUEST_MODEL: "SECRET"})
    return [sender.body(), wrong.body()]


def their_spans() -> bytes:
    spans = SpanSender("billing")
    spans.call(9, "SECRET-child", cost=7777.0, parent=1)
    spans.call(8, "SECRET", cost=7777.0, trace=2)
    # What they say of another's conversation is not that other's.
    spans.call(7, "mine", cost=7777.0)
    return spans.body()


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client, Viewer]]:
    """A look at one service of a viewer that hears of two, one at a viewer that hears of it alone, and the first."""
    file: Path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    secret = named_tokens.add(file, "alice", frozenset({Right.LOOK}), "checkout")
    common = {"token": "0wn", "wrapper": ["env", f"OPENHANDS_OTEL_VIEWER_BUDGETS={BUDGETS}"]}
    with (
        running_viewer("--tokens-file", str(file), **common) as both,
        running_viewer("--tokens-file", str(file), **common) as alone,
    ):
        mine, spans = ours(), our_spans()
        for viewer in (both, alone):
            for body in mine:
                assert viewer.post(body).status_code == 200
            assert viewer.post(spans, "/v1/traces").status_code == 200
        for body in theirs():
            assert both.post(body).status_code == 200
        assert both.post(their_spans(), "/v1/traces").status_code == 200
        headers = {"authorization": f"Bearer {secret}"}
        with (
            httpx.Client(base_url=both.url, headers=headers, trust_env=False, timeout=100) as narrow,
            httpx.Client(base_url=alone.url, headers=alone.http.headers, trust_env=False, timeout=100) as whole,
        ):
            yield narrow, whole, both


def routes() -> set[str]:
    with HeldStore() as held:
        return {route.path for route in Api(held.store).routes()}


def settled(value: Any) -> Any:
    """An answer without what depends on moments."""
    if isinstance(value, dict):
        return {key: settled(each) for key, each in value.items() if key not in MOMENTS}
    if isinstance(value, list):
        parts = [settled(each) for each in value]
        return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
    return value


def told(response: httpx.Response) -> Any:
    if response.headers["content-type"].startswith("application/json"):
        return settled(response.json())
    # The viewer's own figures are about all that it does.
    lines = [line for line in response.text.splitlines() if "openhands_otel_collector_" not in line]
    return sorted(lines)


def test_each_route_is_asked_here() -> None:
    """A route that is new has to be: whatever it answers, it answers of one service alone."""
    assert routes() == ASKED.keys() | (ELSEWHERE - {api_paths.LOGIN})


@pytest.mark.parametrize(("route", "asked"), [(route, asked) for route, each in ASKED.items() for asked in each])
def test_one_service_is_answered_of_as_if_there_were_no_other(
    looks: tuple[httpx.Client, httpx.Client, Viewer], route: str, asked: str
) -> None:
    narrow, whole, _ = looks
    if route == "/api/v1/budgets":
        assert [budget["name"] for budget in narrow.get(route).json()] == ["month service=checkout"]
        assert narrow.get(route).json()[0]["spent"] == 2.5
        return
    path = route.replace("{conversation_id:path}", asked) if "{" in route else route + asked
    answer, expected = narrow.get(path), whole.get(path)
    if route == "/api/v1/state":
        receiver = answer.json()["receiver"]
        assert {name for name, value in receiver.items() if value} == {"started_unix_nano"}
    assert answer.status_code == expected.status_code
    assert told(answer) == told(expected)
    assert not [word for word in THEIRS if word in answer.content and word.decode() not in asked]


def test_a_route_of_everything_shows_everything_to_who_may_see_it(
    looks: tuple[httpx.Client, httpx.Client, Viewer],
) -> None:
    """What is compared above is there to be seen."""
    _, _, both = looks
    for path in (
        "/api/v1/state",
        "/api/v1/spend?last=all&by=service",
        "/api/v1/totals",
        "/api/v1/presence",
        "/metrics",
    ):
        assert any(word in both.http.get(path).content for word in THEIRS), path


def test_the_burn_rate_is_of_one_service_too(looks: tuple[httpx.Client, httpx.Client, Viewer]) -> None:
    narrow, _, both = looks
    spent = narrow.get("/api/v1/state").json()["totals"]["burn"]
    assert 0 < spent["per_minute"] * spent["window_s"] / 60 <= 2.5 + 1e-9
    assert both.state().totals.burn.per_hour > 7777


def test_what_was_spent_over_time_ends_at_what_was_spent(looks: tuple[httpx.Client, httpx.Client, Viewer]) -> None:
    narrow, _, _ = looks
    points = narrow.get("/api/v1/history").json()["points"]
    assert points[-1]["accumulated_cost"] == 2.5
    of_one = wait_for(lambda: narrow.get("/api/v1/history?conversation=mine").json()["points"], "a sample")
    assert of_one[-1]["accumulated_cost"] == 1.5
    assert narrow.get("/api/v1/history?conversation=SECRET").json()["points"] == []


def test_a_token_of_one_service_imports_nothing(looks: tuple[httpx.Client, httpx.Client, Viewer]) -> None:
    narrow, _, _ = looks
    assert narrow.post("/api/v1/import", json={}).status_code == 403
    assert narrow.post("/v1/metrics", content=b"", headers=PROTOBUF).status_code == 403


def test_the_stream_tells_of_one_service(looks: tuple[httpx.Client, httpx.Client, Viewer]) -> None:
    narrow, _, both = looks
    heard = b""
    with narrow.stream("GET", "/api/v1/events") as stream:
        for piece in stream.iter_bytes():
            heard += piece
            if b"snapshot" in heard and heard.endswith(b"\n\n") and b"streamed" not in heard:
                other = Sender("q", "billing").spend(7777.5).introduce("SECRET-late").converse("SECRET-late", 7777.5)
                both.send(other)
                both.send(Sender("q", "checkout").introduce("streamed").converse("streamed", 0.0))
            if b'"conversation_id":"streamed"' in heard.partition(b"\n\n")[2]:
                break
    assert not [word for word in THEIRS if word in heard]
    totals = [json.loads(line[6:]) for line in heard.splitlines() if line.startswith(b"data: ")]
    costs = {each["totals"]["accumulated_cost"] for each in totals if each["type"] == "totals"}
    assert costs <= {2.5}


def test_a_conversation_on_which_two_services_worked_is_neithers() -> None:
    with HeldStore() as held:
        held.take(Sender("p", "checkout").introduce("c").converse("c", 1.0).spend(1.0))
        sight = held.store.sight("checkout")
        assert [stats.tree_cost for stats in sight.all_stats()] == [1.0]
        held.take(Sender("q", "billing").converse("c", 5.0).spend(5.0))
        held.run(held.store.save_all())
        for service, cost in (("checkout", 1.0), ("billing", 5.0)):
            sight = held.store.sight(service)
            assert sight.all_stats() == ()
            assert held.run(sight.stats("c")) is None
            assert sight.totals().accumulated_cost == cost


@pytest.mark.parametrize("theirs", [True, False])
def test_what_left_memory_is_in_the_tree_only_where_it_is_of_the_same_service(theirs: bool) -> None:
    with HeldStore(conversation_limit=1) as held:
        held.take(Sender("p", "checkout").introduce("root").converse("root", 1.0))
        child = Sender("q", "billing" if theirs else "checkout").introduce("child", parent="root")
        held.take(child.converse("child", 5.0).state("child", semconv.Status.CLOSED))
        child.state("child", semconv.Status.CLOSED, ended=True)
        held.take(child.add(semconv.CONVERSATION_INFO, None, {semconv.CONVERSATION_ID: "child"}))
        held.run(held.housekeeping.save())
        sight = held.store.sight("checkout")
        (root,) = [stats for stats in sight.all_stats() if stats.conversation_id == "root"]
        assert root.tree_cost == (1.0 if theirs else 6.0)


def test_a_table_that_nobody_thought_of_shows_nothing() -> None:
    with HeldStore() as held:
        held.take(Sender("p", "checkout").spend(1.0))
        held.run(held.store.archive.change(lambda database: database.execute("CREATE TABLE new AS SELECT 1 AS secret")))
        sight = held.store.sight("checkout")
        ask = "SELECT count(*) FROM new"
        assert held.run(sight.read(lambda database: database.execute(ask).fetchone())) == (0,)
        assert held.run(held.store.read(lambda database: database.execute(ask).fetchone())) == (1,)
