"""Calls and timeline of a conversation over the API: they add up with its metrics, and hold whatever spans claim."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from span_sender import SpanSender, fail, id_of, trace_of
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import Timeline, TimelineRow
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with running_viewer(database=tmp_path_factory.mktemp("viewer") / "history.sqlite3") as running:
        yield running


@pytest.fixture(scope="module")
def client(viewer: Viewer) -> Iterator[StatsClient]:
    with StatsClient(viewer.url) as opened:
        yield opened


def post(viewer: Viewer, sender: SpanSender) -> None:
    response = viewer.post(sender.body(), "/v1/traces")
    assert (response.status_code, response.content) == (200, b"")


def drawn(rows: tuple[TimelineRow, ...]) -> list[str]:
    """Names, indented; with what they are in where they have not ended."""
    states = {"ended": "", "running": " ...", "missing": " ?"}
    return [f"{'  ' * row.depth}{row.name}{states[row.state]}" for row in rows]


def get(viewer: Viewer, path: str, tag: str | None = None, **query: Any) -> Any:
    headers = {} if tag is None else {"if-none-match": tag}
    return viewer.http.get(path, params=query, headers=headers)


def test_calls_have_what_their_spans_say_and_add_up_with_the_metrics(viewer: Viewer, client: StatsClient) -> None:
    """Kind: spans that are missing. What they cost is the difference, and a row of its own."""
    sender = SpanSender()
    told = {
        semconv.USAGE_INPUT_TOKENS: 1000,
        semconv.USAGE_OUTPUT_TOKENS: 20,
        semconv.USAGE_CACHE_READ_TOKENS: 600,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.input.messages": "[]",
    }
    dear = sender.call(1, "adds-up", cost=0.3, start=1, end=3.5, attributes=told)
    dear.events.add(name=semconv.RETRY_EVENT)
    dear.attributes.add(key="gen_ai.response.finish_reasons").value.array_value.values.add(string_value="stop")
    fail(sender.call(2, "adds-up", start=4, end=5), "Timeout")
    sender.call(3, "adds-up", cost=0.1, start=6, end=7, attributes={semconv.LLM_ROLE: "condenser"})
    sender.tool(4, "adds-up")
    sender.run(5, "adds-up", attributes={semconv.USAGE_COST: 0.05, semconv.LLM_ROLE: "acp"}, start=8, end=9)
    post(viewer, sender)
    # Not ours, whatever it says of itself: its cost would count twice.
    other = SpanSender(scope="another.instrumentation")
    other.call(6, "adds-up", cost=9.0)
    post(viewer, other)
    viewer.send(Sender("adds-up").converse("adds-up", 0.95))
    found = client.calls("adds-up")
    assert (found.count, found.calls_cost, found.accumulated_cost) == (4, pytest.approx(0.45), 0.95)
    assert found.rest_cost == pytest.approx(0.5)
    assert [call.span_id for call in found.calls] == [id_of(number).hex() for number in (5, 3, 2, 1)]
    run, condensed, failed, call = found.calls
    assert (run.is_run, condensed.role, failed.error_type, failed.cost) == (True, "condenser", "Timeout", None)
    assert (call.seconds, call.first_chunk_seconds, call.retries, call.finish_reason) == (2.5, 0.25, 1, "stop")
    assert (call.tokens.prompt_tokens, call.tokens.cache_read_tokens, call.model) == (1000, 600, "gpt")
    assert (call.has_content, failed.has_content) == (True, False)
    assert [one.cost_without_tokens for one in found.calls] == [False, True, False, False]
    [dearest] = client.calls("adds-up", sort="-cost", limit=1).calls
    assert dearest == call
    for sort in ("cost", "seconds", "first_chunk_seconds", "role", "model", "prompt_tokens", "retries", "error_type"):
        assert client.calls("adds-up", sort=sort).count == 4
        assert client.calls("adds-up", sort=f"-{sort}", limit=2, offset=3).count == 4


def test_percentiles_of_calls_are_those_of_the_period_and_of_what_is_asked_for(tmp_path: Path) -> None:
    """Kind: what is asked of spend (periods, facts, labels, patterns, several of a name) holds for time too."""
    with running_viewer(database=tmp_path / "history.sqlite3") as viewer:
        sender = SpanSender(resource={f"{semconv.LABEL_PREFIX}team": "payments"})
        for number in range(1, 101):
            role = "agent" if number <= 90 else "condenser"
            sender.call(number, f"c{number % 2}", end=number / 10, attributes={semconv.LLM_ROLE: role})
        # What is no call of a model, and one of before.
        sender.tool(101, "c1", end=500)
        sender.run(102, "c1", end=500)
        post(viewer, sender)
        before = SpanSender(service="nightly", began=sender.began - 40 * 86_400 * 10**9)
        before.call(200, "old", end=300)
        post(viewer, before)

        def told(**query: Any) -> list[float]:
            answer = get(viewer, "/api/v1/latency", **query).raise_for_status().json()
            return [answer["calls"], answer["p50"], answer["p95"], answer["longest"]]

        assert told(last="7d") == [100, 5.0, 9.5, 10.0]
        assert told() == [101, 5.1, 9.6, 300.0]
        assert told(until="30d") == told(where="service=nightly") == [1, 300.0, 300.0, 300.0]
        assert told(where="role=condenser") == [10, 9.5, 10.0, 10.0]
        assert told(where=["team=pay*", "role!=condenser"]) == [90, 4.5, 8.6, 9.0]
        assert told(where=["conversation=c0", "conversation=c1", "model=gpt"])[0] == 100
        assert told(where="team=none")[0] == 1
        assert told(where="run=c1#1") == told(where="model=gpt-5*") == [0, None, None, None]
        assert get(viewer, "/api/v1/latency", by="model").status_code == 400


def test_questions_that_are_none_are_refused_by_name(viewer: Viewer, client: StatsClient) -> None:
    base = "/api/v1/conversations/adds-up"
    for path, query, word in (
        (f"{base}/calls", {"sort": "beauty"}, "beauty"),
        (f"{base}/calls", {"colour": "red"}, "colour"),
        (f"{base}/calls", {"limit": "-1"}, "limit"),
        (f"{base}/timeline", {"sort": "cost"}, "sort"),
        (f"{base}/timeline", {"limit": "many"}, "limit"),
        ("/api/v1/span", {"trace": "1"}, "span"),
    ):
        refused = get(viewer, path, **query)
        assert refused.status_code == 400
        assert word in refused.json()["message"]
    for ask in (client.calls, client.timeline):
        with pytest.raises(StatsError, match="no conversation nobody"):
            ask("nobody")
    assert get(viewer, "/api/v1/span", trace="aa", span="bb").status_code == 404
    paths = get(viewer, "/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/conversations/{conversation_id}/calls", "/api/v1/span"} <= paths.keys()


def test_a_span_shows_what_was_captured_and_an_open_view_is_told_only_of_changes(viewer: Viewer) -> None:
    sender = SpanSender()
    said = '<img src=x onerror="alert(1)">'
    sender.call(1, "told", trace=7, attributes={"gen_ai.input.messages": said})
    post(viewer, sender)
    span = get(viewer, "/api/v1/span", trace=trace_of(7).hex(), span=id_of(1).hex()).json()
    assert span["attributes"]["gen_ai.input.messages"] == said
    for kind in ("calls", "timeline"):
        path = f"/api/v1/conversations/told/{kind}"
        first = get(viewer, path)
        assert said not in first.text
        assert get(viewer, path, tag=first.headers["etag"]).status_code == 304
        later = SpanSender()
        later.call(2 if kind == "calls" else 3, "told", trace=7)
        post(viewer, later)
        changed = get(viewer, path, tag=first.headers["etag"])
        assert changed.status_code == 200
        assert int(changed.headers["x-total-count"]) == int(first.headers["x-total-count"]) + 1


def test_what_is_done_stands_under_what_runs_until_its_span_comes(viewer: Viewer, client: StatsClient) -> None:
    """Kind: parents whose spans end last. Run, tool, and a sub-agent's run below it, all of them under way."""
    now = time.time()
    agent = Sender("live").introduce("boss").state("boss", "running").now("boss", "task", now - 5)
    agent.introduce("helper", parent="boss").state("helper", "running").now("helper", "llm", now - 1)
    viewer.send(agent)
    spans = SpanSender(began=int((now - 60) * 1e9))
    spans.call(11, "boss", trace=20, parent=10, start=52, end=54)
    spans.call(14, "helper", trace=20, parent=13, start=57, end=58)
    spans.tool(15, "helper", trace=20, parent=13, start=58, end=59)
    post(viewer, spans)
    expected = [
        "invoke_agent Agent ...",
        "  chat gpt",
        "  execute_tool task ...",
        "    invoke_agent Agent ...",
        "      chat gpt",
        "      execute_tool terminal",
        "      chat ...",
    ]
    found = client.timeline("boss")
    assert drawn(found.rows) == expected
    assert (found.ended, found.rows[0].below, found.rows[2].below) == (None, 6, 4)
    assert all(row.ended is None for row in found.rows if row.state == "running")
    # Of the sub-agent alone the same, with what is above it.
    assert drawn(client.timeline("helper").rows) == [expected[0], *expected[2:]]
    # They end, from below.
    ended = SpanSender(began=spans.began)
    ended.run(13, "helper", trace=20, parent=12, start=56, end=61)
    post(viewer, ended)
    viewer.send(Sender("live", start=agent.start).state("helper", "running", ended=True).state("helper", "finished"))
    assert drawn(client.timeline("boss").rows)[2:4] == ["  execute_tool task ...", "    invoke_agent Agent"]
    ended.tool(12, "boss", "task", trace=20, parent=10, start=55, end=62)
    ended.run(10, "boss", trace=20, parent=9, start=51, end=63)
    post(viewer, ended)
    over = Sender("live", start=agent.start).state("boss", "running", ended=True).state("boss", "finished")
    viewer.send(over.now("boss", "task", None).now("helper", "llm", None))
    # What is above a run, and not ours, belongs to it; what stands beside it does not.
    web = SpanSender("shop", scope="opentelemetry.instrumentation.fastapi", began=spans.began)
    web.add(9, "POST /order", trace=20, start=50, end=64)
    web.add(8, "GET /price", trace=20, parent=9, start=50, end=51)
    post(viewer, web)
    found = client.timeline("boss")
    names = ["POST /order", *(f"  {line}".replace(" ...", "") for line in expected[:-1])]
    assert drawn(found.rows) == [name.rstrip() for name in names]
    assert found.rows[0].service == "shop"
    assert found.ended is not None


