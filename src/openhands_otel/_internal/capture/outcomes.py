"""Maps the end of a tool call or a run to one of a few outcomes."""

from __future__ import annotations

import asyncio
from typing import Any

from openhands_otel.semconv import RunOutcome, Status, ToolOutcome

_LIMITS = {"MaxBudgetReached": RunOutcome.BUDGET, "MaxIterationsReached": RunOutcome.ITERATIONS}
_STATES = {
    Status.FINISHED: RunOutcome.FINISHED,
    Status.ERROR: RunOutcome.ERROR,
    Status.STUCK: RunOutcome.STUCK,
    Status.PAUSED: RunOutcome.PAUSED,
    Status.WAITING: RunOutcome.WAITING,
}


def outcome_of_run(status: Status, code: str | None) -> RunOutcome:
    """From the state that a run left its conversation in, and the code of its last error event.

    A run that ends idle or running was ended from outside (releases before the limits had states of their own).
    """
    if code in _LIMITS:
        return _LIMITS[code]
    return _STATES.get(status, RunOutcome.ERROR if code else RunOutcome.PAUSED)


def outcome_of_tool(result: Any, error: BaseException | None) -> ToolOutcome:
    """From what ``Agent._execute_action_event`` returned (an event, or a list of them) or raised."""
    if error is not None:
        cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        return ToolOutcome.CANCELLED if cancelled else ToolOutcome.EXCEPTION
    events: list[Any] = list(result) if isinstance(result, list | tuple) else [result]  # pyright: ignore[reportUnknownArgumentType]
    if any(type(event).__name__ == "AgentErrorEvent" for event in events):
        return ToolOutcome.EXCEPTION
    if any(getattr(getattr(event, "observation", None), "is_error", False) for event in events):
        return ToolOutcome.TOOL_ERROR
    return ToolOutcome.OK
