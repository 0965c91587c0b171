"""Two turns of an ACP agent, as a program of somebody: ``python acp_run.py FOLDER MODEL COMMAND...``.

``MODEL`` may be empty: then the agent's own is taken.
"""

from __future__ import annotations

import sys

from openhands.sdk import Conversation
from openhands.sdk.agent import ACPAgent

folder, model, *command = sys.argv[1:]
conversation = Conversation(agent=ACPAgent(acp_command=command, acp_model=model or None), workspace=folder)
for text in ("[[turn:1]]", "[[turn:2]]"):
    conversation.send_message(text)
    conversation.run()
conversation.close()
