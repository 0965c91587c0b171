"""A day of a team's agents for pictures: what the page looks like to people who work with it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from typing import Any

from span_sender import SpanSender, fail
from viewer_process import Viewer

from openhands_otel import semconv
from openhands_otel.semconv import LABEL_PREFIX, REPLAYED_HEADER, TokenType
from otlp_sender import Sender

from .crowd import closed, ended, midnight, sender

BUDGETS = "day=21,month:project=checkout=120"
_PRICES = {"claude-sonnet-4-5": 3.0, "gpt-5": 1.25, "gpt-5-mini": 0.25, "gemini-2.5-pro": 1.25}
"""US dollars of a million tokens of input, about."""
_PROVIDERS = {"claude": "anthropic", "gpt-5": "openai", "gemini": "gcp.gemini"}
_DAYS = 6
_MINUTE_NS = 60 * 10**9
_QUARTER_NS = 15 * _MINUTE_NS


@dataclass
class Agent:
    """One at work: who it is, and how far its counters are."""

    id: str
    name: str
    service: str
    user: str
    project: str
    host: str
    model: str
    state: str = "running"
    parent: str | None = None
    error: str | None = None
    pace: float = 1.0
    cost: float = 0.0
    numbers: dict[TokenType, int] = field(default_factory=lambda: dict.fromkeys(TokenType, 0))
    calls: int = 0
    seconds: float = 0.0

    begun: int = 0
    """Since when it works, minutes ago; 0 for one of the days before."""

    def __post_init__(self) -> None:
        self.sender = sender(self.id, service=self.service)
        if self.begun:
            self.sender.start = time.time_ns() - self.begun * _MINUTE_NS
        labels = {"user": self.user, "project": self.project, "host": self.host, "name": self.name}
        self.sender.resource = {f"{LABEL_PREFIX}{name}": value for name, value in labels.items()}
        self.use = {
            semconv.LLM_ROLE: "agent",
            semconv.REQUEST_MODEL: self.model,
            semconv.PROVIDER_NAME: next(value for name, value in _PROVIDERS.items() if self.model.startswith(name)),
            semconv.USAGE_ID: "agent",
        }

    def work(self, chance: random.Random, calls: int, at: int) -> Sender:
        """Go on by so many calls, and tell of it."""
        fresh = int(calls * 9_000 * chance.uniform(0.6, 1.4) * self.pace)
        cached, output = int(fresh * chance.uniform(1.5, 2.5)), int(fresh * 0.08)
        self.numbers[TokenType.INPUT] += fresh + cached
        self.numbers[TokenType.CACHE_READ] += cached
        self.numbers[TokenType.OUTPUT] += output
        price = _PRICES[self.model]
        self.cost += (fresh + 0.1 * cached + 8 * output) * price / 1e6
        self.calls += calls
        self.seconds += calls * chance.uniform(2.5, 9)
        named = {semconv.CONVERSATION_ID: self.id, **self.use}
        fleet = {name: value for name, value in self.use.items() if name != semconv.USAGE_ID}
        told = self.sender.add(semconv.COST, self.cost, fleet, at=at).add(semconv.CALLS, self.calls, fleet, at=at)
        told.add(semconv.CONVERSATION_COST, self.cost, named, at=at)
        told.add(semconv.CONVERSATION_CALLS, self.calls, named, at=at)
        told.add(semconv.CONVERSATION_LLM_TIME, self.seconds, named, at=at)
        for kind in (TokenType.INPUT, TokenType.CACHE_READ, TokenType.OUTPUT):
            number = self.numbers[kind]
            told.add(semconv.CONVERSATION_TOKENS, number, named | {semconv.TOKEN_TYPE: kind}, at=at)
            told.add(semconv.TOKEN_COUNTERS[kind], number, fleet, at=at)
        return told


MAIN = "5c0c1e7a-51d1"
BELOW = "9be40c11-7a02"
"""The conversation that the pictures show, and its sub-agent's."""


