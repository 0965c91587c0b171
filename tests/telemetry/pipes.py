"""Pipelines in this process, and the events that hooks would make: for what needs no OpenHands to be shown."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from openhands_otel import events
from openhands_otel._internal.content import TitleAllowed
from openhands_otel._internal.export.otlp_config import read_otlp_config
from openhands_otel._internal.process.pipeline import Pipeline
from openhands_otel.events import Event, Origin
from openhands_otel.semconv import CostSource, Role, Status
from openhands_otel.settings import Settings

_calls = itertools.count(1)


def origin(conversation: str | None = None, model: str = "gpt-4o", **more: Any) -> Origin:
    return Origin(
        **({"conversation_id": conversation, "role": Role.AGENT, "model": model, "provider": "openai"} | more)
    )


def response(whose: Origin, cost: float = 0.001, tokens: int = 100) -> Iterator[Event]:
    """The three updates of one response."""
    now = time.time_ns()
    yield events.CostAdded(now, whose, cost, CostSource.PRICE_TABLE, recorded=cost)
    yield events.TokensUsed(now, whose, tokens, 10, 0, 0, 0, 128_000, "r")
    yield events.LatencyRecorded(now, whose, 0.1, "r")


def call(whose: Origin, cost: float = 0.001) -> Iterator[Event]:
    """All events of one LLM call."""
    number = next(_calls)
    yield events.LLMCallStarted(time.time_ns(), whose, number)
    yield from response(whose, cost)
    yield events.ResponseRecorded(time.time_ns(), whose, True, None)
    yield events.LLMCallEnded(time.time_ns(), whose, number, None)


def opened(conversation: str, restored: float = 0.0) -> Event:
    return events.ConversationOpened(time.time_ns(), conversation, None, "Agent", "1.58.0", restored, None)


def closed(conversation: str) -> Event:
    return events.ConversationClosed(time.time_ns(), conversation)


def run_started(conversation: str) -> Event:
    return events.RunStarted(time.time_ns(), conversation)


def run_ended(conversation: str, status: Status = Status.FINISHED) -> Event:
    return events.RunEnded(time.time_ns(), conversation, status, None)


@contextmanager
def pipeline(environ: Mapping[str, str], guest_of: Any = None, **settings: Any) -> Iterator[Pipeline]:
    """A started pipeline that sends to where ``environ`` says."""
    config = read_otlp_config(environ)
    made = Pipeline(Settings(**settings), config, lambda: 0, guest_of)
    made.start()
    try:
        yield made
    finally:
        made.stop(2)


def put(target: Pipeline, *each: Event | TitleAllowed) -> None:
    for event in each:
        target.put(event)
