"""The model calls of a turn that Codex made and its ACP adapter does not tell of.

Codex's adapter answers a prompt with the tokens of the last call that was made for it, and a turn has as many calls as
tools ran, and one. Codex itself appends to ``$CODEX_HOME/sessions/YYYY/MM/DD/rollout-TIME-SESSION.jsonl`` after each
call what the session has used so far. Those numbers are read here, at the end of a turn, and nothing else of the file.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from openhands_otel._internal.capture.agent_program import environment_of, home_in, is_named
from openhands_otel._internal.capture.prices import AgentTokens

MOST_BYTES = 64 * 1024 * 1024
"""Of a file that are read in one go; of more, only the newest."""
_USED, _TURN = b'"token_count"', b'"task_started"'


def is_codex(agent: Any) -> bool:
    """Whether this is an ACP agent whose program is Codex."""
    return is_named(agent, "codex")


@dataclass(slots=True)
class CodexSession:
    """How far the file of one session has been read."""

    path: Path
    whole: bool
    """Whether all that it says was spent in this process; else what was before the last turn was not."""
    offset: int = 0
    used: AgentTokens | None = None
    """All that the session has used, up to there."""
    told: AgentTokens | None = None
    """The call that the adapter told of before the file did."""

    def untold(self, last: AgentTokens | None) -> list[AgentTokens]:
        """The calls since the last time, without ``last``, of which the adapter tells.

        Raises OSError where the file cannot be read, and ValueError, LookupError, TypeError or AttributeError where it
        says something else than what Codex wrote when this was.
        """
        calls = list(self._new_calls())
        if calls and self.told is not None:
            # It can only be the first that the file had not said then.
            calls, self.told = calls[_same(calls[0], self.told) :], None
        if last is not None:
            if calls and _same(calls[-1], last):
                calls.pop()
            else:
                self.told = last
        return calls

    def _new_calls(self) -> Iterator[AgentTokens]:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size - self.offset > MOST_BYTES:
                self.offset, self.whole = size - MOST_BYTES, False
            file.seek(self.offset)
            text, newline, _ = file.read(MOST_BYTES).rpartition(b"\n")
        self.offset += len(text) + len(newline)
        lines = text.splitlines()
        if not self.whole:
            starts = [number for number, line in enumerate(lines) if _TURN in line]
            before, lines = (lines[: starts[-1]], lines[starts[-1] :]) if starts else ([], lines)
            for _ in self._calls(before):
                continue
            self.whole = True
        yield from self._calls(lines)

    def _calls(self, lines: list[bytes]) -> Iterator[AgentTokens]:
        for line in lines:
            if _USED not in line:
                continue
            payload: dict[str, Any] = json.loads(line).get("payload") or {}
            said: dict[str, Any] | None = payload.get("info") if payload.get("type") == "token_count" else None
            if not said:
                continue
            total, before = _tokens(said["total_token_usage"]), self.used
            self.used = total
            # It is said again when nothing was used, as with a new limit of the account.
            call = _tokens(said["last_token_usage"]) if before is None else _difference(total, before)
            if total != before and any(astuple(call)):
                yield call


def told_by(response: Any) -> AgentTokens | None:
    """The call that the adapter's answer to a prompt tells of."""
    usage = getattr(response, "usage", None)
    if usage is None:
        return None
    return AgentTokens(usage.input_tokens, usage.output_tokens, usage.cached_read_tokens or 0, 0)


def session_of(agent: Any, session_id: str, *, whole: bool) -> CodexSession | None:
    """Where Codex writes this session; None if that is not found."""
    try:
        # The time is in the id; the folder's date is in the time zone that Codex takes for the local one.
        began = datetime.fromtimestamp((uuid.UUID(session_id).int >> 80) / 1000)
    except (ValueError, OverflowError, OSError):
        return None
    for days in (0, -1, 1):
        folder = _home(agent) / "sessions" / f"{began + timedelta(days=days):%Y/%m/%d}"
        found = next(folder.glob(f"rollout-*-{session_id}.jsonl"), None)
        if found is not None:
            return CodexSession(found, whole)
    return None


def _home(agent: Any) -> Path:
    """OpenHands may give each conversation a folder of its own."""
    variables = environment_of(agent)
    home = variables.get("CODEX_HOME")
    return Path(home) if home else home_in(variables) / ".codex"


def _tokens(said: Mapping[str, Any]) -> AgentTokens:
    """Codex counts cached tokens inside the input, as OpenAI does."""
    cached, written = int(said.get("cached_input_tokens") or 0), int(said.get("cache_write_input_tokens") or 0)
    return AgentTokens(
        input=max(0, int(said["input_tokens"]) - cached - written),
        output=int(said["output_tokens"]),
        cache_read=cached,
        cache_write=written,
        reasoning=int(said.get("reasoning_output_tokens") or 0),
    )


def _same(call: AgentTokens, told: AgentTokens) -> bool:
    """The adapter counts what is written to a cache as other input."""
    return (call.input + call.cache_write, call.output, call.cache_read) == (
        told.input + told.cache_write,
        told.output,
        told.cache_read,
    )


def _difference(total: AgentTokens, before: AgentTokens) -> AgentTokens:
    return AgentTokens(*(max(0, now - then) for now, then in zip(astuple(total), astuple(before), strict=True)))