def _agents() -> list[Agent]:
    def agent(key: str, name: str, service: str, user: str, host: str, model: str, begun: int, **more: Any) -> Agent:
        return Agent(key, name, service, user, name.partition(":")[0], host, model, begun=begun, **more)

    below = {"parent": MAIN, "state": "finished", "pace": 0.5}
    gone = {"state": "error", "error": "RateLimitError"}
    return [
        agent(MAIN, "checkout: flaky payment test", "checkout-bot", "ana", "build-3", "gpt-5", 7),
        agent(BELOW, "checkout: explore payments", "checkout-bot", "ana", "build-3", "gpt-5-mini", 4, **below),
        agent("1f77a9d0-33c4", "search: upgrade to Lucene 10", "review-bot", "ben", "build-1", "claude-sonnet-4-5", 48,
              state="waiting_for_confirmation"),
        agent("c4e1b2d9-8f10", "billing: invoices in EUR", "checkout-bot", "caro", "build-3", "gpt-5", 31,
              state="stuck"),
        agent("77aa01fe-2b6d", "platform: dependency updates", "nightly", "ci", "build-2", "gpt-5-mini", 22, **gone),
        agent("e0d5c3b8-6a41", "search: index is 3x too large", "review-bot", "dimitri", "build-1", "gemini-2.5-pro",
              74, pace=1.8),
        agent("2a9f8c77-0e5b", "checkout: Apple Pay on Safari", "checkout-bot", "ana", "build-3", "claude-sonnet-4-5",
              16, pace=0.7),
        agent("b8126d04-5f3e", "billing: reconcile July", "review-bot", "caro", "build-1", "gpt-5", 66,
              state="finished"),
        agent("40fd7e92-c18a", "platform: move CI to arm64", "nightly", "ci", "build-2", "gpt-5", 39, pace=1.2),
        agent("d3571b6c-94e0", "search: API reference", "review-bot", "ben", "build-1", "gpt-5-mini", 52,
              state="finished", pace=0.4),
        agent("8c20e4af-1d97", "checkout: retry webhooks", "checkout-bot", "dimitri", "build-3", "gpt-5", 27, pace=0.9),
        agent("f6b9a510-7e28", "search: typo tolerance", "review-bot", "ben", "build-1", "gemini-2.5-pro", 8,
              state="idle"),
    ]  # fmt: skip


def play_scene(viewer: Viewer) -> None:
    """What others did in the last days, told after the event, and what these do now."""
    chance = random.Random(7)
    played = _agents()
    for agent in played:
        before = replace(agent, id=f"{agent.id}-before", parent=None, begun=0, numbers=dict.fromkeys(TokenType, 0))
        for at in _moments(chance):
            _tell_later(viewer, before.work(chance, chance.randint(1, 6), at))
        _tell_later(viewer, closed(before.sender.introduce(before.id, at=int(midnight(_DAYS) * 1e9)), before.id))
    for agent in played:
        agent.sender.introduce(agent.id, parent=agent.parent, at=agent.sender.start)
        agent.sender.state(agent.id, "running", at=agent.sender.start)
        if agent.id == MAIN:
            _run_again(viewer, agent)
        for step in range(1, 8):
            at = agent.sender.start + step * agent.begun * _MINUTE_NS // 8
            _tell_later(viewer, agent.work(chance, 3, at))
        agent.sender.add(semconv.CONVERSATION_CONTEXT_TOKENS, chance.randint(9, 150) * 1_000, _named(agent))
        agent.sender.add(semconv.CONVERSATION_CONTEXT_LIMIT, 200_000, _named(agent))
        viewer.send(agent.work(chance, 1, time.time_ns()))
        _settle(agent, chance)
        viewer.send(agent.sender)
    viewer.post(_trace(played[0].sender.start).body(), "/v1/traces").raise_for_status()
    # The way from before to now is what burns.
    for agent in played:
        if agent.state == "running":
            viewer.send(agent.work(chance, 1, time.time_ns()))


def _run_again(viewer: Viewer, agent: Agent) -> None:
    """Its first run ends, and a second begins, as its spans have it."""
    viewer.send(agent.sender)
    end, again = (agent.sender.start + seconds * 10**9 for seconds in (118, 134))
    agent.sender.state(MAIN, "running", ended=True, at=end).state(MAIN, "finished", at=end)
    viewer.send(agent.sender)
    agent.sender.state(MAIN, "finished", ended=True, at=again).state(MAIN, "running", at=again)
    viewer.send(agent.sender)


