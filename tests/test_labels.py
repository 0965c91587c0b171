"""Labels: what a name and a value may be, what holds where, and that no number of values costs memory or money."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from held_memory import held_bytes
from hypothesis import given
from hypothesis import strategies as st
from telemetry.pipes import call, closed, opened, origin, response

from openhands_otel import labels, semconv
from openhands_otel._internal.capture.conversation_labels import ConversationLabels
from openhands_otel._internal.labels import LABEL_LIMIT, VALUE_LIMIT, _complain, clean, current, labels_of, merged
from openhands_otel._internal.ledger.fleet import LABEL_VALUES_LIMIT, FleetLabels
from openhands_otel._internal.ledger.ledger import BREAKDOWN_LIMIT, Ledger
from openhands_otel._internal.metrics.conversation_series import ConversationSeries
from openhands_otel.settings import Settings, SettingsError, load

# ---------------------------------------------------------------- names and values


@pytest.mark.parametrize("name", ["Team", "1st", "", "a-b", "a b", "é", "a" * 64, "_x", "a\n", "a=b"])
def test_a_name_that_is_none_is_refused_where_it_is_written(name: str) -> None:
    with pytest.raises(ValueError, match="begins with a small letter"):
        labels(**{name: "x"})
    assert current() == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("astropy-1", "astropy-1"),
        (7, "7"),
        (2.5, "2.5"),
        ("  two\twords\r\n", "two words"),
        ("\x1b]0;title\x07red\x1b[31m", "]0;titlered[31m"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("pay\u200bments\ufeff\u2060", "payments"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("half \ud800 a character", "half  a character"),
        ("line\u2028break, no\u00a0break", "line break, no break"),
        ("\u3164\u115f\ufe0f\U000e0101", ""),
        ("東京 🙂", "東京 🙂"),
        ("x" * 1_000_000, "x" * VALUE_LIMIT),
    ],
)
def test_a_value_is_cleaned_and_never_refused(value: object, shown: str) -> None:
    assert clean(value) == shown
    with labels(name=value):
        assert current() == ((("name", shown),) if shown else ())


@given(st.text())
def test_whatever_is_given_a_value_is_one_line_that_shows(text: str) -> None:
    value = clean(text)
    assert len(value) <= VALUE_LIMIT
    assert all(character.isprintable() for character in value)
    assert value.encode().decode() == value
    assert clean(value) == value


def test_a_value_whose_text_cannot_be_made_is_none() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    with labels(instance=Broken(), team="payments"):
        assert current() == (("team", "payments"),)


# ---------------------------------------------------------------- what holds where


def test_inner_values_win_and_outer_ones_are_back_afterwards() -> None:
    with labels(team="payments", instance="a"):
        with labels(instance="b", attempt=2):
            assert dict(current()) == {"team": "payments", "instance": "b", "attempt": "2"}
            with labels(instance=None):
                assert dict(current()) == {"team": "payments", "attempt": "2"}
        assert dict(current()) == {"team": "payments", "instance": "a"}
    assert current() == ()


def test_a_task_has_its_own_and_a_thread_has_none() -> None:
    async def inside(name: str) -> dict[str, str]:
        with labels(instance=name):
            await asyncio.sleep(0)
            return dict(current())

    async def both() -> list[dict[str, str]]:
        return await asyncio.gather(inside("a"), inside("b"))

    seen: list[Any] = []
    with labels(team="payments"):
        assert asyncio.run(both()) == [{"team": "payments", "instance": name} for name in "ab"]
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join(100)
    assert seen == [()]


def test_one_may_be_entered_again_and_left_in_any_order() -> None:
    once, other = labels(instance="a"), labels(instance="b")
    with once, once:
        assert dict(current()) == {"instance": "a"}
    stack, second = ExitStack(), ExitStack()
    stack.enter_context(once)
    second.enter_context(other)
    stack.close()
    second.close()
    assert current() == ()
    threading.Thread(target=other.__exit__, args=(None, None, None)).start()


def test_runs_of_one_conversation_that_overlap_leave_nothing_behind() -> None:
    of_conversation = ConversationLabels((("team", "payments"),))
    with labels(instance="a"):
        leave_first = of_conversation.enter_run()
    with labels(instance="b"):
        leave_second = of_conversation.enter_run()
    assert dict(of_conversation.here()) == {"team": "payments", "instance": "b"}
    with labels(attempt=1):
        assert dict(of_conversation.here()) == {"team": "payments", "instance": "b", "attempt": "1"}
    leave_first()
    assert dict(of_conversation.here()) == {"team": "payments", "instance": "b"}
    leave_second()
    assert dict(of_conversation.here()) == {"team": "payments"}


def test_more_than_fit_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    many = labels_of({f"label{number:02}": "x" for number in range(LABEL_LIMIT)})
    both = merged(many, (("label00", "y"), ("one_more", "x")))
    assert len(both) == LABEL_LIMIT
    assert dict(both)["label00"] == "y"


# ---------------------------------------------------------------- variables


@pytest.fixture(autouse=True)
def nothing_is_said_yet() -> None:
    _complain.cache_clear()


def test_labels_of_a_process_are_read_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Settings).labels == {}
    monkeypatch.setenv("OPENHANDS_OTEL_LABELS", " team = payments, note=a%2C b ,")
    assert load(Settings).labels == {"team": "payments", "note": "a, b"}


@pytest.mark.parametrize(
    ("given", "kept", "named"),
    [
        ("Team=x,project=checkout", {"project": "checkout"}, "'Team'"),
        ("team,project=checkout", {"project": "checkout"}, "'team'"),
        ("team=,project=checkout", {"project": "checkout"}, "'team'"),
        ("team=\u200b,project=checkout", {"project": "checkout"}, "'team'"),
        ("=x,project=checkout", {"project": "checkout"}, "''"),
        (",".join(f"l{n}=x" for n in range(17)), {f"l{n}": "x" for n in range(16)}, "'l16'"),
    ],
)
def test_a_mistake_costs_one_label_and_is_told_once_in_one_line(
    given: str,
    kept: dict[str, str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_LABELS", given)
    with caplog.at_level(logging.WARNING, "openhands_otel"):
        assert load(Settings).labels == kept
        assert load(Settings).labels == kept
    (line,) = caplog.messages
    assert line.startswith(f"OPENHANDS_OTEL_LABELS: left out {named} (")
    assert line.endswith("; the rest holds")
    assert "\n" not in line


def test_what_may_be_sent_of_people_is_known_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_SEND", "user_id, tags.team,tags.*,email")
    monkeypatch.setenv("OPENHANDS_OTEL_FLEET_LABELS", "team,Project")
    assert load(Settings).send == {"user_id", "tags.team"}
    assert load(Settings).fleet_labels == ("team",)
    assert any("'tags.*' (it is none of user_id" in line for line in caplog.messages)
    assert any("'Project' (a name begins" in line for line in caplog.messages)


def test_no_more_labels_than_hold_are_taken_in_code() -> None:
    with pytest.raises(SettingsError, match="17 labels, and no more than 16"):
        load(Settings, labels={f"l{number}": "x" for number in range(17)})


def test_a_mistake_in_code_is_told_to_whoever_makes_it() -> None:
    with pytest.raises(SettingsError, match="OPENHANDS_OTEL_LABELS: 'Team' is no name"):
        load(Settings, labels={"Team": "x"})


# ---------------------------------------------------------------- bounded


def test_values_beyond_the_cap_share_one_that_is_counted_and_totals_are_right() -> None:
    ledger = Ledger(1_000, 100, fleet_labels=["team"])
    for number in range(LABEL_VALUES_LIMIT + 10):
        for event in response(origin("c", labels=(("instance", "i"), ("team", f"t{number}"))), 0.5):
            ledger.apply(event)
    for metric in (semconv.COST, semconv.INPUT_TOKENS, semconv.CALLS):
        found = {dict(key.labels)["team"]: total for key, total in ledger.fleet[metric.name].items()}
        assert len(found) == LABEL_VALUES_LIMIT + 1
        assert found[semconv.OVERFLOW] == 10 * found["t0"]
        assert all(dict(key.labels).keys() == {"team"} for key, _ in ledger.fleet[metric.name].items())
    assert ledger.fleet[semconv.COST.name].total == (LABEL_VALUES_LIMIT + 10) / 2
    assert ledger.overflowed >= 30


def test_a_label_that_is_not_allowed_is_on_no_counter_of_the_fleet() -> None:
    allowed = FleetLabels(["team"])
    assert allowed.of((("instance", "a"), ("team", "x"))) == ((("team", "x"),), False)
    assert FleetLabels(()).of((("instance", "a"),)) == ((), False)


OFFERED = int(os.environ.get("TEST_CONVERSATIONS", "4000"))
GROWTH = 100_000


@pytest.mark.parametrize("conversations", ["one", "many"])
def test_however_many_values_cost_no_memory_and_no_money(conversations: str) -> None:
    """Series are sent as they come, so what the sender holds of them counts too; ``make test-life`` offers 100,000."""
    ledger = Ledger(1_000, 100, fleet_labels=["instance"])
    series = ConversationSeries(ledger)
    widest = 0

    def offer(numbers: range) -> None:
        nonlocal widest
        for number in numbers:
            name = "one" if conversations == "one" else f"c{number}"
            whose = origin(name, usage_id="agent", labels=(("instance", f"i{number}"),))
            events = (opened(name), *call(whose, 0.25), closed(name)) if name != "one" else call(whose, 0.25)
            for event in events:
                ledger.apply(event)
            if number % 50 == 49:
                for _ in range(2):
                    selection = series.select(False, (10**9 + number) * 10**9)
                    selection.commit()
                widest = max(widest, *(len(account.parts) for account in ledger.accounts.values()), 0)

    held: list[int] = []
    for numbers in (range(OFFERED // 2), range(OFFERED // 2, OFFERED)):
        offer(numbers)
        held.append(held_bytes(ledger, series))
    assert held[1] - held[0] < GROWTH
    fleet = ledger.fleet[semconv.COST.name]
    assert fleet.total == OFFERED / 4
    assert len(list(fleet.items())) == LABEL_VALUES_LIMIT + 1
    assert widest <= BREAKDOWN_LIMIT + 1
    assert ledger.overflowed >= 3 * (OFFERED - LABEL_VALUES_LIMIT)
    if conversations == "one":
        assert ledger.accounts["one"].total_cost == OFFERED / 4
