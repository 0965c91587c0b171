"""The viewer's own wall clock is set while agents run: by Debian's faketime, to a real viewer and a real pipeline.

Kind: a wall clock that is taken for the order of things, here on the side that receives.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from telemetry.pipes import call, opened, origin, pipeline, put, run_started
from viewer_process import Viewer, start_viewer, wait_for

import faketime

STEPS = ("-1d", "+0", "+1d", "-1h", "+400d", "+0")
COST = 0.25


def test_money_status_and_rate_hold_whatever_the_viewers_clock_does(tmp_path: Path) -> None:
    """Spent a day ahead, by its clock, it stood in "the last five minutes" for a day; spent a day behind, in none."""
    if faketime.LIBRARY is None:
        pytest.skip("faketime is not installed (apt-get install faketime)")
    clock, database = tmp_path / "clock", tmp_path / "history.sqlite3"
    settings = {"LD_PRELOAD": faketime.LIBRARY, "FAKETIME_DONT_FAKE_MONOTONIC": 1, "FAKETIME_NO_CACHE": 1}
    settings |= {"NO_FAKE_STAT": 1, "FAKETIME_TIMESTAMP_FILE": clock}
    wrapper = ["env", *(f"{name}={value}" for name, value in settings.items())]

    def start(step: str, port: int = 0) -> Viewer:
        clock.write_text(step)
        return start_viewer(database=database, wrapper=wrapper, port=port)

    viewer, spent, before = start(STEPS[0]), 0.0, 0.0
    try:
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}) as agent:
            put(agent, opened("c"), run_started("c"))
            for number, step in enumerate((*STEPS, *STEPS)):
                clock.write_text(step)
                put(agent, *call(origin("c"), COST))
                spent += COST
                assert agent.flush(50)
                state = viewer.state()
                assert state.totals.accumulated_cost == spent, step
                burnt = state.totals.burn.per_minute * state.totals.burn.window_s / 60
                assert spent - before - 1e-9 <= burnt <= spent + 1e-9, step
                [conversation] = state.conversations
                assert (conversation.status, conversation.stale, conversation.gone) == ("running", False, False), step
                assert viewer.http.get("/healthz").status_code == 200, step
                if number % 4 == 1:
                    viewer.process.kill()
                    viewer.process.wait()
                    viewer = start(STEPS[-1 - number % 5], int(viewer.url.rpartition(":")[2]))
                    assert viewer.state().totals.accumulated_cost == spent
                    # The rate is of what this run of the viewer has seen, and of what the journal told it again.
                    before = spent
                    wait_for(lambda: agent.flush(1), "the way to the new viewer")
    finally:
        viewer.process.kill()
        viewer.process.wait()
