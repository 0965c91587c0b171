"""Fault of the kind *what comes later overwrites what was found out*: agents of before say a result by a state."""

from __future__ import annotations

from pathlib import Path

import pytest

from otlp_sender import Sender

from .held import HeldStore

STATES: dict[str, tuple[list[str], str | None]] = {
    "failed": (["running", "error", "closed"], "error"),
    "finished": (["running", "finished", "closed"], "finished"),
    "stuck": (["running", "stuck", "closed"], "stuck"),
    "paused": (["running", "paused", "closed"], None),
    "closed in a run": (["error", "running", "closed"], None),
    "still open": (["running", "error"], "error"),
}


@pytest.mark.parametrize("case", STATES)
def test_of_an_agent_of_before_the_last_state_says_it(case: str, tmp_path: Path) -> None:
    """Which sends no outcome; and what it said is known after a restart."""
    states, expected = STATES[case]
    with HeldStore(tmp_path / "history.db") as held:
        sender = Sender("old").introduce("c").converse("c", 0.5)
        before: str | None = None
        for state in states:
            if before is not None:
                sender.state("c", before, ended=True)
            held.take(sender.state("c", state))
            before = state
        assert held.conversation("c").outcome == expected
    with HeldStore(tmp_path / "history.db") as held:
        assert held.conversation("c").outcome == expected
