"""The account of an ACP session, against a model that knows the truth: real agents, but for their processes, that
record whatever sequence of reports, estimates, falls, currencies, restarts and resumes comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openhands_otel.events import CostAdded
from openhands_otel.testing import capture

from .scenario import EXACT, needs
from .test_acp import ESTIMATE, MODEL

ACP_AGENT = "openhands.sdk.agent.acp_agent"


@dataclass(frozen=True)
class Said:
    """What a turn came with: tokens, and a report or none."""

    report: float | None
    currency: str = "USD"
    tokens: bool = True


class Talk:
    """An ACP agent's turns of some sessions, recorded by OpenHands' own code; the agent's process is left out."""

    def __init__(self) -> None:
        agent = needs(ACP_AGENT, "ACPAgent")
        needs(ACP_AGENT, "ACPAgent._record_usage")
        given = {"acp_command": ["true"], "acp_model": MODEL}
        self.agent = agent(**{name: value for name, value in given.items() if name in agent.model_fields})
        self.new_bridge()

    def new_bridge(self) -> None:
        self.agent._client = needs(ACP_AGENT, "_OpenHandsACPBridge")()

    def turn(self, said: Said, session: str = "s1") -> None:
        from acp.schema import Cost, PromptResponse, Usage, UsageUpdate

        usage = Usage(total_tokens=110, input_tokens=100, output_tokens=10) if said.tokens else None
        update = None
        if said.report is not None:
            cost = Cost(amount=said.report, currency=said.currency)
            update = UsageUpdate(session_update="usage_update", used=1, size=2, cost=cost)
        response = PromptResponse(stop_reason="end_turn", usage=usage)
        self.agent._record_usage(response, session, elapsed=0.1, usage_update=update)

    def resumed_elsewhere(self) -> Talk:
        """The agent as another process has it, with what OpenHands stored of its spend."""
        talk = Talk()
        talk.agent.llm.restore_metrics(self.agent.llm.metrics.deep_copy())
        if not hasattr(talk.agent, "_resumed_existing_session"):
            pytest.skip("this release of OpenHands starts a new ACP session when it resumes")
        talk.agent._resumed_existing_session = True
        return talk


def truth(said: Sequence[Said]) -> float:
    """The most that was ever known to be spent: a report covers all before it, an estimate what comes after."""
    most = ended = estimated = last = 0.0
    for each in said:
        if each.report is not None and each.currency == "USD":
            ended += last if each.report < last else 0.0
            last, estimated = each.report, 0.0
        elif each.report is None and each.tokens:
            estimated += ESTIMATE
        most = max(most, ended + last + estimated)
    return most


AMOUNTS = st.integers(0, 40).map(lambda number: number * ESTIMATE * 0.37)
"""Some below an estimate, some above it, none equal to it."""
STEPS = st.lists(st.none() | AMOUNTS, max_size=8)
GROWING = STEPS.filter(lambda steps: 0.0 not in steps)
SAID = st.builds(
    Said,
    report=st.none() | AMOUNTS,
    currency=st.sampled_from(["USD", "USD", "USD", "EUR"]),
    tokens=st.sampled_from([True, True, True, False]),
)


def grown(steps: list[float | None]) -> list[Said]:
    """Reports that never fall, with holes."""
    total, said = 0.0, list[Said]()
    for step in steps:
        total += step or 0.0
        said.append(Said(None if step is None else total))
    return said


def quick(function: Callable[..., None]) -> Callable[..., None]:
    return settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))(function)


@quick
@given(st.lists(SAID, max_size=12))
def test_a_session_comes_to_the_most_that_is_known_of_it(said: list[Said]) -> None:
    """Kind: two sources that say the same dollar, added up; any order of them, from zero again, in any currency."""
    talk = Talk()
    with capture() as heard:
        for number, each in enumerate(said):
            talk.turn(each)
            assert heard.cost == pytest.approx(truth(said[: number + 1]), abs=EXACT)
        own = talk.agent.llm.metrics.accumulated_cost
        assert sum(event.recorded for event in heard.of(CostAdded)) == pytest.approx(own, abs=EXACT)
        assert all(event.amount >= 0 for event in heard.of(CostAdded))


@quick
@given(STEPS.map(grown))
def test_a_report_has_the_last_word_unless_more_was_said(said: list[Said]) -> None:
    talk = Talk()
    with capture() as heard:
        for each in said:
            before = heard.cost
            talk.turn(each)
            if each.report is not None:
                assert heard.cost == pytest.approx(max(before, each.report), abs=EXACT)


@quick
@given(st.lists(st.tuples(st.sampled_from("ab"), SAID), max_size=12))
def test_sessions_are_told_apart(said: list[tuple[str, Said]]) -> None:
    talk = Talk()
    with capture() as heard:
        for session, each in said:
            talk.turn(each, session)
        sessions = [[each for name, each in said if name == session] for session in "ab"]
        assert heard.cost == pytest.approx(sum(map(truth, sessions)), abs=EXACT)


@quick
@given(GROWING.map(grown), st.integers(0, 8), st.booleans())
def test_a_session_goes_on_wherever_it_is_resumed(said: list[Said], place: int, elsewhere: bool) -> None:
    """In the same process by what is remembered, in another by what OpenHands recorded, though that is too much.

    A report that did not grow has left no trace there."""
    talk = Talk()
    with capture() as heard:
        for each in said[:place]:
            talk.turn(each)
        first = heard.cost
        if not elsewhere:
            if not hasattr(talk.agent, "_resumed_existing_session"):
                return
            talk.new_bridge()
            talk.agent._resumed_existing_session = True
            for each in said[place:]:
                talk.turn(each)
            assert heard.cost == pytest.approx(truth(said), abs=EXACT)
            return
    with capture() as heard:
        again = talk.resumed_elsewhere()
        for each in said[place:]:
            again.turn(each)
        assert first + heard.cost == pytest.approx(truth(said), abs=EXACT)


@quick
@given(GROWING.map(grown), st.integers(0, 8))
def test_what_was_spent_before_anybody_listened_is_not_counted(said: list[Said], place: int) -> None:
    talk = Talk()
    for each in said[:place]:
        talk.turn(each)
    with capture() as heard:
        for each in said[place:]:
            talk.turn(each)
        assert heard.cost == pytest.approx(truth(said) - truth(said[:place]), abs=EXACT)


def test_two_agents_that_number_their_sessions_alike_are_told_apart() -> None:
    first, second = Talk(), Talk()
    with capture() as heard:
        for report in (0.5, 0.6, 0.9):
            first.turn(Said(report))
            second.turn(Said(report / 2))
        assert heard.cost == pytest.approx(0.9 + 0.45, abs=EXACT)


def test_a_new_session_under_an_old_number_starts_at_zero() -> None:
    talk = Talk()
    with capture() as heard:
        talk.turn(Said(0.5))
        talk.new_bridge()
        talk.turn(Said(0.8))
        assert heard.cost == pytest.approx(1.3, abs=EXACT)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0])
def test_a_report_that_is_no_amount_is_none(amount: float) -> None:
    from openhands_otel.semconv import CostSource

    talk = Talk()
    with capture() as heard:
        talk.turn(Said(0.5))
        talk.turn(Said(amount))
        talk.turn(Said(0.9))
        assert heard.cost == pytest.approx(0.9, abs=EXACT)
        assert {event.source for event in heard.of(CostAdded) if event.amount > 0.1} == {CostSource.ACP_REPORTED}
