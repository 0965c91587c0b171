"""Agents for the page to show: on several days, of several people, in every state that a person must know of."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from viewer_process import Viewer

from openhands_otel import semconv
from openhands_otel.semconv import TokenType
from otlp_sender import Sender

MODELS = ("gpt-5", "claude-sonnet-5", "gpt-5-mini", "gemini-3-pro")
SERVICES = ("checkout-bot", "review-bot", "nightly")
PEOPLE = ("ana", "ben", "caro", "dimitri")
STATES = ("running",) * 6 + ("waiting_for_confirmation", "stuck", "error", "finished")
_OUTCOMES = {"waiting_for_confirmation": "waiting", "stuck": "stuck", "error": "error", "finished": "finished"}
UTC = ZoneInfo("UTC")


def midnight(days_ago: int = 0) -> float:
    """Begin of a day of UTC, unix seconds."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today - timedelta(days=days_ago)).timestamp()


def sender(instance: str, **more: str) -> Sender:
    """A process that began long ago, so that what it says of earlier days is taken for that."""
    return Sender(instance, start=int(midnight(60) * 1e9), **more)


def ended(of: Sender, conversation: str, outcome: str, error: str | None = None) -> Sender:
    """A conversation whose last run ended so."""
    attributes = {semconv.CONVERSATION_ID: conversation, semconv.RUN_OUTCOME: outcome}
    return of.add(semconv.CONVERSATION_OUTCOME, 1, attributes | ({semconv.ERROR_TYPE: error} if error else {}))


def closed(of: Sender, conversation: str) -> Sender:
    attributes = {semconv.CONVERSATION_ID: conversation, semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
    return of.add(semconv.CONVERSATION_INFO, None, attributes)


def play_crowd(viewer: Viewer, number: int = 40) -> list[str]:
    """So many agents at work since eight days; returns their conversations' ids."""
    names = [f"{index:08x}-aaaa-4bbb-8ccc-{index:012x}" for index in range(number)]
    for index, name in enumerate(names):
        model, person = MODELS[index % 4], PEOPLE[index % 4]
        agent = sender(f"process-{index}", service=SERVICES[index % 3])
        agent.resource = {
            "openhands.label.user": person,
            "openhands.label.project": ("checkout", "search", "billing")[index % 3],
            "openhands.label.host": f"machine-{index % 5}",
        }
        agent.introduce(name).state(name, "running")
        cost = 0.0
        for day in range(8, -1, -1):
            at = int((midnight(day) + 60 + index) * 1e9) if day else time.time_ns()
            cost += 0.125 * (1 + (index * 7 + day * 3) % 11)
            agent.spend(cost, model=model, at=at).converse(name, cost, model=model, at=at)
            viewer.send(agent)
        busy(agent, name, STATES[index % len(STATES)], index)
        viewer.send(agent)
    return names


def busy(agent: Sender, name: str, state: str, index: int) -> None:
    """What it does now, and how much of its context it has used."""
    named = {semconv.CONVERSATION_ID: name}
    numbers = {TokenType.INPUT: 9_000 * (index + 1), TokenType.CACHE_READ: 4_500 * (index + 1), TokenType.OUTPUT: 700}
    for token_type, number in numbers.items():
        agent.add(semconv.CONVERSATION_TOKENS, number, named | {semconv.TOKEN_TYPE: token_type})
    agent.add(semconv.CONVERSATION_CALLS, 12 + index, named)
    agent.add(semconv.CONVERSATION_CONTEXT_TOKENS, 4_000 * (index + 1), named)
    agent.add(semconv.CONVERSATION_CONTEXT_LIMIT, 200_000, named)
    if state == "running":
        agent.now(name, ("terminal", "llm", "file_editor")[index % 3], time.time() - 10 * index)
    else:
        agent.state(name, "running", ended=True).state(name, state)
        ended(agent, name, _OUTCOMES[state], "RateLimitError" if state == "error" else None)
