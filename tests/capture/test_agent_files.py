"""What is read of the files that an ACP agent's program writes: the calls of Codex, the model of Claude Code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from codex_rollout import SESSION, Rollout, call, said

from openhands_otel._internal.capture import claude, codex
from openhands_otel._internal.capture.prices import AgentTokens


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    return Rollout(tmp_path / "codex")


def as_told(tokens: AgentTokens) -> AgentTokens:
    """As the adapter says it."""
    usage = SimpleNamespace(
        input_tokens=tokens.input, output_tokens=tokens.output, cached_read_tokens=tokens.cache_read
    )
    told = codex.told_by(SimpleNamespace(usage=usage))
    assert told is not None
    return told


def test_all_calls_of_a_turn_but_the_last_are_untold(rollout: Rollout) -> None:
    rollout.turn()
    for number in range(3):
        rollout.called(call(number))
    session = rollout.session()
    assert session.untold(as_told(call(2))) == [call(0), call(1)]
    rollout.turn()
    rollout.called(call(3))
    assert session.untold(as_told(call(3))) == []


def test_what_is_said_again_is_no_call(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    rollout.write(
        "token_count", info={"total_token_usage": said(rollout.total), "last_token_usage": said([9, 0, 9, 0])}
    )
    rollout.write("token_count", info=None)
    rollout.called(call(1))
    assert rollout.session().untold(as_told(call(1))) == [call(0)]


def test_the_last_call_may_come_into_the_file_later(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    session = rollout.session()
    assert session.untold(as_told(call(1))) == [call(0)]
    rollout.called(call(1))
    rollout.turn()
    rollout.called(call(2))
    rollout.called(call(3))
    assert session.untold(as_told(call(3))) == [call(2)]


def test_a_line_that_is_half_written_is_read_when_it_is_whole(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    whole = rollout.path.read_bytes()
    rollout.path.write_bytes(whole[:-20])
    session = rollout.session()
    assert session.untold(None) == []
    rollout.path.write_bytes(whole)
    assert session.untold(None) == [call(0)]


def test_a_turn_that_failed_is_counted_with_the_next(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    session = rollout.session()
    assert session.untold(as_told(call(0))) == []
    rollout.turn()
    rollout.called(call(1))
    rollout.turn()
    rollout.called(call(2))
    assert session.untold(as_told(call(2))) == [call(1)]


def test_what_was_before_a_session_was_resumed_here_is_not_counted(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    rollout.turn()
    rollout.called(call(1))
    rollout.called(call(2))
    assert rollout.session(whole=False).untold(as_told(call(2))) == [call(1)]


def test_a_fork_goes_on_from_a_total_that_its_file_does_not_explain(rollout: Rollout) -> None:
    rollout.total = [5000, 4000, 900, 100]
    rollout.turn()
    rollout.called(call(0))
    rollout.called(call(1))
    assert rollout.session(whole=False).untold(as_told(call(1))) == [call(0)]


def test_calls_that_come_into_the_file_late_are_told_once_however_many(rollout: Rollout) -> None:
    rollout.turn()
    rollout.called(call(0))
    session = rollout.session()
    assert session.untold(as_told(call(2))) == [call(0)]
    assert session.untold(as_told(call(4))) == []
    for number in range(1, 6):
        rollout.called(call(number))
    assert session.untold(as_told(call(5))) == [call(1), call(3)]


@pytest.mark.parametrize("long", [False, True])
def test_an_older_codex_writes_a_prompt_where_a_turn_begins(rollout: Rollout, long: bool) -> None:
    """Kind: a turn whose beginning the file tells in another way, or not at all."""
    for number in range(0, 4, 2):
        rollout.write("user_message", message="x" * (codex.MOST_OF_LINE + 1 if long else 1))
        rollout.write("agent_message", message='"task_started" "user_message"')
        rollout.called(call(number))
        rollout.called(call(number + 1))
    assert rollout.session(whole=False).untold(as_told(call(3))) == [call(2)]


def test_a_turn_that_cannot_be_told_from_older_ones_is_not_known_and_the_next_is(rollout: Rollout) -> None:
    for number in range(3):
        rollout.called(call(number))
    session = rollout.session(whole=False)
    assert session.untold(as_told(call(2))) is None
    rollout.called(call(3))
    rollout.called(call(4))
    assert session.untold(as_told(call(4))) == [call(3)]


@pytest.mark.parametrize("last", [None, as_told(call(2))], ids=["nothing told", "another call told"])
def test_the_last_turn_of_a_file_is_not_this_one_unless_the_adapters_call_is_in_it(
    rollout: Rollout, last: AgentTokens | None
) -> None:
    rollout.turn()
    rollout.called(call(0))
    rollout.called(call(1))
    session = rollout.session(whole=False)
    assert session.untold(last) is None
    rollout.turn()
    rollout.called(call(2))
    rollout.called(call(3))
    assert session.untold(as_told(call(3))) == ([call(2)] if last is None else [])


@pytest.mark.parametrize("longer", [False, True])
def test_a_file_that_is_another_now_leaves_one_turn_unknown(rollout: Rollout, longer: bool) -> None:
    rollout.turn()
    rollout.called(call(0))
    session = rollout.session()
    assert session.untold(as_told(call(0))) == []
    rollout.path.unlink()
    rollout.total = [0, 0, 0, 0]
    if longer:
        rollout.write("agent_message", message="x" * 5000)
    rollout.called(call(1))
    assert session.untold(as_told(call(1))) is None
    rollout.turn()
    rollout.called(call(2))
    rollout.called(call(3))
    assert session.untold(as_told(call(3))) == [call(2)]


def test_a_total_that_starts_again_at_zero_costs_nothing(rollout: Rollout) -> None:
    """As Codex has it when the context was too long for the model."""
    rollout.turn()
    rollout.called(call(0))
    zero = said([0, 0, 0, 0])
    rollout.total = [0, 0, 0, 0]
    rollout.write("token_count", info={"total_token_usage": zero, "last_token_usage": zero})
    rollout.called(call(1))
    rollout.called(call(2))
    assert rollout.session().untold(as_told(call(2))) == [call(0), call(1)]


def test_of_a_long_file_no_more_is_read_than_the_newest(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: what is left out is never taken for nothing."""
    monkeypatch.setattr(codex, "MOST_BYTES", 4000)

    def talk() -> None:
        rollout.write("agent_message", message="x" * 5000)

    rollout.turn()
    rollout.called(call(0))
    talk()
    rollout.called(call(1))
    session = rollout.session()
    assert session.untold(as_told(call(1))) is None
    rollout.turn()
    rollout.called(call(2))
    rollout.called(call(3))
    assert session.untold(as_told(call(3))) == [call(2)]
    # Resumed: the beginning of its turn is near, but not what was used before it, which may be said again.
    talk()
    rollout.turn()
    rollout.called(call(4))
    assert rollout.session(whole=False).untold(as_told(call(4))) is None
    rollout.turn()
    rollout.called(call(5))
    rollout.called(call(6))
    assert rollout.session(whole=False).untold(as_told(call(6))) == [call(5)]


