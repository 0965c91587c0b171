"""A real agent under ``openhands-otel run`` that does all there is to show and then waits for its last answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.native.stack import Stack
from openhands_otel._internal.demo.answers import Answer, LLMRequest, ToolCall, Usage
from openhands_otel._internal.demo.llm_server import LLMServer

from .prometheus_api import wait

HERE = Path(__file__).parent
HEARTBEAT_S = 1
PATIENCE_S = 240.0


def said(text: str = "Done.", **more: Any) -> Answer:
    return Answer(text=text, usage=Usage(input=60_000, output=50, cached=40_000), **more)


def called(tool: str, **arguments: Any) -> Answer:
    call = ToolCall(name=tool, arguments=arguments)
    return Answer(tool_calls=(call,), usage=Usage(input=50_000, output=40, cached=30_000, reasoning=10))


def script_everything(server: LLMServer) -> None:
    """What ``programs/working_agent.py`` is answered."""
    steps = [
        Answer(status=500, text="try again"),
        called("terminal", command="echo hello"),
        called("terminal", command="false"),
        *(called("think", thought=f"thought {number}") for number in range(6)),
        called("task", prompt="do it", subagent_type="helper", description="a task"),
        said(),
    ]

    def main(request: LLMRequest) -> Answer:
        return steps[request.turn] if request.turn < len(steps) else said(delay=600)

    server.script("main", main)
    server.script("child", lambda request: said("I am the child."))
    server.script("summary", lambda request: said("A summary."))
    server.script("streamed", lambda request: said("a longer answer in many words " * 5, stream_time=0.5))
    server.script("unpriced", lambda request: said())
    server.script("refused", lambda request: Answer(status=400, text="no"))
    server.script("asking", lambda request: said() if request.turn else called("consult", question="q"))


@contextmanager
def agent_at_work(
    stack: Stack, server: LLMServer, folder: Path, waits: Callable[[], bool], **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The agent, once ``waits`` says that it is waiting for its last answer; it is killed in the end."""
    script_everything(server)
    command = [str(Path(sys.executable).with_name("openhands-otel")), "run"]
    command += ["--endpoint", stack.otlp_url, "--token-file", str(stack.token_file), "--service-name", "worker", "--"]
    command += [sys.executable, str(HERE / "programs" / "working_agent.py"), server.url, str(folder)]
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parent),
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=crew",
        "OPENHANDS_OTEL_TRACES": "own",
        # What agents say of themselves, they say with the heartbeat.
        "OPENHANDS_OTEL_HEARTBEAT_S": f"{HEARTBEAT_S}",
    }
    log = folder / "agent.log"
    with log.open("wb") as output:
        agent = subprocess.Popen(command, env=environment | environ, cwd=folder, stdout=output, stderr=output)

    def is_there() -> bool:
        assert agent.poll() is None, log.read_text()[-2000:]
        return server.provider.requests > 0 and waits()

    try:
        assert wait(is_there, bool, PATIENCE_S), log.read_text()[-2000:]
        yield agent
    finally:
        agent.kill()
        agent.wait()
