"""The file that Codex writes of a session, for tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openhands_otel._internal.capture import codex
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
