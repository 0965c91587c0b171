"""What is forgotten is gone from rows, sums, records and bytes, does not come back, and what is left adds up."""

from __future__ import annotations

import math
import time
from itertools import chain
from pathlib import Path

import pytest

from openhands_otel import semconv
from openhands_otel._internal.collector.archive.forgetting import ErasureRequest
from openhands_otel._internal.collector.archive.forgotten import Erasure
from openhands_otel._internal.collector.archive.questions import erasures_from_file
from openhands_otel._internal.collector.erasing import erase
from openhands_otel._internal.spend.handover import Handover, ReadConversation, ReadRow
from openhands_otel._internal.spend.rows import QUARTER_S, Dimension
from otlp_sender import Sender

from .held import HeldStore

SECOND = 1_000_000_000
NOON = time.time() // 86_400 * 86_400 - 43_200
EVERY = [(), (Dimension.SERVICE,), (Dimension.MODEL, Dimension.ROLE), (Dimension.CONVERSATION,), ("team", "customer")]


def at(hours: float) -> int:
    return int((NOON + hours * 3600) * SECOND)


def sender(instance: str = "p", service: str = "agent", **resource: str) -> Sender:
    return Sender(instance, service, start=at(-1), resource=resource)


def spend(one: Sender, conversation: str, cost: float, *, hours: float = 0.0, fleet: float | None = None) -> Sender:
    """Cost and calls of a conversation and of its process."""
    named = {semconv.CONVERSATION_ID: conversation, semconv.REQUEST_MODEL: "gpt"}
    one.spend(cost if fleet is None else fleet, at=at(hours)).converse(conversation, cost, at=at(hours))
    one.introduce(conversation, at=at(hours)).state(conversation, semconv.Status.RUNNING, at=at(hours))
    return one.add(semconv.CONVERSATION_CALLS, int(cost * 4), named, at=at(hours)).add(
        semconv.CALLS, int((cost if fleet is None else fleet) * 4), {semconv.REQUEST_MODEL: "gpt"}, at=at(hours)
    )


def adds_up(held: HeldStore, cost: float) -> None:
    """Whatever is asked by comes to the totals, and these are what is expected."""
    assert held.cost == pytest.approx(cost, abs=1e-9)
    calls = held.store.totals().llm_calls
    for names in EVERY:
        rows = held.spent(*names).values()
        assert math.fsum(row.cost.value for row in rows) == pytest.approx(cost, abs=1e-9), names
        assert sum(row.calls for row in rows) == calls, names
    breakdown = held.store.breakdown()
    for shares in (breakdown.by_model, breakdown.by_service, breakdown.by_role):
        assert math.fsum(share.accumulated_cost for share in shares) == pytest.approx(cost, abs=1e-9)


def left(folder: Path, *names: str) -> list[str]:
    """Which of some names still stand in a file."""
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    return [name for name in names if name.encode() in content]


