"""What the ledger makes of events: exact sums, bounded, and nothing said about a total that was not read yet."""

from __future__ import annotations

import math
import random

import pytest

from openhands_otel import semconv
from openhands_otel._internal.exact import TOKENS_LIMIT, ExactSum
from openhands_otel._internal.ledger.fleet import LABEL_VALUES_LIMIT, OVERFLOW_KEY
from openhands_otel._internal.ledger.ledger import BREAKDOWN_LIMIT, CLOSED_LIMIT, Ledger
from openhands_otel.events import (
    ConversationClosed,
    ConversationOpened,
    CostAdded,
    LatencyRecorded,
    LLMCallStarted,
    MetricsMerged,
    Origin,
    OwnTotal,
    ResponseRecorded,
    RunEnded,
    RunStarted,
    TokensUsed,
    ToolEnded,
    ToolStarted,
)
from openhands_otel.semconv import CostSource, Reason, Role, RunOutcome, Status


def origin(conversation: str | None = "c", **more: object) -> Origin:
    return Origin(**({"conversation_id": conversation, "role": Role.AGENT, "model": "m", "usage_id": "agent"} | more))  # type: ignore[arg-type]


def spend(ledger: Ledger, amount: float, conversation: str | None = "c", **more: object) -> None:
    ledger.apply(CostAdded(1, origin(conversation, **more), amount, CostSource.PRICE_TABLE, amount))


def opened(ledger: Ledger, conversation: str = "c", restored: float = 0.0) -> None:
    ledger.apply(ConversationOpened(1, conversation, None, "Agent", "1.58.0", restored, None))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(series_limit=100, conversation_limit=50)


def fleet_total(ledger: Ledger, metric: semconv.Metric = semconv.COST) -> float:
    return math.fsum(total for _, total in ledger.fleet[metric.name].items())


def test_a_sum_is_exact_however_many_are_added() -> None:
    generator = random.Random(7)
    amounts = [generator.random() * 10 ** generator.randint(-9, 3) for _ in range(200_000)]
    total = ExactSum()
    for amount in amounts:
        total.add(amount)
    assert total.value == math.fsum(amounts)


def test_a_sum_keeps_the_small_one_beside_the_large_one_in_whatever_order_they_come() -> None:
    """Kind: what is lost when the sum is the smaller of the two, and not the amount."""
    for amounts in ([1.0, 1e100, 1.0, -1e100], [1e100, 1.0, -1e100, 1.0], [0.1, 1e17, -1e17], [3e-9, 2e9, 5e-9]):
        total = ExactSum()
        for amount in amounts:
            total.add(amount)
        assert total.value == math.fsum(amounts)


OUT_OF_RANGE = (10**12 + 1, 2**53 + 1, 2**63, 2**70, -1)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("count", OUT_OF_RANGE)
def test_a_count_that_no_wire_holds_changes_nothing(ledger: Ledger, place: int, count: int) -> None:
    """Kind: numbers without a range. One such total would break every request of the process from then on."""
    counts = [10] * 5
    counts[place] = count
    with pytest.raises(ValueError, match="token counts"):
        ledger.apply(TokensUsed(1, origin(), *counts, 128_000, "r"))
    assert all(not list(totals.items()) for totals in ledger.fleet.values())
    assert ledger.accounts == {}


@pytest.mark.parametrize("cost", [math.nan, math.inf, -math.inf, 1e300, 1.7e308, 1.1e9])
def test_a_cost_that_can_be_none_changes_nothing(ledger: Ledger, cost: float) -> None:
    with pytest.raises(ValueError, match="a cost of"):
        spend(ledger, cost)
    assert fleet_total(ledger) == 0
    assert ledger.accounts == {}


@pytest.mark.parametrize("savings", [math.nan, math.inf, -0.25, 1e300])
def test_savings_that_can_be_none_are_left_out(ledger: Ledger, savings: float) -> None:
    for each in (0.25, savings, 0.5):
        ledger.apply(ResponseRecorded(1, origin(), False, each))
    (value,) = (value for _, value in ledger.fleet[semconv.CACHE_SAVINGS.name].items())
    assert value == 0.75
    assert ledger.accounts["c"].unpriced == 3


