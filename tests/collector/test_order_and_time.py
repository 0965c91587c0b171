"""What the collector makes of senders whose clocks, starts, ids and temporalities are not what one would wish."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel import semconv
from openhands_otel._internal.collector.serve.exposition import Exposition
from otlp_sender import Sender

from .held import HeldStore, write_as_before

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND


@pytest.fixture
def held() -> Iterator[HeldStore]:
    with HeldStore() as held:
        yield held


def test_money_goes_on_though_the_clock_was_set_back(held: HeldStore) -> None:
    """Kind: the sender's wall clock taken for the order of things. $0.50 of $1.00 were shown."""
    now = time.time_ns()
    sender = Sender("p", start=now - HOUR)
    for number, at in enumerate((now, now - HOUR // 2, now - HOUR // 2 + SECOND), start=1):
        sender.spend(0.25 * number, at=at).converse("c", 0.25 * number, at=at)
        held.take(sender)
    assert (held.cost, held.conversation("c").accumulated_cost) == (0.75, 0.75)


def test_a_gateway_that_moves_starts_adds_nothing(held: HeldStore) -> None:
    """Kind: as above, of somebody on the way. 1, 2, 3 came to $6."""
    now = time.time_ns()
    for number in (1, 2, 3):
        sender = Sender("p", start=now + (10 * number - 13) * SECOND)
        held.take(sender.spend(float(number), at=now + 10 * number * SECOND))
    assert held.cost == 3.0


def test_a_status_of_the_future_hides_none_that_come_later(held: HeldStore) -> None:
    now = time.time_ns()
    held.take(Sender("p").introduce("c", at=now + HOUR).state("c", "running", at=now + HOUR))
    held.take(Sender("p").state("c", "finished", at=now))
    assert held.conversation("c").status == "finished"
    assert held.store.totals().conversations_running == 0


def test_a_conversation_that_a_fast_machine_handed_on_is_what_the_next_one_says(held: HeldStore) -> None:
    now = time.time_ns()
    fast = Sender("fast", service="before", start=now + HOUR)
    fast.introduce("c", at=now + HOUR).state("c", "running", at=now + HOUR).now("c", "llm", 1.0, at=now + HOUR)
    fast.converse("c", 0.5, at=now + HOUR).add(
        semconv.CONVERSATION_CONTEXT_TOKENS, 7, {semconv.CONVERSATION_ID: "c"}, at=now + HOUR
    )
    held.take(fast)
    slow = Sender("slow", service="after", start=now - HOUR).introduce("c", at=now).converse("c", 0.25, at=now)
    slow.state("c", "finished", at=now)
    held.take(slow.add(semconv.CONVERSATION_CONTEXT_TOKENS, 9, {semconv.CONVERSATION_ID: "c"}, at=now))
    stats = held.conversation("c")
    assert (stats.status, stats.activity, stats.service) == ("finished", None, "after")
    assert (stats.accumulated_cost, stats.accumulated_token_usage.per_turn_token) == (0.75, 9)
    held.take(fast.introduce("c", at=now + HOUR + 1).state("c", "running", at=now + HOUR + 1))
    assert held.conversation("c").status == "finished", "a heartbeat says nothing new"
    held.take(fast.state("c", "closed", at=now + HOUR + 2))
    assert (held.conversation("c").status, held.conversation("c").closed) == ("finished", False)
    held.take(slow.state("c", "closed", at=now + 3))
    assert held.conversation("c").closed
    held.take(fast.state("c", "running", at=now + HOUR + 4))
    assert (held.conversation("c").status, held.conversation("c").closed) == ("running", False)


def test_what_is_told_after_the_event_counts_and_overrides_nothing(held: HeldStore) -> None:
    """Kind: as above. A spool comes late, whatever its stamps say."""
    now = time.time_ns()
    held.take(Sender("live").introduce("c", parent="top").converse("c", 1.0).state("c", "running"))
    spool = Sender("spool", start=now).introduce("c", parent="other", at=now + HOUR).spend(0.25)
    spool.converse("c", 0.25, at=now + HOUR).state("c", "finished", at=now + HOUR)
    spool.introduce("old", at=now - HOUR).state("old", "running", at=now - HOUR)
    body = spool.body()
    for _ in range(2):
        held.take_body(body, replayed=True)
    stats, old = held.conversation("c"), held.conversation("old")
    assert (stats.status, stats.parent_id, stats.accumulated_cost, held.cost) == ("running", "top", 1.25, 0.25)
    assert (old.status, old.stale) == ("running", True), "whoever spoke so is not here"
    assert (held.store.totals().conversations_running, held.store.totals().burn.per_hour) == (1, 0.0)
    held.take(Sender("live").state("c", "finished").introduce("old").state("old", "running"))
    assert held.conversation("c").status == "finished"
    assert not held.conversation("old").stale


@pytest.mark.parametrize("delta", [False, True])
def test_twins_without_an_instance_id_add_up(held: HeldStore, delta: bool) -> None:
    """Kind: two things taken for one. Two processes of one resource tell interleaved what they spend: 12, not 6."""
    now = time.time_ns()
    for number in range(1, 7):
        for start in (now, now + 5_000):
            begun = start + (number - 1) * SECOND if delta else start
            sender = Sender("", start=begun).spend(1.0 if delta else float(number), at=start + number * SECOND)
            sender.start = start
            sender.converse("c", float(number), at=start + number * SECOND)
            request = sender.request()
            if delta:
                as_delta(request, semconv.COST.name)
            for _ in range(2):
                assert held.take_body(request.SerializeToString()) == 0
    assert (held.cost, held.conversation("c").accumulated_cost) == (12.0, 12.0)


def test_twins_with_one_pinned_id_add_up_where_one_of_them_falls_behind(held: HeldStore) -> None:
    now = time.time_ns()
    for number in range(1, 7):
        for start, cost in ((now, 2.0 * number), (now + 2 * SECOND, 1.0 * number)):
            held.take(Sender("pinned", start=start).spend(cost, at=start + number * SECOND))
    assert held.cost == 18.0


def as_delta(request: ExportMetricsServiceRequest, name: str) -> None:
    for metric in metrics(request):
        if metric.name == name:
            kind = metric.WhichOneof("data")
            assert kind is not None
            getattr(metric, kind).aggregation_temporality = pb.AGGREGATION_TEMPORALITY_DELTA


def metrics(request: ExportMetricsServiceRequest) -> Iterator[pb.Metric]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def test_a_foreign_counter_of_our_name_is_shown_and_counts_nowhere(held: HeldStore) -> None:
    """Kind: two things taken for one. GenAI names are everybody's; what is OpenHands' is told by the scope."""
    held.take(Sender("p").add(semconv.INPUT_TOKENS, 10).spend(0.5).converse("c", 0.5))
    for scope in ("opentelemetry.instrumentation.openai_v2", ""):
        foreign = Sender("p").add(semconv.INPUT_TOKENS, 1_000).spend(7.0).converse("c", 7.0).state("c", "error")
        request = foreign.observe(semconv.RESPONSE_LATENCY, [1.0]).request()
        for each in request.resource_metrics[0].scope_metrics:
            each.scope.name = scope
        assert held.take_body(request.SerializeToString()) == 0
    totals, stats = held.store.totals(), held.conversation("c")
    assert (totals.accumulated_cost, totals.accumulated_token_usage.prompt_tokens, totals.llm_calls) == (0.5, 10, 0)
    assert (stats.accumulated_cost, stats.status) == (0.5, None)
    shown = held.run(Exposition.TEXT.render(held.store)).decode()
    lines = [line for line in shown.splitlines() if line.startswith("gen_ai_client_inference_usage_input_tokens_total")]
    assert sorted(float(line.rsplit(" ", 1)[1]) for line in lines) == [10, 1_000, 1_000]
    assert any('otel_scope_name="opentelemetry.instrumentation.openai_v2"' in line for line in lines)


def test_a_foreign_counter_does_not_outlive_a_restart_as_ours(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "h.sqlite3") as held:
        request = Sender("p").spend(7.0).request()
        request.resource_metrics[0].scope_metrics[0].scope.name = "another"
        held.take_body(request.SerializeToString())
        held.take(Sender("p").spend(0.5))
    with HeldStore(tmp_path / "h.sqlite3") as held:
        assert held.cost == 0.5


CALL = {semconv.REQUEST_MODEL: "gpt", semconv.PROVIDER_NAME: "openai"}


def test_calls_are_a_counter_and_of_older_agents_the_latencies(tmp_path: Path) -> None:
    """Kind: one thing read off another. Without a latency histogram there were calls all the same."""
    with HeldStore(tmp_path / "h.sqlite3") as held:
        held.take(Sender("older").observe(semconv.RESPONSE_LATENCY, [1.0, 2.0], CALL))
        new = Sender("new").observe(semconv.RESPONSE_LATENCY, [1.0, 2.0, 3.0], CALL)
        held.take(new)
        held.take(new.add(semconv.CALLS, 0, CALL).add(semconv.CALLS, 3, CALL).spend(1.0))
        held.take(new.add(semconv.CALLS, 4, CALL).observe(semconv.RESPONSE_LATENCY, [1.0] * 4, CALL))
        held.take(Sender("lean").add(semconv.CALLS, 5, CALL))
        assert held.store.totals().llm_calls == 11
        assert {share.name: share.llm_calls for share in held.store.breakdown().by_model} == {"gpt": 11}
    with HeldStore(tmp_path / "h.sqlite3") as held:
        assert held.store.totals().llm_calls == 11
        held.take(new.observe(semconv.RESPONSE_LATENCY, [1.0] * 5, CALL).add(semconv.CALLS, 5, CALL))
        assert held.store.totals().llm_calls == 12
        held.take_body(Sender("older").observe(semconv.RESPONSE_LATENCY, [1.0] * 3, CALL).body(), at=1.0)
        held.run(held.housekeeping.save())
        held.let_all_go()
        held.run(held.store.archive.purge(time.time() - 10))
    with HeldStore(tmp_path / "h.sqlite3") as held:
        assert held.store.fleet.processes == {}
        assert {share.name: share.llm_calls for share in held.store.breakdown().by_provider} == {"openai": 13}


def test_a_restart_that_was_assumed_is_said_to_be(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "h.sqlite3") as held:
        now = time.time_ns()
        for cost in (2.0, 0.5):
            held.take(Sender("p", start=0).spend(cost, at=now))
            now += SECOND
        assert (held.cost, held.store.receiver_stats().assumed_restarts) == (2.5, 1)
    with HeldStore(tmp_path / "h.sqlite3") as held:
        assert (held.cost, held.store.receiver_stats().assumed_restarts) == (2.5, 1)


def test_a_database_of_the_version_before_is_read(tmp_path: Path) -> None:
    """Kind: stored data that only its writer reads. The rows are as the release before wrote them."""
    database, now = tmp_path / "h.sqlite3", time.time_ns()
    sender = Sender("p", start=now - HOUR).spend(1.5).introduce("c", parent="top").converse("c", 1.5)
    sender.state("c", "running").observe(semconv.RESPONSE_LATENCY, [1.0, 2.0], CALL)
    with HeldStore(database) as held:
        held.take(sender)
    write_as_before(database)
    with HeldStore(database) as held:
        stats = held.conversation("c")
        assert (held.cost, held.store.totals().llm_calls, stats.accumulated_cost) == (1.5, 2, 1.5)
        assert (stats.status, stats.parent_id, stats.closed) == ("running", "top", False)
        held.take(sender.spend(2.0).converse("c", 2.0).state("c", "closed"))
        assert (held.cost, held.conversation("c").accumulated_cost) == (2.0, 2.0)
        assert held.conversation("c").closed
