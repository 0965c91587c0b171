"""What the collector knows after points came: in order or not, once or twice, from one process or several."""

from __future__ import annotations

import ast
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import openhands_otel
from openhands_otel import semconv
from openhands_otel.semconv import Role, TokenType
from otlp_sender import Sender

from .held import HeldStore


@pytest.fixture
def held() -> Iterator[HeldStore]:
    with HeldStore() as held:
        yield held


def close(sender: Sender, conversation: str, *, parent: str | None = None) -> Sender:
    """The end points of a conversation that spent as the agent."""
    attributes = {semconv.CONVERSATION_ID: conversation, semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
    if parent is not None:
        attributes[semconv.CONVERSATION_PARENT_ID] = parent
    cost = {semconv.LLM_ROLE: "agent", semconv.REQUEST_MODEL: "gpt", semconv.USAGE_ID: "agent"}
    sender.add(semconv.CONVERSATION_INFO, None, attributes)
    return sender.add(semconv.CONVERSATION_COST, None, {semconv.CONVERSATION_ID: conversation} | cost)


def test_a_conversation_shows_all_that_its_process_says(held: HeldStore) -> None:
    sender = (
        Sender("p", service="runner").introduce("c", parent="above").state("c", "running").now("c", "terminal", 1e9)
    )
    sender.converse("c", 0.5).converse("c", 0.25, role="condenser", model="mini")
    named = {semconv.CONVERSATION_ID: "c"}
    for number, token_type in enumerate(TokenType, start=1):
        sender.add(semconv.CONVERSATION_TOKENS, 100 * number, named | {semconv.TOKEN_TYPE: token_type})
    sender.add(semconv.CONVERSATION_CALLS, 7, named).add(semconv.CONVERSATION_CONTEXT_TOKENS, 50, named)
    sender.add(semconv.CONVERSATION_CONTEXT_LIMIT, 200, named).add(semconv.CONVERSATION_BUDGET, 3.0, named)
    sender.add(semconv.CONVERSATION_RESTORED_COST, 1.5, named)
    reason = {semconv.RECONCILIATION_REASON: "meter_twice,subagents"}
    sender.add(semconv.CONVERSATION_UNRECONCILED, -0.125, named | reason).add(semconv.CONVERSATION_UNPRICED, 2, named)
    assert held.take(sender) == 0
    stats = held.conversation("c")
    assert (stats.parent_id, stats.agent, stats.sdk_version, stats.service) == ("above", "Agent", "1.58.0", "runner")
    assert (stats.status, stats.activity, stats.activity_since) == ("running", "terminal", 1e9)
    assert (stats.accumulated_cost, stats.restored_cost, stats.llm_calls) == (0.75, 1.5, 7)
    assert (stats.max_budget_per_task, stats.unreconciled_cost, stats.model_name) == (3.0, -0.125, "gpt")
    assert (stats.unreconciled_reasons, stats.unpriced_calls) == (("meter_twice", "subagents"), 2)
    assert stats.accumulated_token_usage.model_dump() == {
        "prompt_tokens": 100,
        "completion_tokens": 200,
        "cache_read_tokens": 300,
        "cache_write_tokens": 400,
        "reasoning_tokens": 500,
        "context_window": 200,
        "per_turn_token": 50,
    }
    assert [(part.role, part.model, part.accumulated_cost) for part in stats.costs] == [
        ("agent", "gpt", 0.5),
        ("condenser", "mini", 0.25),
    ]
    assert not stats.closed


def test_a_conversation_whose_trace_gives_way_to_another_stays_what_it_is(held: HeldStore) -> None:
    known = {semconv.CONVERSATION_ID: "c", semconv.AGENT_NAME: "Agent", semconv.CONVERSATION_PARENT_ID: "above"}
    first, second = (known | {semconv.CONVERSATION_TRACE_ID: trace} for trace in ("a", "b"))
    now = time.time_ns()
    held.take(Sender("p").converse("c", 0.5).add(semconv.CONVERSATION_INFO, 1, first, at=now, start=0))
    change = Sender("p").add(semconv.CONVERSATION_INFO, 1, second, at=now + 1, start=0)
    held.take(change.add(semconv.CONVERSATION_INFO, None, first, at=now + 1, start=0))
    stats = held.conversation("c")
    assert (stats.agent, stats.parent_id, stats.closed) == ("Agent", "above", False)
    held.take(Sender("p").add(semconv.CONVERSATION_INFO, None, second, at=now + 2, start=0))
    assert held.conversation("c").closed


def test_what_each_usage_id_spent_is_told_apart(held: HeldStore) -> None:
    named = {semconv.CONVERSATION_ID: "c"}
    sender = Sender("p").introduce("c").converse("c", 0.5).converse("c", 0.25, model="mini")
    sender.converse("c", 0.125, role="condenser", model="mini")
    for usage_id, token_type, count in (("agent", "input", 9), ("agent", "output", 4), ("condenser", "input", 3)):
        attributes = named | {semconv.TOKEN_TYPE: token_type, semconv.USAGE_ID: usage_id}
        sender.add(semconv.CONVERSATION_TOKENS, count, attributes)
    sender.add(semconv.CONVERSATION_CONTEXT_TOKENS, 13, named).add(semconv.CONVERSATION_CONTEXT_LIMIT, 200, named)
    held.take(sender)

    stats = held.conversation("c")

    spent = {
        name: (usage.model_name, usage.accumulated_cost, usage.accumulated_token_usage.prompt_tokens)
        for name, usage in stats.usage_to_metrics.items()
    }
    assert spent == {"agent": ("gpt", 0.75, 9), "condenser": ("mini", 0.125, 3)}
    agent = stats.usage_to_metrics["agent"].accumulated_token_usage
    assert (agent.completion_tokens, agent.per_turn_token, agent.context_window) == (4, 13, 200)
    assert stats.accumulated_token_usage.prompt_tokens == 12


def test_two_processes_of_one_conversation_add_up(held: HeldStore) -> None:
    named = {semconv.CONVERSATION_ID: "c"}
    first = Sender("first", start=1_000).introduce("c", at=2_000).converse("c", 0.1, at=2_000)
    held.take(first.add(semconv.CONVERSATION_RESTORED_COST, 0.5, named, at=2_000))
    second = Sender("second", start=5_000).introduce("c", at=6_000).converse("c", 0.2, at=6_000)
    held.take(second.add(semconv.CONVERSATION_RESTORED_COST, 0.6, named, at=6_000))
    stats = held.conversation("c")
    assert stats.accumulated_cost == math.fsum([0.1, 0.2])
    assert stats.restored_cost == 0.5, "what the second one restored, the first one spent"
    assert stats.processes == 2


def test_a_request_that_comes_twice_counts_once(held: HeldStore) -> None:
    body = Sender("p").spend(0.3).converse("c", 0.3).observe(semconv.RESPONSE_LATENCY, [1.0, 2.0]).body()
    for _ in range(3):
        held.take_body(body)
    totals = held.store.totals()
    assert (totals.accumulated_cost, totals.llm_calls, held.conversation("c").accumulated_cost) == (0.3, 2, 0.3)


def test_the_zero_before_a_first_value_does_not_win_over_it(held: HeldStore) -> None:
    sender = Sender("p", start=1_000)
    sender.spend(0.0, at=1_000).spend(0.7, at=2_000).converse("c", 0.7, at=2_000).converse("c", 0.0, at=1_000)
    held.take(sender)
    assert (held.cost, held.conversation("c").accumulated_cost) == (0.7, 0.7)


@settings(max_examples=60)
@given(st.data())
def test_order_and_repetition_make_no_difference(data: st.DataObject) -> None:
    sender = Sender("p", start=1_000)
    bodies: list[bytes] = []
    for step, status in enumerate(("idle", "running", "paused", "running", "finished")):
        at = 2_000 + step
        sender.spend(0.1 * step, at=at).converse("c", 0.1 * step, at=at).introduce("c", at=at)
        sender.state("c", status, at=at).now("c", f"tool {step}", step, at=at)
        bodies.append(sender.body())
    deliveries = data.draw(st.lists(st.sampled_from(bodies), max_size=12)) + data.draw(st.permutations(bodies))
    with HeldStore() as expected, HeldStore() as actual:
        for body in bodies:
            expected.take_body(body, at=1e9)
        for body in deliveries:
            actual.take_body(body, at=1e9)
        assert actual.conversation("c") == expected.conversation("c")
        assert actual.cost == expected.cost


def test_a_status_that_gave_way_does_not_come_back(held: HeldStore) -> None:
    sender = Sender("p")
    held.take(sender.state("c", "idle", at=10).now("c", "llm", 1.0, at=10))
    held.take(sender.state("c", "idle", ended=True, at=20).state("c", "running", at=20).now("c", "llm", None, at=20))
    late = Sender("p").state("c", "idle", at=10).now("c", "llm", 1.0, at=10)
    held.take(late)
    stats = held.conversation("c")
    assert (stats.status, stats.activity) == ("running", None)


@pytest.mark.parametrize("end_first", [True, False])
def test_the_end_of_the_old_status_may_stand_before_or_after_the_new(held: HeldStore, end_first: bool) -> None:
    sender = Sender("p")
    held.take(sender.state("c", "idle", at=10))
    for ended in (end_first, not end_first):
        sender.state("c", "idle" if ended else "running", ended=ended, at=20)
    held.take(sender)
    assert held.conversation("c").status == "running"


def test_a_closed_conversation_keeps_its_last_state_and_its_money(held: HeldStore) -> None:
    sender = Sender("p").spend(0.4).introduce("c").converse("c", 0.4).state("c", "finished").now("c", "llm", 5.0)
    held.take(sender)
    close(sender, "c").state("c", "finished", ended=True).now("c", "llm", None)
    held.take(sender)
    stats = held.conversation("c")
    assert (stats.closed, stats.accumulated_cost, stats.status, stats.activity) == (True, 0.4, "finished", None)
    assert held.cost == 0.4
    assert held.store.totals().conversations_open == 0


def test_a_closed_conversation_that_is_resumed_elsewhere_is_open_again(held: HeldStore) -> None:
    first = Sender("first").introduce("c").converse("c", 0.4)
    held.take(first)
    held.take(close(first, "c"))
    assert held.conversation("c").closed
    held.take(Sender("second").introduce("c").converse("c", 0.1))
    assert not held.conversation("c").closed
    assert held.conversation("c").accumulated_cost == 0.5


def test_closing_counts_although_an_earlier_process_died_without_a_word(held: HeldStore) -> None:
    held.take(Sender("died").introduce("c").converse("c", 0.4))
    second = Sender("second").introduce("c").converse("c", 0.1)
    held.take(second)
    held.take(close(second, "c"))
    assert held.conversation("c").closed


def test_a_parent_shows_its_own_spend_and_its_tree(held: HeldStore) -> None:
    sender = Sender("p").introduce("top").converse("top", 1.0)
    sender.introduce("mid", parent="top").converse("mid", 0.1)
    sender.introduce("low", parent="mid").converse("low", 0.2)
    held.take(sender)
    top, mid = held.conversation("top"), held.conversation("mid")
    assert (top.accumulated_cost, top.tree_cost, top.descendants) == (1.0, math.fsum([1.0, 0.1, 0.2]), 2)
    assert (mid.tree_cost, mid.descendants) == (math.fsum([0.1, 0.2]), 1)


def test_conversations_that_name_each_other_as_parents_hang_nothing(held: HeldStore) -> None:
    sender = Sender("p")
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")):
        sender.introduce(name, parent=parent).converse(name, 0.25)
    held.take(sender)
    assert [held.conversation(name).tree_cost for name in "abc"] == [0.75] * 3
    assert held.conversation("self").parent_id is None


def test_spend_of_no_conversation_is_in_the_totals_and_their_parts(held: HeldStore) -> None:
    held.take(Sender("p").spend(0.1, model="a").spend(0.2, model="b", role=Role.TITLE))
    held.take(Sender("q", service="other").spend(0.3, model="a"))
    parts = held.store.breakdown()
    assert parts.totals.accumulated_cost == math.fsum([0.1, 0.2, 0.3])
    assert [(share.name, share.accumulated_cost) for share in parts.by_model] == [("a", 0.4), ("b", 0.2)]
    assert {share.name: share.accumulated_cost for share in parts.by_role} == {"agent": 0.4, "title": 0.2}
    assert {share.name for share in parts.by_service} == {"agent", "other"}
    assert [(share.name, share.accumulated_cost) for share in parts.by_provider] == [
        ("openai", parts.totals.accumulated_cost)
    ]


def test_what_differs_only_where_it_is_cut_is_told_apart(held: HeldStore) -> None:
    """Of two series that have become one the smaller counts as a late point."""
    long = "x" * 5_000
    for end, cost in (("a", 1.0), ("b", 0.5)):
        sender = Sender(long + end, f"service-{long}{end}")
        sender.spend(cost, model=long + end).spend(cost, model=f"{long}!{end}").converse(long + end, cost)
        body = sender.body()
        for _ in range(2):
            held.take_body(body)
    breakdown = held.store.breakdown()
    assert held.cost == 3.0
    assert sorted(share.accumulated_cost for share in breakdown.by_model) == [0.5, 0.5, 1.0, 1.0]
    assert sorted(share.accumulated_cost for share in breakdown.by_service) == [1.0, 2.0]
    assert sorted(stats.accumulated_cost for stats in held.store.all_stats()) == [0.5, 1.0]
    assert all(len(share.name) <= 1024 for share in breakdown.by_model)


def test_totals_are_exact_after_very_many_changes(held: HeldStore) -> None:
    chance = random.Random(7)
    senders = [Sender(f"p{number}") for number in range(40)]
    spent = [0.0] * len(senders)
    for _ in range(2_000):
        index = chance.randrange(len(senders))
        spent[index] += chance.random() * 10 ** chance.randint(-8, 3)
        held.take(senders[index].spend(spent[index]))
    assert held.cost == math.fsum(spent)


def test_what_comes_at_once_counts_as_what_comes_in_turn(held: HeldStore) -> None:
    for begun in range(0, 60, 20):
        held.take_at_once(
            Sender(f"p{number}").introduce(f"c{number}").converse(f"c{number}", 0.25).spend(0.25)
            for number in range(begun, begun + 20)
        )
    totals = held.store.totals()
    assert (totals.conversations_seen, totals.processes_live, len(held.store.conversations)) == (60, 60, 60)
    assert (totals.accumulated_cost, held.store.counts.points) == (15.0, 60 * 3)


def test_no_sum_is_read_before_what_it_waits_for() -> None:
    """``a.sum += await more()`` reads the sum, waits, and writes over whatever others added meanwhile."""
    package = Path(openhands_otel.__file__).parent
    late = [
        f"{file.relative_to(package)}:{node.lineno}"
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.AugAssign) and any(isinstance(part, ast.Await) for part in ast.walk(node.value))
    ]
    assert late == []