def test_a_context_window_that_can_be_none_is_left_out(ledger: Ledger) -> None:
    ledger.apply(TokensUsed(1, origin(), 10, 1, 0, 0, 0, 2**63, "r"))
    assert ledger.accounts["c"].context_limit is None
    assert ledger.accounts["c"].context_tokens == 11


def test_what_belongs_to_no_conversation_is_in_the_fleets_totals(ledger: Ledger) -> None:
    spend(ledger, 0.5, conversation=None)
    spend(ledger, 0.25)
    assert fleet_total(ledger) == 0.75
    assert list(ledger.accounts) == ["c"]


def test_a_merge_counts_nothing(ledger: Ledger) -> None:
    ledger.apply(MetricsMerged(1, origin(), 5.0))
    assert fleet_total(ledger) == 0
    assert not ledger.changed


def test_a_snapshot_says_whose_cost_it_is(ledger: Ledger) -> None:
    opened(ledger, restored=2.0)
    spend(ledger, 0.5)
    spend(ledger, 0.25, role=Role.CONDENSER, usage_id="condenser")
    ledger.apply(TokensUsed(2, origin(), 100, 20, 30, 5, 7, 1000, "r"))
    ledger.apply(LatencyRecorded(2, origin(), 1.5, "r"))
    ledger.apply(ResponseRecorded(2, origin(), priced=False, cache_savings=None))
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.accumulated_cost, snapshot.restored_cost) == (0.75, 2.0)
    assert {(part.role, part.accumulated_cost) for part in snapshot.costs} == {
        (Role.AGENT, 0.5),
        (Role.CONDENSER, 0.25),
    }
    tokens = snapshot.accumulated_token_usage
    assert (tokens.prompt_tokens, tokens.completion_tokens, tokens.per_turn_token) == (100, 20, 120)
    assert (tokens.cache_read_tokens, tokens.cache_write_tokens, tokens.reasoning_tokens) == (30, 5, 7)
    assert (snapshot.llm_calls, snapshot.unpriced_calls, tokens.context_window) == (1, 1, 1000)


SECOND = 10**9