def two(held: HeldStore) -> list[bytes]:
    """Two services, of which one works on two conversations; returns the requests."""
    bodies = [
        spend(sender("i1", "secretsvc"), "conv-one", 1.0).body(),
        spend(sender("i1", "secretsvc"), "conv-two", 2.0, hours=1, fleet=3.0).body(),
        spend(sender("i2", "other"), "conv-three", 0.5).body(),
    ]
    for body in bodies:
        held.take_body(body)
    adds_up(held, 3.5)
    return bodies


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    ("request_", "gone", "rest"),
    [
        (ErasureRequest(service="secretsvc"), 3.0, 0.5),
        (ErasureRequest(conversation="conv-one"), 1.0, 2.5),
        (ErasureRequest(service="secretsvc", conversation="conv-two"), 2.0, 1.5),
        (ErasureRequest(service="other", conversation="conv-two"), 0.0, 3.5),
        (ErasureRequest(since=NOON, until=NOON + QUARTER_S), 1.5, 2.0),
        (ErasureRequest(service="secretsvc", since=NOON + 3600), 2.0, 1.5),
        (ErasureRequest(conversation="conv-two", until=NOON + 1800), 0.0, 3.5),
        (ErasureRequest(until=NOON + 86_400), 3.5, 0.0),
    ],
)
def test_what_is_left_adds_up_and_nothing_comes_back(
    tmp_path: Path, request_: ErasureRequest, gone: float, rest: float, absent: bool
) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        bodies = two(held)
        if absent:
            held.let_all_go()
    told = erase(database, request_, dry_run=True)
    with HeldStore(database) as held:
        adds_up(held, 3.5)
    done = erase(database, request_)
    assert (done.cost, done.calls, done.rows) == (pytest.approx(gone), int(gone * 4), told.rows)
    for _ in range(2):
        with HeldStore(database) as held:
            adds_up(held, rest)
            for body in (*bodies, *bodies[::-1]):
                held.take_body(body, replayed=True)
                held.take_body(body)
            adds_up(held, rest)
            held.let_all_go()
    with HeldStore(database) as held:
        held.take(spend(sender("i1", "secretsvc"), "conv-one", 1.25, hours=2, fleet=3.25))
        adds_up(held, rest + 0.25)
    [audited] = erasures_from_file(database)
    assert (audited.cost, audited.calls) == (done.cost, done.calls)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (ErasureRequest(service="secretsvc"), ("secretsvc", "conv-one", "conv-two")),
        (ErasureRequest(conversation="conv-one"), ("conv-one",)),
        (ErasureRequest(labels=(("customer", "acme"),)), ("acme", "conv-label")),
        (ErasureRequest(labels=(("team", "payments"),)), ("payments", "conv-team")),
    ],
)
def test_no_byte_of_it_is_left(tmp_path: Path, request_: ErasureRequest, names: tuple[str, ...]) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        two(held)
        held.take(spend(sender("i3", **{f"{semconv.LABEL_PREFIX}team": "payments"}), "conv-team", 0.25))
        customer = {f"{semconv.LABEL_PREFIX}customer": "acme", semconv.CONVERSATION_ID: "conv-label"}
        held.take(sender("i4").spend(0.75).add(semconv.CONVERSATION_COST, 0.75, customer).introduce("conv-label"))
        adds_up(held, 4.5)
        # As a viewer that was killed: this is in the journal alone.
    assert left(tmp_path, *names) == list(names)
    done = erase(database, request_)
    assert left(tmp_path, *names) == []
    with HeldStore(database) as held:
        adds_up(held, 4.5 - done.cost)
        assert done.cost > 0
        two_again = [spend(sender("i1", "secretsvc"), "conv-one", 1.0)]
        for one in two_again if request_.conversation or request_.service else ():
            held.take(one)
        adds_up(held, 4.5 - done.cost)
    assert left(tmp_path, *names) == []


