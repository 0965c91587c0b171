"""Conversations of processes of seconds: one is told to end and one is killed; three work on another, and the last of
these closes it.

From the environment: the provider's base URL, a folder to work in, and which of the five it is.
"""

from __future__ import annotations

import os
import signal
import uuid

from openhands.sdk import LLM, Agent, LocalConversation

from openhands_otel import OpenHandsInstrumentor, labels

WHICH = os.environ["WHICH"]
NUMBER = {"left": 8, "killed": 9}.get(WHICH, 7)

instrumentor = OpenHandsInstrumentor()
instrumentor.instrument()
llm = LLM(model="openai/gpt-4o-mini", base_url=os.environ["URL"], api_key="x", num_retries=0, usage_id="agent")
with labels(attempt=WHICH):
    conversation = LocalConversation(
        agent=Agent(llm=llm, tools=[]),
        workspace=os.environ["FOLDER"],
        persistence_dir=f"{os.environ['FOLDER']}/kept",
        conversation_id=uuid.UUID(int=NUMBER),
        visualizer=None,
    )
    conversation.send_message("Do it.")
    conversation.run()
ENDS = {"left": signal.SIGTERM, "killed": signal.SIGKILL}
if WHICH in ENDS:
    assert instrumentor.flush(60)
    os.kill(os.getpid(), ENDS[WHICH])