def test_of_tools_that_run_at_a_time_each_has_its_sub_agents(viewer: Viewer, client: StatsClient) -> None:
    now = time.time()
    agent = Sender("both").introduce("parallel").state("parallel", "running").now("parallel", "task", now - 50)
    for name in ("left", "right"):
        agent.introduce(name, parent="parallel").state(name, "finished")
    # The run began long ago; what tells of it here arrives only now.
    viewer.send(agent)
    spans = SpanSender(began=int(now * 1e9))
    spans.run(12, "left", "Left", trace=25, parent=11, start=1, end=2)
    spans.run(14, "right", "Right", trace=25, parent=13, start=1, end=3)
    post(viewer, spans)
    assert sorted(drawn(client.timeline("parallel").rows)) == sorted(
        [
            "invoke_agent Agent ...",
            "  execute_tool task ...",
            "    invoke_agent Right",
            "  execute_tool ...",
            "    invoke_agent Left",
        ]
    )


def test_what_is_gone_stands_there_as_missing(viewer: Viewer, client: StatsClient) -> None:
    """Kind: parents that never come, as those of processes that were killed."""
    spans = SpanSender()
    spans.call(2, "lost", trace=30, parent=1)
    spans.tool(3, "lost", trace=30, parent=1, start=2, end=5)
    post(viewer, spans)
    [run, *below] = client.timeline("lost").rows
    assert (run.state, run.name, run.below) == ("missing", "invoke_agent", 2)
    assert (run.begun, run.ended) == (below[0].begun, below[1].ended)