def _tell_later(viewer: Viewer, told: Sender) -> None:
    viewer.post(told.body(), **{REPLAYED_HEADER: "1"}).raise_for_status()


def _moments(chance: random.Random) -> list[int]:
    """When one works: in the hours of each day, and of today as far as it is."""
    now = time.time_ns()
    found: list[int] = []
    for day in range(_DAYS, -1, -1):
        begin = int(midnight(day) * 1e9)
        quarters = sorted(chance.sample(range(28, 80), 14))
        # Of a day that has only begun the same in little.
        today = [begin + (now - begin) * (quarter - 27) // 54 for quarter in quarters]
        found += [begin + quarter * _QUARTER_NS for quarter in quarters] if day else today
    return [at for at in found if at < now - _MINUTE_NS]


def _named(agent: Agent) -> dict[str, str]:
    return {semconv.CONVERSATION_ID: agent.id}


def _settle(agent: Agent, chance: random.Random) -> None:
    if agent.state == "running":
        activity = "llm" if agent.id == MAIN else chance.choice(("terminal", "llm", "file_editor"))
        agent.sender.now(agent.id, activity, time.time() - (9 if agent.id == MAIN else chance.randint(2, 90)))
        return
    at = time.time_ns() - (18 if agent.parent else chance.randint(20, 400)) * 10**9
    agent.sender.state(agent.id, "running", ended=True, at=at).state(agent.id, agent.state, at=at)
    outcomes = {"waiting_for_confirmation": "waiting", "idle": "paused"}
    ended(agent.sender, agent.id, outcomes.get(agent.state, agent.state), agent.error)


def _trace(began: int) -> SpanSender:
    """What the first of them did: two runs, a tool that failed, a call that was retried, a sub-agent."""
    spans = SpanSender(service="checkout-bot")
    spans.began = began
    spans.run(1, MAIN, end=118)
    place, number = 0.5, 2
    for step, (tool, took) in enumerate((("terminal", 9.0), ("file_editor", 0.4), ("terminal", 41.0), ("finish", 0.1))):
        call = spans.call(number, MAIN, parent=1, cost=0.031 + step / 50, start=place, end=place + 4.2 + step * 2.1,
                          attributes={semconv.REQUEST_MODEL: "gpt-5", semconv.USAGE_INPUT_TOKENS: 14_000 + step * 3_100,
                                      semconv.USAGE_CACHE_READ_TOKENS: 9_000 + step * 2_900,
                                      semconv.USAGE_OUTPUT_TOKENS: 420 + step * 60,
                                      "gen_ai.response.time_to_first_chunk": 0.8 + step / 4})  # fmt: skip
        if step == 2:
            call.events.add(name=semconv.RETRY_EVENT)
        place += 5 + step * 2.1
        ran = spans.tool(number + 1, MAIN, tool, parent=1, start=place, end=place + took)
        if step == 2:
            fail(ran, "Timeout")
        place, number = place + took + 0.4, number + 2
    # The second run has not ended: its children have, and stand below what runs.
    spans.tool(21, MAIN, "terminal", trace=2, parent=20, start=134, end=151)
    spans.call(22, MAIN, trace=2, parent=20, cost=0.118, start=151, end=163,
               attributes={semconv.REQUEST_MODEL: "gpt-5", semconv.USAGE_INPUT_TOKENS: 41_200,
                           semconv.USAGE_CACHE_READ_TOKENS: 36_000, semconv.USAGE_OUTPUT_TOKENS: 1_310})  # fmt: skip
    spans.run(23, BELOW, trace=2, parent=20, start=164, end=402)
    for index in range(8):
        begin, number = 165 + index * 29, 30 + 2 * index
        told = {semconv.REQUEST_MODEL: "gpt-5-mini", semconv.LLM_ROLE: "sub_agent", semconv.USAGE_OUTPUT_TOKENS: 300}
        told[semconv.USAGE_INPUT_TOKENS] = 6_000 + 1_500 * index
        cost, between = 0.004 + index / 900, begin + 6 + index
        spans.call(number, BELOW, trace=2, parent=23, cost=cost, start=begin, end=between, attributes=told)
        tool = "grep" if index % 2 else "terminal"
        spans.tool(number + 1, BELOW, tool, trace=2, parent=23, start=between + 1, end=between + 8)
    return spans