def test_a_snapshot_says_all_that_its_events_said(ledger: Ledger) -> None:
    """Two of everything that is added up, and a run that failed."""
    labels = (("name", "checkout"), ("team", "red"))
    main = origin(provider="openai", labels=labels)
    other = origin(provider="anthropic", model="n", role=Role.CONDENSER, usage_id="condenser", labels=labels)
    told = (
        ConversationOpened(1 * SECOND, "c", "p", "Agent", "1.58.0", 2.0, 9.0),
        RunStarted(2 * SECOND, "c"),
        LLMCallStarted(4 * SECOND, main, 1),
        LLMCallStarted(3 * SECOND, other, 2),
        *(CostAdded(5 * SECOND, main, amount, CostSource.PRICE_TABLE, amount) for amount in (0.5, 0.25)),
        CostAdded(5 * SECOND, other, 0.125, CostSource.PRICE_TABLE, 0.125),
        *(TokensUsed(5 * SECOND, main, 100, 20, 30, 5, 7, 1000, "r") for _ in range(2)),
        TokensUsed(5 * SECOND, other, 10, 2, 3, 1, 1, 2000, "r"),
        *(LatencyRecorded(6 * SECOND, main, seconds, "r") for seconds in (0.5, 0.0, 1.5, math.inf, math.nan)),
        LatencyRecorded(6 * SECOND, other, 0.25, "r"),
        *(ResponseRecorded(6 * SECOND, main, False, saved) for saved in (0.25, None, 0.5)),
        *(ToolStarted(7 * SECOND, "c", "terminal", call) for call in (1, 2)),
    )
    for event in told:
        ledger.apply(event)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.status, snapshot.outcome, snapshot.closed) == (Status.RUNNING, None, False)
    assert (snapshot.activity, snapshot.activity_since) == ("terminal", 7.0)
    own = OwnTotal(2.0, frozenset({"agent", "condenser"}), frozenset({Reason.METER_TWICE}))
    ledger.apply(RunEnded(8 * SECOND, "c", Status.ERROR, own, RunOutcome.ERROR, "Timeout"))
    ledger.apply(ConversationClosed(9 * SECOND, "c", own))
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    said = snapshot.model_dump(mode="json")
    tokens = {"prompt_tokens": 210, "completion_tokens": 42, "cache_read_tokens": 63, "cache_write_tokens": 11}
    expected = {
        "conversation_id": "c", "name": "checkout", "labels": dict(labels), "parent_id": "p", "agent": "Agent",
        "sdk_version": "1.58.0", "model_name": "m", "provider_name": "openai",
        "accumulated_cost": 0.875, "tree_cost": 0.875, "descendants": 0, "restored_cost": 2.0,
        "max_budget_per_task": 9.0, "unreconciled_cost": 0.875, "unreconciled_reasons": ["meter_twice"],
        "accumulated_token_usage": {**tokens, "reasoning_tokens": 15, "context_window": 1000, "per_turn_token": 120},
        "llm_calls": 6, "tool_calls": 2, "unpriced_calls": 3, "cache_savings": 0.75,
        "llm_seconds": 2.25, "longest_call_seconds": 1.5, "first_call_unix_s": 3.0, "last_call_unix_s": 4.0,
        "calls_by_model": [
            {"model": "m", "provider": "openai", "llm_calls": 5, "unpriced_calls": 3},
            {"model": "n", "provider": "anthropic", "llm_calls": 1, "unpriced_calls": 0},
        ],
        "costs": [
            {"role": "agent", "model": "m", "usage_id": "agent", "accumulated_cost": 0.75},
            {"role": "condenser", "model": "n", "usage_id": "condenser", "accumulated_cost": 0.125},
        ],
        "status": "closed", "outcome": "error", "error_type": "Timeout", "activity": None, "activity_since": None,
        "closed": True, "started_unix_nano": 1 * SECOND, "updated_unix_nano": 9 * SECOND,
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    assert {name: use["accumulated_cost"] for name, use in said["usage_to_metrics"].items()} == {
        "agent": 0.75,
        "condenser": 0.125,
    }
    assert fleet_total(ledger, semconv.CALLS) == 6
    assert fleet_total(ledger, semconv.UNPRICED_CALLS) == 3


def test_tokens_of_no_conversation_and_of_no_agent_are_counted_and_fill_no_context(ledger: Ledger) -> None:
    ledger.apply(TokensUsed(1, origin(None), 100, 20, 0, 0, 0, 1000, "r"))
    assert (fleet_total(ledger, semconv.INPUT_TOKENS), ledger.accounts) == (100, {})
    ledger.apply(TokensUsed(1, origin(role=Role.CONDENSER), 10, 2, 0, 0, 0, 1000, "r"))
    assert (ledger.accounts["c"].context_tokens, ledger.accounts["c"].context_limit) == (None, None)
    # The most that one response may have still counts.
    ledger.apply(TokensUsed(1, origin(), TOKENS_LIMIT, 0, 0, 0, 0, 1, "r"))
    assert fleet_total(ledger, semconv.INPUT_TOKENS) == 110 + TOKENS_LIMIT
    assert ledger.accounts["c"].context_limit == 1


def test_what_is_known_to_be_free_and_saves_is_booked_to_its_conversation(ledger: Ledger) -> None:
    ledger.apply(ResponseRecorded(5, origin(), True, 0.25, CostSource.PRICE_TABLE))
    account = ledger.accounts["c"]
    assert {source for _, source in account.cost} == {CostSource.PRICE_TABLE}
    assert (account.stats().cache_savings, account.stats().accumulated_cost, account.updated_at) == (0.25, 0.0, 5)


def test_each_update_whose_label_gives_way_is_counted() -> None:
    ledger = Ledger(series_limit=1000, conversation_limit=50, fleet_labels=["team"])
    for number in range(LABEL_VALUES_LIMIT):
        spend(ledger, 1.0, labels=(("team", str(number)),))
    assert ledger.overflowed == 0
    late = origin(labels=(("team", "late"),))
    for event in (
        CostAdded(1, late, 1.0, CostSource.PRICE_TABLE, 1.0),
        TokensUsed(1, late, 1, 1, 0, 0, 0, 1000, "r"),
        LatencyRecorded(1, late, 1.0, "r"),
    ):
        before = ledger.overflowed
        ledger.apply(event)
        ledger.apply(event)
        assert ledger.overflowed == before + 2
    shared = {key.labels: value for key, value in ledger.fleet[semconv.COST.name].items()}
    assert shared[(("team", semconv.OVERFLOW),)] == 2.0
    assert fleet_total(ledger) == LABEL_VALUES_LIMIT + 2


def test_a_snapshot_does_not_grow_with_the_calls(ledger: Ledger) -> None:
    sizes: list[int] = []
    for _ in range(2):
        for _ in range(5_000):
            spend(ledger, 0.125)
        snapshot = ledger.snapshot("c")
        assert snapshot is not None
        sizes.append(len(snapshot.model_dump_json()))
    assert sizes[1] - sizes[0] <= 4, "a digit more wherever the cost stands"


def test_a_snapshot_knows_what_lies_under_it_even_in_a_circle(ledger: Ledger) -> None:
    for conversation, parent in (("a", "c"), ("b", "a"), ("c", "b"), ("stranger", None)):
        ledger.apply(ConversationOpened(1, conversation, parent, "Agent", "1.58.0", 0.0, None))
        spend(ledger, 0.25, conversation=conversation)
    for conversation in ("a", "b", "c"):
        snapshot = ledger.snapshot(conversation)
        assert snapshot is not None
        assert (snapshot.accumulated_cost, snapshot.tree_cost, snapshot.descendants) == (0.25, 0.75, 2)


def test_what_is_spent_after_a_run_is_not_held_against_the_total_read_at_its_end(ledger: Ledger) -> None:
    opened(ledger)
    spend(ledger, 0.5)
    ledger.apply(RunEnded(2, "c", Status.FINISHED, OwnTotal(0.5, frozenset({"agent"}))))
    spend(ledger, 0.25)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.unreconciled_cost, snapshot.unreconciled_reasons) == (0.0, ())