def test_five_thousand_spans_come_in_pages_that_are_one_timeline(viewer: Viewer, client: StatsClient) -> None:
    sender = SpanSender()
    sender.run(1, "long", trace=40, end=5_000)
    for number in range(2, 5_001):
        sender.call(number, "long", trace=40, parent=1, start=number, end=number + 1, cost=0.001)
    post(viewer, sender)
    rows: list[TimelineRow] = []
    while len(rows) < (page := client.timeline("long", limit=1000, offset=len(rows))).count:
        rows += page.rows
    assert len({row.id for row in rows}) == len(rows) == 5_000
    assert rows[0].below == 4_999
    assert [row.begun for row in rows] == sorted(row.begun for row in rows)
    assert client.calls("long").calls_cost == pytest.approx(4.999)


def hostile() -> Iterator[SpanSender]:
    """Whatever spans may claim of themselves."""
    circle = SpanSender()
    for number in range(1, 6):
        circle.call(number, "hostile", trace=50, parent=number % 5 + 1)
    circle.call(6, "hostile", trace=50, parent=6)
    circle.call(7, "hostile", trace=50, parent=1)
    yield circle
    deep = SpanSender()
    for number in range(1, 2_001):
        deep.tool(number, "hostile", "\x1b]0;x\x07<script>" * 50, trace=51, parent=number - 1)
    yield deep
    many = SpanSender(resource={f"r{number}": "x" * 500 for number in range(500)})
    many.call(1, "hostile", trace=52, attributes={f"a{number}": "x" * 100 for number in range(10_000)})
    many.call(1, "hostile", trace=52, cost=5.0)
    many.call(2, "hostile", trace=52, cost=-1.0)
    many.call(3, "hostile", trace=52, cost=float("nan"), attributes={semconv.USAGE_INPUT_TOKENS: -5})
    many.call(4, "hostile", trace=52, cost=1e300, attributes={semconv.USAGE_INPUT_TOKENS: 2**63 - 1})
    many.run(5, "hostile", trace=52, parent=99, end=-50)
    yield many


