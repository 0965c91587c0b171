"""A conversation with an agent on a server, and what it costs while it runs.

    python conversation.py [--host http://127.0.0.1:8000] [--task "..."]

The model is named by LLM_MODEL, LLM_API_KEY and LLM_BASE_URL. README.md says what to start beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading

from openhands.sdk import LLM, Agent, Conversation, Tool, Workspace
from openhands.sdk.conversation.impl.remote_conversation import RemoteConversation
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.terminal import TerminalTool

LOOK_EVERY_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="http://127.0.0.1:8000", help="address of the agent server")
    parser.add_argument("--task", default="Say in FACTS.txt what this directory holds, and when you looked.")
    options = parser.parse_args()

    llm = LLM(
        model=os.environ.get("LLM_MODEL", "openai/gpt-4o"),
        api_key=os.environ.get("LLM_API_KEY"),
        base_url=os.environ.get("LLM_BASE_URL"),
        usage_id="agent",
    )
    agent = Agent(llm=llm, tools=[Tool(name=TerminalTool.name), Tool(name=FileEditorTool.name)])
    with tempfile.TemporaryDirectory() as directory:
        workspace = Workspace(host=options.host, working_dir=directory)
        conversation = Conversation(agent=agent, workspace=workspace, visualizer=None)
        assert isinstance(conversation, RemoteConversation)
        print(f"conversation {conversation.id}", flush=True)
        ended = threading.Event()
        watching = threading.Thread(target=watch, args=(conversation, ended))
        watching.start()
        try:
            conversation.send_message(options.task)
            conversation.run()
        finally:
            ended.set()
            watching.join()
            conversation.close()


def watch(conversation: RemoteConversation, ended: threading.Event) -> None:
    """Print what the conversation itself says that it has cost, whenever that changes."""
    shown = None
    while True:
        over = ended.wait(LOOK_EVERY_S)
        cost = conversation.conversation_stats.get_combined_metrics().accumulated_cost
        if cost != shown:
            shown = cost
            print(f"so far ${cost:.6f}", flush=True)
        if over:
            return


if __name__ == "__main__":
    main()
