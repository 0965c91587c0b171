"""One run of the demo: viewer, provider and agent as three processes, and this one, which only looks.

What is shown while the agent works comes from the viewer's stream and from nowhere else. Only when the agent is done
are the two other accounts asked for: the provider's bill and what OpenHands itself says.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from openhands_otel._internal.demo.answers import Answer
from openhands_otel._internal.demo.children import Child, ChildFailed
from openhands_otel._internal.demo.freshness import AddedCost, Freshness, Seen, freshness
from openhands_otel._internal.demo.scenario import AGENT_SCRIPT, CONDENSER_SCRIPT, agent_answers, condenser_answers
from openhands_otel._internal.demo.totals import DemoTotals
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import ConversationStats, ConversationUpdate

DEMO_SERVICE = "openhands-demo"

_READY_TIMEOUT_S = 30.0
_AGENT_TIMEOUT_S = 180.0
_SETTLE_TIMEOUT_S = 5.0
_POLL_S = 0.05
_FOREIGN = ("OTEL_", "OPENHANDS_OTEL_", "LMNR_")
_open = build_opener(ProxyHandler({})).open


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What the three accounts say in the end, and how fresh the viewer was."""

    bill: DemoTotals
    own: DemoTotals
    viewer: DemoTotals
    freshness: Freshness
    agent_log: list[str]

    @property
    def differences(self) -> list[str]:
        """What the three do not agree on."""
        found = [*self.bill.differences(self.own), *self.bill.differences(self.viewer)]
        return list(dict.fromkeys(found))


class _StreamWatch:
    """What came over the viewer's stream, with the time at which it was received here."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.latest: ConversationStats | None = None
        self.connected = threading.Event()
        self._arrivals: queue.SimpleQueue[tuple[int, ConversationStats]] = queue.SimpleQueue()

    def follow(self, client: StatsClient) -> None:
        """Runs on a thread of its own, so that drawing costs no freshness."""
        # The viewer's end, as the demo's, is how this thread ends; totals that lack something show a break before.
        with suppress(StatsError):
            for update in client.stream(reconnect=False):
                if isinstance(update, ConversationUpdate):
                    self._arrivals.put((time.time_ns(), update.conversation))
                self.connected.set()

    def take(self, timeout: float) -> bool:
        """Take the next arrival, if there is one within ``timeout`` seconds."""
        try:
            at, self.latest = self._arrivals.get(timeout=timeout)
        except queue.Empty:
            return False
        self.seen.append(Seen(at, self.latest.accumulated_cost))
        return True


class Session:
    """The viewer and the provider, running, and the agent to be started. Raises ChildFailed."""

    def __init__(self, viewer: str, provider: str, directory: Path) -> None:
        self.viewer = viewer
        self._provider = provider
        self._directory = directory
        self._report = directory / "agent.jsonl"
        self._watch = _StreamWatch()

    def run(self, show: Callable[[float, ConversationStats], None]) -> SessionResult:
        """Start the agent, call ``show`` (seconds since then, stats) for each update, return the three accounts."""
        workspace = self._directory / "workspace"
        workspace.mkdir()
        self._put_script(AGENT_SCRIPT, agent_answers(workspace))
        self._put_script(CONDENSER_SCRIPT, condenser_answers())
        threading.Thread(target=self._watch.follow, args=(StatsClient(self.viewer),), daemon=True).start()
        if not self._watch.connected.wait(_READY_TIMEOUT_S):
            raise ChildFailed("viewer", "sent nothing over its stream", [])
        started = time.monotonic()
        with Child("agent", self._agent_command(workspace), self._agent_environment(), self._directory) as agent:
            while agent.exit_code is None:
                if self._watch.take(_POLL_S) and self._watch.latest is not None:
                    show(time.monotonic() - started, self._watch.latest)
                if time.monotonic() - started > _AGENT_TIMEOUT_S:
                    raise agent.failure(f"was not done after {_AGENT_TIMEOUT_S:.0f} s")
            if agent.exit_code != 0:
                raise agent.failure(f"ended with exit code {agent.exit_code}")
            spent, own = self._read_report(agent)
        return self._compare(spent, own, agent.last_lines())

    def _compare(self, spent: Sequence[AddedCost], own: DemoTotals, agent_log: list[str]) -> SessionResult:
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            latest = self._watch.latest
            if latest is not None and not own.differences(DemoTotals.of_stats(latest)):
                break
            self._watch.take(_POLL_S)
        with _open(f"{self._provider}/bill", timeout=_READY_TIMEOUT_S) as response:
            bill = DemoTotals.of_bill(json.load(response))
        viewer = DemoTotals.of_stats(self._watch.latest or ConversationStats(conversation_id=""))
        return SessionResult(bill, own, viewer, freshness(spent, self._watch.seen), agent_log)

    def _read_report(self, agent: Child) -> tuple[list[AddedCost], DemoTotals]:
        lines: list[dict[str, Any]] = [json.loads(line) for line in self._report.read_text().splitlines()]
        if not lines or "cost" not in lines[-1]:
            raise agent.failure("did not say what it spent")
        *costs, totals = lines
        del totals["conversation_id"]
        return [AddedCost(**cost) for cost in costs], DemoTotals(**totals)

    def _put_script(self, name: str, answers: Sequence[Answer]) -> None:
        body = json.dumps([answer.model_dump() for answer in answers]).encode()
        _open(Request(f"{self._provider}/scripts/{name}", body, method="PUT"), timeout=_READY_TIMEOUT_S).close()

    def _agent_command(self, workspace: Path) -> list[str]:
        arguments = ("--provider", self._provider, "--workspace", str(workspace), "--report", str(self._report))
        return [_instrument_command(), sys.executable, "-m", "openhands_otel._internal.demo.agent", *arguments]

    def _agent_environment(self) -> dict[str, str]:
        home = self._directory / "home"
        home.mkdir()
        return _environment() | {
            # Skills, agents and settings of the person who runs the demo are no part of it.
            "HOME": str(home),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENHANDS_SUPPRESS_BANNER": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.viewer,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": DEMO_SERVICE,
        }


@contextmanager
def session(directory: Path) -> Generator[Session]:
    """Viewer and provider, for the length of a ``with`` block; they are gone after it, however it ends."""
    with ExitStack() as children:

        def start(name: str, *arguments: str) -> str:
            child = children.enter_context(Child(name, [sys.executable, *arguments], _environment(), directory))
            return child.ready(_READY_TIMEOUT_S)["url"]

        ports = ("--port", "0", "--grpc-port", "0")
        viewer = start("viewer", "-m", "openhands_otel", "view", *ports, "--database", ":memory:", "--ready-json")
        provider = start("provider", "-m", "openhands_otel._internal.demo.llm_server", "--ready-json", "--stop-on-eof")
        yield Session(viewer, provider, directory)


def _environment() -> dict[str, str]:
    """This process's, without telemetry settings that were meant for others, and with no proxy before loopback."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def _instrument_command() -> str:
    beside = shutil.which("opentelemetry-instrument", path=sysconfig.get_path("scripts"))
    command = beside or shutil.which("opentelemetry-instrument")
    if command is None:
        raise ChildFailed("agent", "cannot be started: opentelemetry-instrument is missing", [])
    return command