def test_whatever_spans_claim_there_is_a_timeline_of_it(viewer: Viewer, client: StatsClient) -> None:
    sent = 0
    for sender in hostile():
        sent += len(sender.spans)
        post(viewer, sender)
    rows: list[TimelineRow] = []
    while len(rows) < (page := client.timeline("hostile", limit=1000, offset=len(rows))).count:
        rows += page.rows
    # One id was there twice.
    assert len([row for row in rows if row.span_id]) == sent - 1
    assert len({row.id for row in rows}) == len(rows)
    assert max(row.depth for row in rows) == 1_999
    found = client.calls("hostile", limit=1000)
    assert found.calls_cost == 0.0
    assert Timeline.model_validate(page.model_dump()) == page
    large = get(viewer, "/api/v1/span", trace=trace_of(52).hex(), span=id_of(1).hex()).json()
    assert (len(large["attributes"]), large["left_out"]) == (256, 10_005 - 256)
    assert large["attributes"][semconv.REQUEST_MODEL] == "gpt"


@pytest.mark.parametrize("url", ["javascript:alert(1)//{trace_id}", "http://jaeger/trace"])
def test_an_address_that_leads_to_no_trace_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from openhands_otel._internal.cli import main

    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TRACE_URL", url)
    assert main(["view"]) == 1
    assert "OPENHANDS_OTEL_VIEWER_TRACE_URL" in capsys.readouterr().err


def test_a_trace_can_be_opened_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TRACE_URL", "http://jaeger:16686/trace/{trace_id}")
    with running_viewer(database=tmp_path / "db") as viewer, StatsClient(viewer.url) as client:
        sender = SpanSender()
        sender.call(1, "c")
        post(viewer, sender)
        assert client.timeline("c").trace_url == "http://jaeger:16686/trace/{trace_id}"
        span = get(viewer, "/api/v1/span", trace=trace_of(1).hex(), span=id_of(1).hex()).json()
        assert span["trace_url"] == f"http://jaeger:16686/trace/{trace_of(1).hex()}"
