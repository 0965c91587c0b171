"""A program that uses OpenHands' real tools and writes what they let the agent see: OUTPUT COMMAND ..."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from openhands.sdk.agent import acp_agent
from openhands.sdk.hooks.config import HookDefinition
from openhands.sdk.hooks.executor import HookExecutor
from openhands.sdk.hooks.types import HookEvent, HookEventType
from openhands.sdk.observability.laminar import should_enable_observability
from openhands.sdk.tool import Action, Observation, ToolDefinition, ToolExecutor
from openhands.sdk.utils.command import execute_command
from openhands.tools.terminal.definition import TerminalAction
from openhands.tools.terminal.impl import TerminalExecutor

ENVIRONMENT = [sys.executable, "-c", "import os; print(sorted(os.environ.items()))"]


class LookAction(Action):
    pass


class LookObservation(Observation):
    seen: str


class LookExecutor(ToolExecutor[LookAction, LookObservation]):
    """A tool as an application writes it: it starts processes and says nothing of their environment."""

    def __call__(self, action: LookAction, conversation: object = None) -> LookObservation:
        plain = subprocess.run(ENVIRONMENT, capture_output=True, text=True, check=True).stdout
        return LookObservation(seen=plain + asyncio.run(self._look_async()))

    async def _look_async(self) -> str:
        process = await asyncio.create_subprocess_exec(*ENVIRONMENT, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        return out.decode()


class LookTool(ToolDefinition[LookAction, LookObservation]):
    @classmethod
    def create(cls, *_: object, **__: object) -> list[LookTool]:
        return [
            cls(
                description="look",
                action_type=LookAction,
                observation_type=LookObservation,
                executor=LookExecutor(),
            )
        ]


def terminal(kind: str, commands: list[str]) -> list[dict[str, object]]:
    """Observations, each cut to what stands between two marks: around it a shell's prompt comes as it likes."""
    executor = TerminalExecutor(working_dir=os.getcwd(), terminal_type=kind)
    try:
        executor(TerminalAction(command="true"))
        return [observed(executor, command) for command in commands]
    finally:
        executor.close()


def observed(executor: TerminalExecutor, command: str) -> dict[str, object]:
    typed = f"echo 'BEG''IN'; {command}; echo 'E''ND'"
    # On a busy machine OpenHands at times takes the last prompt for the answer; then it is asked again.
    for _ in range(5):
        observation = executor(TerminalAction(command=typed))
        _, begin, rest = observation.text.partition("BEGIN")
        text, end, _ = rest.partition("END")
        if begin and end:
            return {"text": text, "code": observation.exit_code}
        # What is typed while the command still runs, the terminal echoes into the answer.
        time.sleep(2)
    raise AssertionError(f"no whole answer to {command}: {observation.text}")


def hook() -> str:
    event = HookEvent(event_type=HookEventType.STOP)
    result = HookExecutor(working_dir=os.getcwd()).execute(HookDefinition(command="env"), event)
    return result.stdout


def main() -> None:
    output, *commands = sys.argv[1:]
    own = subprocess.run(ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    report = {
        "subprocess": [terminal("subprocess", [command])[0] for command in commands],
        "tmux": terminal("tmux", commands),
        "hook": hook(),
        "execute_command": execute_command(ENVIRONMENT, print_output=False).stdout,
        "own tool": LookTool.create()[0](LookAction()).seen,
        "ACP agent": sorted(dict(acp_agent.os.environ).items()),
        "laminar": [should_enable_observability(), "lmnr" in sys.modules],
        "application": sorted(os.environ.items()),
        "application's child": own,
    }
    Path(output).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
