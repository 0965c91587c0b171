"""How long a cost on an agent server takes to a remote viewer while a slow tool runs, beside the server's own stats.

Three processes on loopback: the collector, a real agent server under ``openhands-otel run``, and this one. It has the
scripted provider, reads the collector's stream, and has a real ``RemoteConversation`` with a callback for the server's
events. After each answer of the model a tool sleeps. Time runs from the moment at which the provider charges for the
answer (before the server has it) to the first accumulated cost that contains it; all clocks are the machine's.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from freshness import READY_S, environment, start, watch

from openhands_otel._internal.demo.answers import Answer, LLMRequest, Script, ToolCall, Usage, say
from openhands_otel._internal.demo.children import Child
from openhands_otel._internal.demo.freshness import AddedCost, Seen, freshness
from openhands_otel._internal.demo.llm_server import LLMServer

MEDIAN_AIM_S = 0.1
BEFORE_A_TOOL = Usage(input=2000, output=40)


def measure(calls: int, tool_s: float) -> tuple[list[float], list[float]]:
    """Delays of the costs behind which a tool runs: to the viewer, and by the server's own events."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        collector = start(stack, directory, "collector", "-m", "openhands_otel", "view", "--port", "0",
                          "--grpc-port", "0", "--database", ":memory:", "--ready-json")  # fmt: skip
        provider = stack.enter_context(LLMServer())
        provider.script("benchmark", script(calls, tool_s))
        host = start_server(stack, directory, collector)
        to_viewer = watch(collector, baseline=False)
        by_server = converse(host, provider.base_url("benchmark"), name)
        time.sleep(0.5)
        entries = [entry for entry in provider.bill.entries if entry.cost is not None]
    spent = [AddedCost(entry.at, entry.cost or 0.0) for entry in entries]
    delays = [freshness(spent, seen).delays for seen in (to_viewer, by_server)]
    before_tools = [number for number, entry in enumerate(entries) if entry.usage == BEFORE_A_TOOL]
    return tuple([of_one[number] for number in before_tools] for of_one in delays)  # type: ignore[return-value]


def script(calls: int, tool_s: float) -> Script:
    """The server asks for a title in between, without tools."""
    commands = [f"sleep {tool_s}; echo {number}" for number in range(calls)]

    def answer(request: LLMRequest) -> Answer:
        if not commands or not request.body.get("tools"):
            return say("Done.")
        shell = ToolCall(name="terminal", arguments={"command": commands.pop()})
        return Answer(tool_calls=(shell,), usage=BEFORE_A_TOOL, delay=0.3)

    return answer


def start_server(stack: ExitStack, directory: Path, collector: str) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "openhands_otel", "run", "--endpoint", collector, "--", sys.executable]
    command += ["-m", "openhands.agent_server", "--host", "127.0.0.1", "--port", port]
    quiet = {"OH_ENABLE_VSCODE": "false", "OH_CONVERSATIONS_PATH": str(directory / "conversations")}
    server = stack.enter_context(Child("server", command, environment(HOME=str(directory), **quiet), directory))
    deadline = time.monotonic() + READY_S
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return f"http://127.0.0.1:{port}"
        except (URLError, OSError):
            if server.exit_code is not None or time.monotonic() > deadline:
                raise server.failure("did not become healthy") from None
            time.sleep(0.1)


def converse(host: str, provider: str, workspace: str) -> list[Seen]:
    """Run the agent; returns what the server's events said it had cost, and when."""
    from openhands.sdk import LLM, Agent, Conversation, Tool, Workspace
    from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
    from openhands.tools.terminal import TerminalTool

    seen: list[Seen] = []

    def on_event(event: Any) -> None:
        if isinstance(event, ConversationStateUpdateEvent) and event.key in ("stats", "full_state"):
            stats = event.value if event.key == "stats" else event.value.get("stats") or {}
            costs = [usage["accumulated_cost"] for usage in (stats.get("usage_to_metrics") or {}).values()]
            seen.append(Seen(time.time_ns(), sum(costs)))

    llm = LLM(model="openai/gpt-4o", base_url=provider, api_key="x", usage_id="agent")
    shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
    conversation = Conversation(
        agent=Agent(llm=llm, tools=[shell]),
        workspace=Workspace(host=host, working_dir=workspace),
        callbacks=[on_event],
        visualizer=None,
    )
    conversation.send_message("hello")
    conversation.run()
    conversation.close()
    return seen


def report(name: str, delays: list[float]) -> None:
    print(f"{name:32} {len(delays):>5} {median(delays) * 1e3:>10.1f} {max(delays) * 1e3:>10.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20, help="LLM calls with a tool behind them")
    parser.add_argument("--tool-s", type=float, default=6.0, help="how long the tool takes, seconds")
    options = parser.parse_args()
    os.environ.update(environment())
    to_viewer, by_server = measure(options.calls, options.tool_s)
    print(f"{'milliseconds':32} {'costs':>5} {'median':>10} {'worst':>10}")
    report("a viewer, by openhands-otel", to_viewer)
    report("RemoteConversation, by the server", by_server)
    reached = median(to_viewer) <= MEDIAN_AIM_S
    print(f"aim: median <= {MEDIAN_AIM_S * 1e3:g}: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