def test_a_conversation_that_goes_on_costs_what_came_on_top(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(spend(sender(), "c", 1.0))
    erase(database, ErasureRequest(conversation="c"))
    with HeldStore(database) as held:
        held.take(spend(sender(), "c", 1.0))
        assert "c" not in held.store.conversations
        held.take(spend(sender(), "c", 1.5, hours=1))
        assert held.conversation("c").accumulated_cost == 0.5
        assert held.conversation("c").llm_calls == 2
        assert [amount.cost.value for amount in held.spent(Dimension.CONVERSATION).values()] == [0.5]
    for _ in range(2):
        with HeldStore(database) as held:
            held.take(spend(sender(), "c", 1.5, hours=1))
            assert held.conversation("c").accumulated_cost == 0.5
            adds_up(held, 0.5)


def test_a_part_of_a_conversation_goes_from_what_it_costs(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        for hours, cost in ((0, 1.0), (1, 3.0), (2, 3.5)):
            held.take(spend(sender(), "c", cost, hours=hours))
    erase(database, ErasureRequest(conversation="c", since=NOON + 3600, until=NOON + 7200))
    with HeldStore(database) as held:
        assert held.conversation("c").accumulated_cost == 1.5
        # A late point of the time that is forgotten moves nothing.
        held.take(spend(sender(), "c", 2.0, hours=0.5))
        adds_up(held, 1.5)
        assert all(amount.cost.value >= 0 for amount in held.spent(Dimension.CONVERSATION).values())


def test_a_tree_is_less_by_what_is_forgotten_below_it(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(spend(sender(), "parent", 1.0).introduce("parent"))
        held.take(spend(sender(), "child", 2.0, fleet=3.0).introduce("child", parent="parent"))
        held.take(spend(sender(), "below", 4.0, fleet=7.0).introduce("below", parent="child"))
        assert held.conversation("parent").tree_cost == 7.0
    erase(database, ErasureRequest(conversation="child"))
    assert left(tmp_path, "child") == []
    with HeldStore(database) as held:
        adds_up(held, 5.0)
        assert held.conversation("parent").tree_cost == 1.0
        assert held.conversation("below").parent_id is None


def test_an_import_of_the_same_files_brings_nothing_back(tmp_path: Path) -> None:
    database = tmp_path / "history"
    rows = [ReadRow(begin=NOON, model="gpt", cost=2.0, calls=3)]
    handover = Handover(conversations=[ReadConversation(conversation_id="old", until=NOON + 60, rows=rows)])
    with HeldStore(database) as held:
        held.run(held.store.archive.take_read(handover))
    assert erase(database, ErasureRequest(conversation="old")).cost == 2.0
    assert left(tmp_path, "old\x00") == []
    with HeldStore(database) as held:
        held.run(held.store.archive.take_read(handover))
        assert held.spent() == {}


def test_the_audit_names_nobody(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        two(held)
    erase(database, ErasureRequest(service="secretsvc", labels=(), since=NOON))
    [audited] = erasures_from_file(database)
    assert isinstance(audited, Erasure)
    assert "secretsvc" not in audited.asked
    assert audited.asked.startswith("service #")
    assert "since 20" in audited.asked


def test_samples_are_less_by_it(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        two(held)
    erase(database, ErasureRequest(service="secretsvc"))
    with HeldStore(database) as held:
        history = held.history("", 0, 4e9, 1)
        costs = [point.accumulated_cost for point in history.points]
        assert all(cost <= 0.5 + 1e-9 for cost in costs), costs
        assert list(chain(held.history("conv-one", 0, 4e9, 1).points)) == []


def labelled(number: int) -> Sender:
    """One of several processes: of a team, working for customers, with or without the customer on its own series."""
    resource = {f"{semconv.LABEL_PREFIX}team": "payments"} if number % 2 else {}
    one = sender(f"i{number}", **resource)
    for customer, cost in (("acme", 1.0 + number), ("initech", 0.5)):
        label = {f"{semconv.LABEL_PREFIX}customer": customer}
        on_fleet = label if number % 3 == 0 else {}
        model = {semconv.REQUEST_MODEL: f"m-{customer}"}
        spent = {semconv.CONVERSATION_ID: f"c{number}-{customer}", **label, **model}
        one.add(semconv.COST, cost, {**model, **on_fleet}, at=at(number))
        one.add(semconv.CONVERSATION_COST, cost, spent, at=at(number))
        one.add(semconv.CALLS, number + 1, {**model, **on_fleet}, at=at(number))
        one.add(semconv.CONVERSATION_CALLS, number + 1, spent, at=at(number))
    return one


TEAM, ACME = (("team", "payments"),), (("customer", "acme"),)


@pytest.mark.parametrize(
    ("request_", "gone"),
    [
        (ErasureRequest(labels=TEAM), 2.0 + 0.5 + 4.0 + 0.5),
        (ErasureRequest(labels=ACME), 1.0 + 2.0 + 3.0 + 4.0),
        (ErasureRequest(labels=(*TEAM, *ACME)), 2.0 + 4.0),
        (ErasureRequest(labels=ACME, since=NOON + 7200), 3.0 + 4.0),
        (ErasureRequest(labels=ACME, conversation="c2-acme"), 3.0),
        (ErasureRequest(labels=ACME, conversation="c2-initech"), 0.0),
        (ErasureRequest(service="agent", labels=TEAM, until=NOON + 7200), 2.5),
    ],
)
def test_what_has_a_label_goes_and_nothing_else(tmp_path: Path, request_: ErasureRequest, gone: float) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        for number in range(4):
            held.take(labelled(number))
        adds_up(held, 12.0)
        before = held.spent("customer", "team", Dimension.MODEL)
    assert erase(database, request_).cost == pytest.approx(gone)
    with HeldStore(database) as held:
        for number in range(4):
            held.take(labelled(number))
        adds_up(held, 12.0 - gone)
        after = held.spent("customer", "team", Dimension.MODEL)
        for key, amount in after.items():
            assert 0 <= amount.cost.value <= before[key].cost.value + 1e-9
        if request_ in (ErasureRequest(labels=ACME), ErasureRequest(labels=TEAM)):
            assert not [key for key in after if request_.labels[0][1] in key]
    if request_ == ErasureRequest(labels=TEAM):
        assert left(tmp_path, "payments") == []


def test_an_import_leaves_the_time_out_that_was_forgotten_of_a_conversation(tmp_path: Path) -> None:
    database = tmp_path / "history"
    quarters = (0, 3, 4, 5, 7, 8, 12)
    rows = [ReadRow(begin=NOON + each * QUARTER_S, model="gpt", cost=1.0, calls=1) for each in quarters]
    handover = Handover(conversations=[ReadConversation(conversation_id="old", until=NOON + 5 * 3600, rows=rows)])
    with HeldStore(database) as held:
        held.run(held.store.archive.take_read(handover))
    assert erase(database, ErasureRequest(since=NOON + 3600, until=NOON + 7200)).cost == 3.0
    with HeldStore(database) as held:
        for _ in range(2):
            assert sum(amount.cost.value for amount in held.spent().values()) == 4.0
            held.run(held.store.archive.take_read(handover))


def test_what_is_forgotten_twice_stays_forgotten(tmp_path: Path) -> None:
    database = tmp_path / "history"
    for cost in (1.0, 2.0, 3.5):
        with HeldStore(database) as held:
            held.take(spend(sender(), "c", cost))
            held.let_all_go()
        erase(database, ErasureRequest(service="agent"))
        with HeldStore(database) as held:
            held.take(spend(sender(), "c", cost))
            adds_up(held, 0.0)
    assert [each.cost for each in erasures_from_file(database)] == [1.0, 1.0, 1.5]


def test_what_a_spool_adds_later_is_not_taken_for_life(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(spend(sender(), "c", 1.0))
    erase(database, ErasureRequest(service="agent"))
    with HeldStore(database) as held:
        held.take_body(spend(sender(), "c", 1.0).body(), replayed=True)
        assert not held.store.fleet.processes
        held.take_body(spend(sender(), "c", 1.5).body(), replayed=True)
        adds_up(held, 0.5)
        totals = held.store.totals()
        assert (totals.processes_live, totals.conversations_open, totals.conversations_seen) == (0, 0, 1)


def test_a_child_alone_is_forgotten_of_its_parent_out_of_memory(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database, conversation_limit=1) as held:
        held.take(spend(sender(), "parent", 1.0).state("parent", semconv.Status.CLOSED, at=at(1)))
        child = spend(sender(), "child", 2.0, fleet=3.0).introduce("child", parent="parent", at=at(1))
        held.take(child.state("child", semconv.Status.CLOSED, at=at(1)))
        held.let_all_go()
    erase(database, ErasureRequest(conversation="child"))
    with HeldStore(database) as held:
        adds_up(held, 1.0)
        held.take(spend(sender(), "parent", 1.0, fleet=3.0, hours=2))
        assert held.conversation("parent").tree_cost == 1.0
        assert held.conversation("parent").descendants == 0
