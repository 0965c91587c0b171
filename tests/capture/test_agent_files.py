"""What is read of the files that an ACP agent's program writes: the calls of Codex, the model of Claude Code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openhands_otel._internal.capture import claude, codex
from openhands_otel._internal.capture.prices import AgentTokens

SESSION = "01a21d63-ce1e-7dd0-b66c-3cf9218a712b"
DAY = "2026/11/27"


def call(number: int) -> AgentTokens:
    """One of a kind."""
    return AgentTokens(input=100 + number, output=10 + number, cache_read=40 * number, cache_write=0, reasoning=number)


@dataclass
class Rollout:
    """The file as Codex writes it."""

    folder: Path
    total: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    @property
    def path(self) -> Path:
        return self.folder / "sessions" / DAY / f"rollout-2026-11-27T14-23-29-{SESSION}.jsonl"

    def write(self, kind: str, **payload: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            line = {"timestamp": "2026-11-27T14:23:36.909Z", "type": "event_msg", "payload": {"type": kind, **payload}}
            print(json.dumps(line, separators=(",", ":")), file=file)

    def turn(self) -> None:
        self.write("task_started")

    def called(self, tokens: AgentTokens) -> None:
        counts = [tokens.input + tokens.cache_read, tokens.cache_read, tokens.output, tokens.reasoning]
        self.total = [before + now for before, now in zip(self.total, counts, strict=True)]
        self.write("token_count", info={"total_token_usage": said(self.total), "last_token_usage": said(counts)})

    def session(self, *, whole: bool = True) -> codex.CodexSession:
        return codex.CodexSession(self.path, whole)


def said(counts: list[int]) -> dict[str, int]:
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    return dict(zip(names, counts, strict=True))


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