def test_a_metric_of_another_kind_than_ours_is_left_out(held: HeldStore) -> None:
    held.take(Sender("p").spend(1.0))
    request = Sender("q").spend(5.0).request()
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    points = list(metric.sum.data_points)
    metric.gauge.data_points.extend(points)
    assert held.take_body(request.SerializeToString()) == 1
    assert held.cost == 1.0


def test_old_closed_conversations_leave_memory_but_neither_totals_nor_archive() -> None:
    with HeldStore(conversation_limit=10) as held:
        sender = Sender("p").introduce("top").converse("top", 1.0)
        held.take(sender)
        for number in range(30):
            name = f"child-{number}"
            held.take(sender.introduce(name, parent="top").converse(name, 0.1))
            held.take(close(sender, name, parent="top"))
        held.take(sender.spend(4.0))
        held.run(held.housekeeping.save())
        held.run(held.housekeeping.let_go())
        assert len(held.store.conversations) == 10
        assert held.cost == 4.0
        top = held.conversation("top")
        assert top.descendants == 30
        assert math.isclose(top.tree_cost, 4.0, abs_tol=1e-12)
        assert held.store.totals().conversations_seen == 31
        assert '"accumulated_cost":0.1' in (held.archived("child-0") or "")


def test_a_late_retry_for_a_conversation_out_of_memory_counts_once() -> None:
    with HeldStore(conversation_limit=10) as held:
        sender = Sender("p").introduce("top").converse("top", 1.0)
        held.take(sender)
        late = sender.introduce("gone", parent="top").converse("gone", 0.5).body()
        held.take_body(late)
        held.take(close(sender, "gone", parent="top"))
        for number in range(12):
            held.take(sender.introduce(f"c{number}").converse(f"c{number}", 0.1))
        held.run(held.housekeeping.let_go())
        assert "gone" not in held.store.conversations
        assert held.conversation("top").tree_cost == 1.5
        held.take_body(late)
        assert held.conversation("gone").closed, "the point is older than the end that was held"
        assert (held.conversation("gone").accumulated_cost, held.conversation("top").tree_cost) == (0.5, 1.5)
        assert held.conversation("top").descendants == 1