def test_the_file_is_found_where_the_program_keeps_it(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout.turn()
    monkeypatch.setenv("CODEX_HOME", str(rollout.folder))
    agent = SimpleNamespace(_agent_name="@agentclientprotocol/codex-acp")
    assert codex.is_codex(agent)
    found = codex.session_of(agent, SESSION, whole=True)
    assert found is not None
    assert found.path == rollout.path
    assert codex.session_of(agent, "../../etc", whole=True) is None
    assert codex.session_of(agent, SESSION.replace("a712b", "a712c"), whole=True) is None


@pytest.mark.parametrize(
    ("menu", "lines", "model"),
    [
        pytest.param("sonnet", ["claude-sonnet-5"], "claude-sonnet-5", id="a name of its menu"),
        pytest.param(None, ["claude-opus-5", "claude-haiku-4-5"], "claude-haiku-4-5", id="the newest"),
        pytest.param("default", ["claude-opus-5", "<synthetic>"], "claude-opus-5", id="no model at all"),
        pytest.param("claude-sonnet-5", ["claude-opus-5"], None, id="named in full"),
        pytest.param("default", [], None, id="nothing said"),
    ],
)
def test_the_model_of_claude_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, menu: str | None, lines: list[str], model: str | None
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    agent = SimpleNamespace(_agent_name="@agentclientprotocol/claude-agent-acp", current_model_id=menu)
    assert claude.model_of(agent, SESSION) is None
    file = tmp_path / "projects" / "-work" / f"{SESSION}.jsonl"
    file.parent.mkdir(parents=True)
    quoted = {"type": "user", "message": {"role": "user", "content": '"model":"claude-quoted"'}}
    answers = [{"message": {"role": "assistant", "model": name, "content": []}, "type": "assistant"} for name in lines]
    file.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in (*answers, quoted)))
    assert claude.model_of(agent, SESSION) == model
    assert claude.model_of(agent, "*") is None
    assert claude.model_of(SimpleNamespace(_agent_name="other", current_model_id=menu), SESSION) is None
