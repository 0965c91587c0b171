"""A program that spends one call, for tests of ways to start it, and what must hold when all of them have ended."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

SPENDS = """
import os
def spend():
    from openhands.sdk import LLM, Agent, LocalConversation
    llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="x", num_retries=0)
    conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", visualizer=None)
    conversation.send_message("hello")
    conversation.run()
    conversation.close()
if __name__ == "__main__":
    spend()
"""


def exit_codes(running: Mapping[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    """Of all of them, each bounded; none is left behind."""
    try:
        return {name: process.wait(500) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def settled(viewer: Viewer, llm_server: LLMServer, calls: int) -> None:
    """So many calls were billed, and the viewer has them and nothing else."""
    assert len(llm_server.bill.entries) == calls
    wait_for(lambda: viewer.state().totals.llm_calls >= calls, "the calls' arrival", 100)
    totals = viewer.state().totals
    assert totals.llm_calls == calls
    assert totals.accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9)
