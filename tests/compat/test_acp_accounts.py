"""The account of an ACP session, against a model that knows the truth: real agents, but for their processes, that
record whatever sequence of reports, estimates, falls, currencies, restarts and resumes comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from codex_rollout import SESSION, Rollout, call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openhands_otel._internal.capture.prices import AgentTokens, price_of_tokens
from openhands_otel.events import CostAdded, ResponseRecorded, TokensUsed
from openhands_otel.testing import Captured, capture

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

    def __init__(self, model: str = MODEL) -> None:
        agent = needs(ACP_AGENT, "ACPAgent")
        needs(ACP_AGENT, "ACPAgent._record_usage")
        given = {"acp_command": ["true"], "acp_model": model}
        self.agent = agent(**{name: value for name, value in given.items() if name in agent.model_fields})
        self.new_bridge()

    def new_bridge(self) -> None:
        self.agent._client = needs(ACP_AGENT, "_OpenHandsACPBridge")()

    def turn(self, said: Said, session: str = "s1") -> None:
        self.record(AgentTokens(100, 10, 0, 0) if said.tokens else None, said, session)

    def record(self, tokens: AgentTokens | None, said: Said, session: str) -> None:
        """The tokens are these instead of those of ``said``."""
        from acp.schema import Cost, PromptResponse, Usage, UsageUpdate

        usage = tokens and Usage(
            total_tokens=tokens.input + tokens.output + tokens.cache_read,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cached_read_tokens=tokens.cache_read,
        )
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


class CodexTalk(Talk):
    """A session of Codex, whose file is ``rollout``."""

    def __init__(self, rollout: Rollout, monkeypatch: pytest.MonkeyPatch, model: str = MODEL) -> None:
        super().__init__(model)
        if getattr(self.agent, "acp_model", None) is None:
            pytest.skip("this release of OpenHands knows no model of an ACP session")
        monkeypatch.setenv("CODEX_HOME", str(rollout.folder))
        self.rollout = rollout
        self.agent._agent_name = "@agentclientprotocol/codex-acp"
        self.agent._session_id = SESSION

    def calls(self, *calls: AgentTokens) -> None:
        """A turn with these calls."""
        self.rollout.turn()
        for each in calls:
            self.rollout.called(each)
        self.told(calls[-1])

    def told(self, last: AgentTokens | None, report: float | None = None, currency: str = "USD") -> None:
        """OpenHands records what the adapter answers."""
        self.record(last, Said(report, currency), SESSION)


def bill(*calls: AgentTokens) -> float:
    return sum(price_of_tokens(MODEL, each) or 0.0 for each in calls)


def priced(heard: Captured) -> list[bool]:
    return [event.priced for event in heard.of(ResponseRecorded)]


@pytest.fixture
def codex_talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodexTalk:
    return CodexTalk(Rollout(tmp_path / "codex"), monkeypatch)


def test_what_codex_wrote_is_counted_once_whoever_has_forgotten_the_session(codex_talk: CodexTalk) -> None:
    """Kind: a session without an account here that is not new: detached and attached, evicted, under another key."""
    first, second = [call(1), call(2)], [call(3), call(4), call(5)]
    with capture() as heard:
        codex_talk.calls(*first)
        assert heard.cost == pytest.approx(bill(*first), abs=EXACT)
    with capture() as again:
        codex_talk.calls(*second)
        assert again.cost == pytest.approx(bill(*second), abs=EXACT)
        assert sum(event.output for event in again.of(TokensUsed)) == sum(each.output for each in second)
        assert priced(heard) + priced(again) == [True, True]


def test_after_a_file_that_was_not_there_nothing_is_counted_twice(codex_talk: CodexTalk) -> None:
    first, second = [call(1), call(2)], [call(3), call(4)]
    with capture() as heard:
        codex_talk.calls(*first[:-1])
        away = codex_talk.rollout.path.rename(codex_talk.rollout.folder / "away")
        codex_talk.told(first[-1])
        away.rename(codex_talk.rollout.path)
        codex_talk.rollout.called(first[-1])
        codex_talk.calls(*second)
        assert priced(heard) == [True, False, True]
        assert heard.cost == pytest.approx(bill(*first, *second), abs=EXACT)


USED = '{"type":"event_msg","payload":{"type":"token_count","info":%s}}\n'
TOTALS = '{"total_token_usage":{"input_tokens":%s,"output_tokens":1},"last_token_usage":{}}'


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(None, id="no file"),
        pytest.param(USED % (TOTALS % "1e999"), id="infinite"),
        pytest.param(USED % (TOTALS % "-5"), id="negative"),
        pytest.param(USED % (TOTALS % 10**20), id="more than a counter holds"),
        pytest.param(USED % ("[" * 20_000 + "]" * 20_000), id="nested"),
        pytest.param(USED % "[1]", id="a list"),
        pytest.param(USED % "}", id="no JSON"),
    ],
)
def test_whatever_the_file_says_a_turn_is_recorded_and_unpriced_or_its_report_counts(
    codex_talk: CodexTalk, written: str | None
) -> None:
    if written is not None:
        codex_talk.rollout.turn()
        codex_talk.rollout.path.write_text(written)
    with capture() as heard:
        codex_talk.told(call(1))
        codex_talk.told(None)
        assert priced(heard) == [False, False]
        assert heard.cost == pytest.approx(bill(call(1)), abs=EXACT)
        codex_talk.told(call(2), report=0.5)
        assert heard.cost == pytest.approx(0.5, abs=EXACT)
        assert priced(heard) == [False, False, True]


@pytest.mark.parametrize("name", ["codex-acp", "claude-agent-acp"])
def test_no_home_costs_no_turn(codex_talk: CodexTalk, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    for variable in ("HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(variable, raising=False)
    codex_talk.agent._agent_name = name
    with capture() as heard:
        codex_talk.told(call(1), report=0.5)
        assert heard.cost == pytest.approx(0.5, abs=EXACT)
        assert priced(heard) == [True]


def test_calls_that_nobody_prices_leave_a_turn_unpriced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: a part of a turn that has a price taken for the whole, or none of it for nothing."""
    talk = CodexTalk(Rollout(tmp_path / "codex"), monkeypatch, "nobody-knows-it")
    estimate = "_estimate_cost_from_tokens"
    needs(ACP_AGENT, estimate)
    with capture() as heard:
        talk.rollout.turn()
        talk.rollout.called(call(1))
        talk.told(None)
        # As with a price that OpenHands alone knows.
        monkeypatch.setattr(f"{ACP_AGENT}.{estimate}", lambda *_: 0.25)
        talk.calls(call(2), call(3))
        talk.calls(call(4))
        assert priced(heard) == [False, False, True]
        assert heard.cost == pytest.approx(0.5, abs=EXACT)


def test_euros_without_tokens_are_unpriced(codex_talk: CodexTalk) -> None:
    codex_talk.agent._agent_name = "another"
    with capture() as heard:
        codex_talk.told(None, report=0.5, currency="EUR")
        codex_talk.told(None)
        assert heard.cost == 0
        assert priced(heard) == [False]
