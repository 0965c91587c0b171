"""The runs of a conversation, as its status tells them: which one money belongs to, and how each ended.

A run begins when a process says that the conversation runs, and ends when that process says something else, or another
takes the conversation up. A run that is over when it is heard of is told by an agent's calls outside of any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from openhands_otel.semconv import Status


@dataclass(frozen=True, slots=True)
class Run:
    """One run; times are unix seconds by its process's clock."""

    conversation: str
    number: int
    begun: float
    ended: float | None = None
    outcome: str | None = None
    error: str | None = None
    tool_calls: int = 0

    @property
    def id(self) -> str:
        """What it is called in reports."""
        return f"{self.conversation}#{self.number}"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a conversation says of itself at one time."""

    status: str | None
    process: str
    at: float
    since: float
    """When its process first spoke of it; where that is nothing new (``Runs.is_new``), 0."""
    outcome: str | None
    error: str | None


class Runs:
    """The newest run of one conversation."""

    __slots__ = ("_changed", "_conversation", "_process", "last")

    def __init__(self, conversation: str) -> None:
        self._conversation = conversation
        self._process = ""
        self.last: Run | None = None
        self._changed: dict[int, Run] = {}

    def is_new(self, process: str) -> bool:
        """Whether the newest run is not this process's."""
        return process != self._process

    def begin(self, now: Moment, agent_called: bool, tool_calls: int = 0) -> str:
        """A request has come; returns the id of the run that what it tells of belongs to, or nothing.

        ``agent_called``: an agent's own calls are in it, which there are in runs alone; ``tool_calls``: so many tools
        have been called since the last.
        """
        open_run = self.last if self.last is not None and self.last.ended is None else None
        if open_run is not None and self.is_new(now.process):
            # Its process left it without a word.
            self._keep(replace(open_run, ended=open_run.begun if now.at < open_run.begun else now.since))
            open_run = None
        is_over = now.status != Status.RUNNING and now.outcome is not None
        heard_late = is_over and (self.last is None or agent_called)
        if open_run is None and (now.status == Status.RUNNING or heard_late):
            number = 1 if self.last is None else self.last.number + 1
            self._process = now.process
            open_run = self._keep(Run(self._conversation, number, self._least(now) if heard_late else now.at))
        if open_run is not None and tool_calls:
            open_run = self._keep(replace(open_run, tool_calls=open_run.tool_calls + tool_calls))
        return "" if open_run is None else open_run.id

    def _least(self, now: Moment) -> float:
        """When a run began at the earliest that was over when it was heard of."""
        return now.since if self.last is None or self.last.ended is None else self.last.ended

    def end(self, now: Moment) -> None:
        """All that the request tells is booked; does it end the run?"""
        if self.last is not None and self.last.ended is None and now.status not in (None, Status.RUNNING):
            self._keep(replace(self.last, ended=now.at, outcome=now.outcome, error=now.error))

    def _keep(self, run: Run) -> Run:
        self.last = self._changed[run.number] = run
        return run

    def forget(self, process: str) -> None:
        """Nobody knows whose the newest run is any more, if it was this process's."""
        if self._process == process:
            self._process = ""

    def changed(self) -> list[Run]:
        """Those that changed since this was asked last."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def put_back(self, runs: list[Run]) -> None:
        """They could not be written."""
        self._changed = {run.number: run for run in runs} | self._changed

    def record(self) -> list[Any] | None:
        """What the archive keeps."""
        run = self.last
        return run and [self._process, run.number, run.begun, run.ended, run.outcome, run.error, run.tool_calls]

    def restore(self, record: list[Any] | None) -> None:
        """The opposite."""
        if record:
            self._process, *fields = record
            self.last = Run(self._conversation, *fields)
