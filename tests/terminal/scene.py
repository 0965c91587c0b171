"""Agents at work at one moment, in a real viewer; and the terminal that looks at it then, whatever the clock says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from span_sender import SpanSender, fail
from textual.pilot import Pilot
from viewer_process import Viewer

from openhands_otel import semconv
from openhands_otel._internal.terminal.app import WatchApp
from openhands_otel._internal.terminal.live import Live
from openhands_otel.client import AsyncStatsClient
from openhands_otel.stats import BurnRate, SnapshotUpdate, TotalsUpdate, Update
from otlp_sender import Sender

NS = 1_000_000_000
AGENTS = (
    ("ada", "checkout", "checkout-fix", "gpt-5", 2.105, "running", "terminal"),
    ("bob", "search", "index-rewrite", "claude-opus-4-5", 0.0712, "waiting_for_confirmation", None),
    ("ada", "billing", "invoice-export", "gpt-5", 13.9, "stuck", None),
    ("cyd", "search", "synonyms", "gpt-5-mini", 0.000012, "running", "llm"),
    ("bob", "checkout", "flaky-tests", "claude-opus-4-5", 1.25, "error", None),
    ("cyd", "mobile", "login-crash", "local", 0.33, "idle", None),
    ("eve", "mobile", "a name that is really much too long for any table", "gpt-5", 1_234_567.89, "running", "browser"),
    ("ada", "infra", "terraform-drift", "gpt-5-mini", 0.0099, "finished", None),
)
"""Person, project, name, model, dollars, status, what runs now."""
SUB_AGENT = "5ub00000-75ce-4a11-8222-000000000000"
SUB_COST = 0.25
TOTAL = sum(agent[4] for agent in AGENTS) + SUB_COST


def id_of(number: int) -> str:
    return f"{number:08x}-75ce-4a11-8222-000000000000"


def sender_of(number: int, at: int) -> Sender:
    """One agent's process, which began some minutes before ``at`` (unix seconds)."""
    person, project, name, model, cost, status, activity = AGENTS[number]
    ago = 97 * (number + 1)
    labels = {"user": person, "project": project, "name": name}
    resource = {f"{semconv.LABEL_PREFIX}{label}": value for label, value in labels.items()}
    sender = Sender(f"p{number}", f"{project}-agent", (at - ago) * NS, resource)
    conversation = id_of(number)
    stamp: dict[str, Any] = {"at": (at - 30) * NS}
    sender.introduce(conversation, **stamp).state(conversation, status, **stamp)
    spend(sender, conversation, cost, model, number + 1, **stamp)
    # Nobody waits for its next word while a busy machine runs the tests.
    sender.add(semconv.HEARTBEAT_INTERVAL, 3600.0)
    if activity:
        sender.now(conversation, activity, at - 40.0 - number, **stamp)
    if number == 0:
        sender.introduce(SUB_AGENT, parent=conversation, **stamp).state(SUB_AGENT, "running", **stamp)
        spend(sender, SUB_AGENT, SUB_COST, "gpt-5-mini", 1, **stamp)
    return sender


def spend(sender: Sender, conversation: str, cost: float, model: str, work: int, *, at: int) -> Sender:
    """Money, tokens and calls, of the conversation and of all."""
    fleet = {semconv.REQUEST_MODEL: model, semconv.LLM_ROLE: "agent", semconv.PROVIDER_NAME: "openai"}
    of_conversation = {semconv.CONVERSATION_ID: conversation, **fleet, semconv.USAGE_ID: "agent"}
    sender.add(semconv.COST, cost, fleet, at=at)
    sender.add(semconv.CONVERSATION_COST, cost, of_conversation, at=at)
    sender.add(semconv.CALLS, 18 * work, fleet, at=at)
    sender.add(semconv.CONVERSATION_CALLS, 18 * work, of_conversation, at=at)
    tokens = {"input": (semconv.INPUT_TOKENS, 123_400 * work), "output": (semconv.OUTPUT_TOKENS, 9_100 * work)}
    for kind, (metric, number) in tokens.items():
        sender.add(metric, number, fleet, at=at)
        sender.add(semconv.CONVERSATION_TOKENS, number, of_conversation | {semconv.TOKEN_TYPE: kind}, at=at)
    only = {semconv.CONVERSATION_ID: conversation}
    sender.add(semconv.CONVERSATION_CONTEXT_TOKENS, 14_000 * work, only, at=at)
    return sender.add(semconv.CONVERSATION_CONTEXT_LIMIT, 128_000, only, at=at)


def spans_of(at: int) -> SpanSender:
    """What the first agent did: calls, tools, one of which failed."""
    spans = SpanSender(service="checkout-agent", instance="p0", began=(at - 97) * NS)
    conversation = id_of(0)
    spans.run(1, conversation, start=0, end=50)
    for step in range(8):
        told = {semconv.USAGE_INPUT_TOKENS: 1_000, semconv.USAGE_OUTPUT_TOKENS: 50}
        begun = step * 6
        spans.call(
            10 + step, conversation, cost=0.1 * (step + 1), parent=1, start=begun, end=begun + 4, attributes=told
        )
        tool = spans.tool(30 + step, conversation, parent=1, start=step * 6 + 4, end=step * 6 + 6)
        if step == 3:
            fail(tool, "TimeoutError")
    return spans


def play(viewer: Viewer, at: int) -> None:
    """Send all of it."""
    for number in range(len(AGENTS)):
        viewer.send(sender_of(number, at))
    assert viewer.post(spans_of(at).body(), "/v1/traces").status_code == 200


class Stopped(Live):
    """Looks at one moment: no clock of the machine and no rate that was measured by one shows."""

    def __init__(self, moment: float) -> None:
        super().__init__(lambda: moment)

    def apply(self, update: Update) -> None:
        calm = {"burn": BurnRate(per_hour=4.1, per_minute=4.1 / 60, window_s=300), "received_unix_nano": self._moment}
        if isinstance(update, SnapshotUpdate):
            totals = update.state.totals.model_copy(update=calm)
            state = update.state.model_copy(update={"totals": totals, "server_unix_nano": 0})
            update = update.model_copy(update={"state": state})
        elif isinstance(update, TotalsUpdate):
            update = update.model_copy(update={"totals": update.totals.model_copy(update=calm)})
        super().apply(update)

    @property
    def _moment(self) -> int:
        return int(self.now() * NS)


@asynccontextmanager
async def watching(
    viewer: Viewer, size: tuple[int, int], at: float | None = None, period: str = "all"
) -> AsyncIterator[tuple[Pilot[None], WatchApp]]:
    """The application without a terminal; at a moment (unix seconds), or as time goes by."""
    async with AsyncStatsClient(viewer.url, viewer.token) as client:
        app = WatchApp(client, period)
        if at is not None:
            app.live = Stopped(at)
        async with app.run_test(size=size) as pilot:
            yield pilot, app


def screen(app: WatchApp) -> list[str]:
    """What can be read on the screen."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


async def shows(pilot: Pilot[None], app: WatchApp, look: Callable[[list[str]], object], what: str) -> list[str]:
    """The screen, once it shows something."""
    deadline = time.monotonic() + 100
    while not look(lines := screen(app)):
        assert time.monotonic() < deadline, f"{what} is not there:\n" + "\n".join(lines)
        await pilot.pause(0.02)
    return lines


def line_with(text: str, lines: list[str]) -> str:
    """The one line that has this in it."""
    (line,) = (each for each in lines if text in each)
    return line