def test_a_difference_without_a_known_reason_says_so(ledger: Ledger) -> None:
    opened(ledger)
    spend(ledger, 0.5)
    ledger.apply(RunEnded(2, "c", Status.FINISHED, OwnTotal(0.75, frozenset({"agent"}))))
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.unreconciled_cost, snapshot.unreconciled_reasons) == (-0.25, (Reason.UNKNOWN,))


def test_what_was_spent_before_it_was_opened_here_is_held_against_the_total_too(ledger: Ledger) -> None:
    opened(ledger, restored=0.5)
    spend(ledger, 0.25)
    ledger.apply(RunEnded(2, "c", Status.FINISHED, OwnTotal(0.75, frozenset({"agent"}))))
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.restored_cost, snapshot.unreconciled_cost, snapshot.unreconciled_reasons) == (0.5, 0.0, ())


def test_a_conversation_resumed_under_its_id_goes_on(ledger: Ledger) -> None:
    opened(ledger)
    spend(ledger, 0.5)
    ledger.apply(ConversationClosed(2, "c"))
    ledger.retire("c")
    assert "c" not in ledger.accounts
    opened(ledger, restored=0.5)
    spend(ledger, 0.25)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.accumulated_cost, snapshot.restored_cost, snapshot.status) == (0.75, 0.0, Status.IDLE)


def test_what_openhands_adds_twice_is_not_taken_for_spent_before(ledger: Ledger) -> None:
    opened(ledger)
    spend(ledger, 0.5)
    # 0.25 of it is a sub-agent's, whose conversation has it too.
    ledger.apply(ConversationClosed(2, "c", OwnTotal(0.75, frozenset({"agent"}), frozenset({Reason.SUBAGENTS}))))
    ledger.retire("c")
    opened(ledger, restored=0.75)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.restored_cost, snapshot.unreconciled_reasons) == (0.0, (Reason.SUBAGENTS,))


def test_what_another_process_spent_meanwhile_was_spent_before(ledger: Ledger) -> None:
    opened(ledger, restored=2.0)
    spend(ledger, 0.5)
    ledger.apply(ConversationClosed(2, "c", OwnTotal(2.5, frozenset({"agent"}))))
    spend(ledger, 0.25)
    opened(ledger, restored=3.75)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.accumulated_cost, snapshot.restored_cost) == (0.75, 3.0)


def test_what_was_spent_before_is_not_taken_back_where_openhands_total_fell(ledger: Ledger) -> None:
    """A meter that was reset meanwhile says nothing of what was spent."""
    opened(ledger, restored=2.0)
    spend(ledger, 0.5)
    ledger.apply(ConversationClosed(2, "c", OwnTotal(2.5, frozenset({"agent"}))))
    opened(ledger, restored=0.0)
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert (snapshot.accumulated_cost, snapshot.restored_cost) == (0.5, 2.0)


