"""An agent in a container that ``DockerWorkspace`` starts: what a person's program does, in a process of its own.

Arguments: the image, the provider's address, a file with a token, and the names of variables to forward.
"""

from __future__ import annotations

import sys

from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.tools.terminal import TerminalTool
from openhands.workspace import DockerWorkspace

PORT = 8000
"""Of the server in the container, which is on this process' network, as its provider is."""


def main(image: str, provider: str, token: str, *forwarded: str) -> None:
    llm = LLM(model="openai/gpt-4o", base_url=provider, api_key="x", num_retries=1, usage_id="agent")
    agent = Agent(llm=llm, tools=[Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})])
    with DockerWorkspace(
        server_image=image,
        network="host",
        host_port=PORT,
        volumes=[f"{token}:/run/token:ro"],
        forward_env=list(forwarded),
    ) as workspace:
        conversation = Conversation(agent=agent, workspace=workspace, visualizer=None)
        conversation.send_message("hello")
        conversation.run()
        print(conversation.conversation_stats.get_combined_metrics().accumulated_cost)
        conversation.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
