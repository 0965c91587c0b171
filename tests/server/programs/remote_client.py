"""The client's side of a remote conversation, in a process of its own, with whatever release of OpenHands is installed.

Orders come as JSON lines on standard input, each is answered by one JSON line: {"result": ...} or {"error": ...}.
A run is watched from another thread: what ``RemoteConversation`` itself says that it has spent.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openhands_otel import OpenHandsInstrumentor

if "WITH_OUR_INSTRUMENTATION" in os.environ:
    OpenHandsInstrumentor().instrument()

from openhands.sdk import LLM, Agent, Conversation, Tool, Workspace
from openhands.sdk.conversation.impl import remote_conversation
from openhands.sdk.conversation.impl.remote_conversation import RemoteConversation

ENDS = {"finished", "error", "stuck", "paused"}
LOOK_S = 0.02
RUN_S = 90


class Client:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._conversations: dict[str, RemoteConversation] = {}

    def open(self, host: str, provider: str, tools: Sequence[str] = (), **options: Any) -> str:
        """A conversation on the server at ``host``; ``tools`` are names in ``openhands.tools``."""
        agent = Agent(llm=llm(provider), tools=[tool(name) for name in tools])
        workspace = Workspace(host=host, working_dir=self._directory)
        conversation = Conversation(agent=agent, workspace=workspace, visualizer=None, **options)
        assert isinstance(conversation, RemoteConversation)
        self._conversations[str(conversation.id)] = conversation
        return str(conversation.id)

    def run(self, conversation: str, text: str, touch: str = "", above: float = 0.0) -> list[float]:
        """What it says that it has cost, from before the run until after its end; touches a file once that is above."""
        remote = self._conversations[conversation]
        remote.send_message(text)
        seen: list[float] = []
        ended = threading.Event()

        def watch() -> None:
            while True:
                over = ended.is_set()
                seen.append(spent(remote))
                if touch and seen[-1] > above:
                    Path(touch).touch()
                if over:
                    return
                time.sleep(LOOK_S)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            remote.run()
            # Up to 1.1 it comes back at once.
            deadline = time.monotonic() + RUN_S
            while status(remote) not in ENDS:
                assert time.monotonic() < deadline, f"still {status(remote)}"
                time.sleep(LOOK_S)
        finally:
            ended.set()
            thread.join()
        return list(dict.fromkeys(seen))

    def stats(self, conversation: str) -> dict[str, Any]:
        """What ``RemoteConversation`` says of each usage id."""
        usages = self._conversations[conversation].conversation_stats.usage_to_metrics
        return {name: json.loads(metrics.get_snapshot().model_dump_json()) for name, metrics in usages.items()}

    def ask(self, conversation: str, question: str) -> str:
        return self._conversations[conversation].ask_agent(question)

    def post(self, conversation: str, path: str, body: dict[str, Any]) -> int:
        """For what the server can do and ``RemoteConversation`` cannot ask for."""
        remote = self._conversations[conversation]
        return remote.workspace.client.post(f"/api/conversations/{conversation}/{path}", json=body).status_code

    def llm_as_json(self, provider: str, **options: Any) -> dict[str, Any]:
        return llm(provider, **options).model_dump(mode="json", context={"expose_secrets": True})

    def bridged(self) -> bool:
        return hasattr(remote_conversation.RemoteState._get_conversation_info, "__wrapped__")

    def instrument(self) -> None:
        OpenHandsInstrumentor().instrument()

    def uninstrument(self) -> None:
        OpenHandsInstrumentor().uninstrument()

    def waits_for_runs(self) -> bool:
        return "blocking" in inspect.signature(RemoteConversation.run).parameters

    def has_option(self, option: str) -> bool:
        """Whether the agent server's command line knows it."""
        main = importlib.util.find_spec("openhands.agent_server.__main__")
        assert main is not None
        assert main.origin is not None
        return option in Path(main.origin).read_text()

    def has(self, module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    def has_tags(self) -> bool:
        return {"tags", "user_id"} <= inspect.signature(RemoteConversation.__init__).parameters.keys()


def llm(provider: str, model: str = "gpt-4o", **options: Any) -> LLM:
    return LLM(
        model=f"openai/{model}", base_url=provider, api_key="x", num_retries=1, **({"usage_id": "agent"} | options)
    )


def tool(name: str) -> Tool:
    """The import registers the tool, and the kinds of events that come back."""
    module = importlib.import_module(f"openhands.tools.{name}")
    if name == "task":
        return Tool(name=module.TaskToolSet.name)
    # A tmux server would outlive the test.
    return Tool(name=module.TerminalTool.name, params={"terminal_type": "subprocess"})


def spent(remote: RemoteConversation) -> float:
    return remote.conversation_stats.get_combined_metrics().accumulated_cost


def status(remote: RemoteConversation) -> str:
    return remote.state.execution_status.value


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what OpenHands prints is no answer
    client = Client(*sys.argv[1:])
    for line in sys.stdin:
        order = json.loads(line)
        try:
            result = getattr(client, order.pop("do"))(**order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = {"result": result}
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