def test_what_is_known_to_cost_nothing_is_a_row_of_zero(ledger: Ledger) -> None:
    opened(ledger)
    ledger.apply(ResponseRecorded(2, origin(), priced=True, cache_savings=None, free=CostSource.CUSTOM))
    snapshot = ledger.snapshot("c")
    assert snapshot is not None
    assert [(part.model, part.accumulated_cost) for part in snapshot.costs] == [("m", 0.0)]
    assert [(key.source, value) for key, value in ledger.fleet[semconv.COST.name].items()] == [(CostSource.CUSTOM, 0.0)]
    assert snapshot.unpriced_calls == 0


def test_what_a_closed_conversation_spends_late_is_counted_and_it_stays_closed(ledger: Ledger) -> None:
    opened(ledger)
    spend(ledger, 0.5)
    ledger.apply(ConversationClosed(2, "c"))
    ledger.retire("c")
    spend(ledger, 0.25)
    assert ledger.accounts["c"].closed
    assert (ledger.accounts["c"].total_cost, fleet_total(ledger)) == (0.75, 0.75)
    assert ledger.changed == {"c"}


def test_what_runs_now_is_the_tool_before_the_model(ledger: Ledger) -> None:
    ledger.apply(RunStarted(1, "c"))
    ledger.apply(ToolStarted(5, "c", "terminal", 1))
    ledger.apply(ToolStarted(7, "c", "grep", 2))
    assert ledger.accounts["c"].activity == ("terminal", 5)
    ledger.apply(ToolEnded(9, "c", "terminal", 1, None))
    assert ledger.accounts["c"].activity == ("grep", 7)
    ledger.apply(RunEnded(9, "c", Status.FINISHED, None))
    assert ledger.accounts["c"].activity is None


def test_past_the_cap_values_fall_into_one_counted_bucket() -> None:
    ledger = Ledger(series_limit=10, conversation_limit=50)
    for number in range(25):
        spend(ledger, 0.5, conversation=None, model=f"model-{number}")
    items = dict(ledger.fleet[semconv.COST.name].items())
    assert len(items) == 11
    assert items[OVERFLOW_KEY] == 7.5
    assert fleet_total(ledger) == 12.5
    assert ledger.overflowed == 15


def test_what_is_known_keeps_its_place_when_there_is_no_room_for_another() -> None:
    ledger = Ledger(series_limit=1, conversation_limit=1)
    for _ in range(3):
        spend(ledger, 0.25, "known")
        spend(ledger, 1.0, "another", model="another")
    known, others = ledger.fleet[semconv.COST.name].items()
    assert (known[1], others) == (0.75, (OVERFLOW_KEY, 3.0))
    assert {name: account.total_cost for name, account in ledger.accounts.items()} == {
        "known": 0.75,
        semconv.OVERFLOW: 3.0,
    }


def test_past_the_cap_conversations_share_an_account_and_fleet_totals_stay_exact() -> None:
    ledger = Ledger(series_limit=10, conversation_limit=20)
    for number in range(50):
        spend(ledger, 0.5, conversation=f"c{number}")
    assert len(ledger.accounts) <= 21
    assert fleet_total(ledger) == 25.0
    assert math.fsum(account.total_cost for account in ledger.accounts.values()) == 25.0
    assert ledger.overflowed == 30


def test_the_parts_of_one_conversation_are_bounded(ledger: Ledger) -> None:
    for number in range(200):
        spend(ledger, 0.5, usage_id=f"usage-{number}")
    assert len(ledger.accounts["c"].cost) <= BREAKDOWN_LIMIT + 1
    assert ledger.accounts["c"].total_cost == 100.0


def test_closed_conversations_that_nobody_collects_leave_and_take_no_money_along() -> None:
    ledger = Ledger(series_limit=10, conversation_limit=100)
    for number in range(5_000):
        name = f"c{number}"
        opened(ledger, name)
        spend(ledger, 0.5, conversation=name)
        ledger.apply(ConversationClosed(2, name))
    assert len(ledger.accounts) <= 101
    assert len(ledger._closed) <= CLOSED_LIMIT
    assert fleet_total(ledger) == 2_500.0
    assert ledger.overflowed == 0
