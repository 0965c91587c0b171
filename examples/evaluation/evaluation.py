"""Instances of a task, several at once, and what each of them costs.

    python evaluation.py [--instances 8] [--workers 4]

The model is named by LLM_MODEL, LLM_API_KEY and LLM_BASE_URL. README.md says what to start beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

from openhands.sdk import LLM, Agent, Conversation

from openhands_otel import labels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=8, help="how many instances there are")
    parser.add_argument("--workers", type=int, default=4, help="how many run at a time")
    options = parser.parse_args()

    with ThreadPoolExecutor(options.workers) as pool:
        names = [f"sum-{number}" for number in range(1, options.instances + 1)]
        for name, status in zip(names, pool.map(attempt, names), strict=True):
            print(f"{name}: {status}", flush=True)


def attempt(name: str) -> str:
    """Work on one instance; all that is spent meanwhile, in whatever thread, stands under its name."""
    llm = LLM(
        model=os.environ.get("LLM_MODEL", "openai/gpt-4o"),
        api_key=os.environ.get("LLM_API_KEY"),
        base_url=os.environ.get("LLM_BASE_URL"),
        usage_id="agent",
    )
    with tempfile.TemporaryDirectory() as folder, labels(instance=name, name=name, attempt=1):
        conversation = Conversation(agent=Agent(llm=llm, tools=[]), workspace=folder, visualizer=None)
        try:
            conversation.send_message(f"Add up the numbers of {name}.")
            conversation.run()
            return conversation.state.execution_status.value
        finally:
            conversation.close()


if __name__ == "__main__":
    main()
