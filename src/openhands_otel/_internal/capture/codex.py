"""The model calls of a turn that Codex made and its ACP adapter does not tell of.

Codex's adapter answers a prompt with the tokens of the last call that was made for it, and a turn has as many calls as
tools ran, and one. Codex itself appends to ``$CODEX_HOME/sessions/YYYY/MM/DD/rollout-TIME-SESSION.jsonl`` after each
call what the session has used so far. Those numbers are read here, at the end of a turn, and nothing else of the file.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from openhands_otel._internal.capture.agent_program import environment_of, home_in, is_named
from openhands_otel._internal.capture.prices import AgentTokens

MOST_BYTES = 8 * 1024 * 1024
"""Of a file that are read in one go, on the agent's thread; of more, only the newest."""
MOST_OF_LINE = 64 * 1024
MOST_TOLD = 8
"""Calls that the adapter told of and the file may still say, the newest."""
MOST_TOKENS = 2**53
_HEAD = 200
"""Bytes of a line in which it says what it is; what comes later may quote."""
_USED, _TURN, _PROMPT = b'"token_count"', b'"task_started"', b'"user_message"'
"""An older Codex doesn't write the beginning of a turn, only its prompt."""


def is_codex(agent: Any) -> bool:
    """Whether this is an ACP agent whose program is Codex."""
    return is_named(agent, "codex")


def no_calls() -> deque[AgentTokens]:
    """A list of calls that the adapter told of; the oldest go."""
    return deque(maxlen=MOST_TOLD)


@dataclass(slots=True)
class CodexSession:
    """How far the file of one session has been read."""

    path: Path
    whole: bool
    """Whether all that it says from here on is to be counted; else only the last turn, if that can be told apart."""
    offset: int = 0
    used: AgentTokens | None = None
    """All that the session has used, up to there."""
    told: deque[AgentTokens] = field(default_factory=no_calls)
    """The calls that the adapter told of and the file has not said."""

    def untold(self, last: AgentTokens | None) -> list[AgentTokens] | None:
        """The calls since the last time, without those of which the adapter tells, ``last`` now; None if not known.

        Raises whatever the file makes it raise: it may be gone, or say something else than what Codex wrote when this
        was.
        """
        if last is not None:
            self.told.append(last)
        whole, calls = self.whole, self._new_calls()
        if calls is None:
            return None
        # Whose turn is the file's last one? That of which the adapter tells, or it is an older one, counted already.
        known = whole or (last is not None and any(_same(call, last) for call in calls))
        for told in tuple(self.told):
            same = next((call for call in calls if _same(call, told)), None)
            if same is not None:
                calls.remove(same)
                self.told.remove(told)
        return calls if known else None

    def _new_calls(self) -> list[AgentTokens] | None:
        known = True
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if not self._goes_on(file, size):
                self.offset, self.used, self.whole, known = 0, None, False, False
            cut = size - self.offset > MOST_BYTES
            if cut:
                known = known and not self.whole
                self.offset, self.whole = size - MOST_BYTES, False
            lines = self._lines(file, size, cut=cut)
        start = 0 if self.whole else _last_turn(lines)
        if start is None:
            start, known = len(lines), False
        self.whole = True
        before = next(filter(None, map(_usage, reversed(lines[:start]))), None)
        if before is not None:
            self.used = _tokens(before["total_token_usage"])
        # Without a total before them, the first line may say again what an older turn used.
        known = known and not (cut and self.used is None)
        calls = list(self._calls(lines[start:]))
        return calls if known else None

    def _goes_on(self, file: BinaryIO, size: int) -> bool:
        """Whether it is still the file that was read, and longer, or as long."""
        file.seek(max(0, self.offset - 1))
        return self.offset == 0 or (size >= self.offset and file.read(1) == b"\n")

    def _lines(self, file: BinaryIO, size: int, *, cut: bool) -> list[bytes]:
        """The lines up to ``size`` that matter and are written to their end; ``cut`` if the first may lack its head."""
        position, at_head, lines = file.seek(self.offset), not cut, list[bytes]()
        while position < size and (piece := file.readline(MOST_OF_LINE)):
            position += len(piece)
            ended = piece.endswith(b"\n")
            if at_head and ended and any(mark in piece[:_HEAD] for mark in (_USED, _TURN, _PROMPT)):
                lines.append(piece)
            elif at_head and _PROMPT in piece[:_HEAD]:
                # A long one, with an image: only that it is there matters.
                lines.append(piece[:_HEAD])
            at_head = ended
            if ended:
                self.offset = position
        return lines

    def _calls(self, lines: list[bytes]) -> Iterator[AgentTokens]:
        for said in filter(None, map(_usage, lines)):
            total, before = _tokens(said["total_token_usage"]), self.used
            self.used = total
            # It is said again when nothing was used, as with a new limit of the account; and Codex sets it to zero when
            # the context was too long for the model.
            goes_on = before is not None and sum(astuple(total)) >= sum(astuple(before))
            call = _difference(total, before) if before and goes_on else _tokens(said["last_token_usage"])
            if total != before and any(astuple(call)):
                yield call


def _last_turn(lines: list[bytes]) -> int | None:
    """Where the last turn begins; None if nothing says so."""
    for mark in (_TURN, _PROMPT):
        starts = [number for number, line in enumerate(lines) if mark in line[:_HEAD]]
        if starts:
            return starts[-1]
    return None


def _usage(line: bytes) -> dict[str, Any] | None:
    """What a line says was used; None if that is nothing."""
    if _USED not in line[:_HEAD]:
        return None
    payload: dict[str, Any] = json.loads(line).get("payload") or {}
    return (payload.get("info") or None) if payload.get("type") == "token_count" else None


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
    sessions = _home(agent) / "sessions"
    for days in (0, -1, 1):
        folder = sessions / f"{began + timedelta(days=days):%Y/%m/%d}"
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
    tokens = AgentTokens(
        input=max(0, int(said["input_tokens"]) - cached - written),
        output=int(said["output_tokens"]),
        cache_read=cached,
        cache_write=written,
        reasoning=int(said.get("reasoning_output_tokens") or 0),
    )
    if not all(0 <= count < MOST_TOKENS for count in astuple(tokens)):
        raise ValueError("no number of tokens")
    return tokens


def _same(call: AgentTokens, told: AgentTokens) -> bool:
    """The adapter counts what is written to a cache as other input."""
    return (call.input + call.cache_write, call.output, call.cache_read) == (
        told.input + told.cache_write,
        told.output,
        told.cache_read,
    )


def _difference(total: AgentTokens, before: AgentTokens) -> AgentTokens:
    return AgentTokens(*(max(0, now - then) for now, then in zip(astuple(total), astuple(before), strict=True)))