def test_a_process_silent_for_an_hour_leaves_memory_and_its_retry_counts_once() -> None:
    with HeldStore() as held:
        hours_ago = time.time() - 7_200
        sender = Sender("old").spend(0.3)
        late = sender.body()
        held.take_body(late, at=hours_ago)
        held.take(Sender("new").spend(0.1))
        held.run(held.housekeeping.let_go())
        assert len(held.store.fleet.processes) == 1
        assert held.cost == 0.4
        held.take_body(late)
        assert held.cost == 0.4
        held.take(sender.spend(0.5))
        assert held.cost == 0.6
        assert len(held.store.fleet.processes) == 2


def test_a_conversation_whose_process_fell_silent_is_marked_and_marked_back() -> None:
    with HeldStore() as held:
        sender = Sender("p").introduce("c").converse("c", 0.4).state("c", "running")
        body = sender.body()
        held.take_body(body, at=time.time() - 300)
        held.housekeeping.notice_silence(time.time())
        assert held.conversation("c").stale
        assert held.store.totals().conversations_running == 0
        held.take(sender.converse("c", 0.4))
        assert not held.conversation("c").stale
        assert held.store.totals().conversations_running == 1


def test_without_a_file_what_left_memory_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("PROCESS", "CONVERSATION"):
        monkeypatch.setattr(f"openhands_otel._internal.collector.archive.history.MEMORY_{kind}_LIMIT", 5)
    with HeldStore(conversation_limit=10) as held:
        old = time.time() - 7_200
        for number in range(40):
            sender = Sender(f"p{number}").spend(0.1).introduce(f"c{number}").converse(f"c{number}", 0.1)
            held.take_body(sender.body(), at=old + number)
        held.housekeeping.notice_silence(time.time())
        while held.run(held.housekeeping.let_go()):
            pass
        assert held.cost == math.fsum([0.1] * 40)
        assert len(held.store.conversations) == 10
        assert held.archived("c29") is not None
        assert held.archived("c0") is None
        assert held.run(held.store.archive.find(["agent\x1fp0"], [])) == ([], [])
