"""How the public names may be used and how not, as pyright sees it in its strict mode (tests/test_public_surface.py).

Nothing here is run. A use that is right must have the type that is stated; one that is wrong must be an error, which
its comment expects: pyright complains of an expectation that is not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import assert_never, assert_type
from uuid import UUID

from opentelemetry.metrics import get_meter_provider
from opentelemetry.trace import get_tracer_provider

from openhands_otel import OpenHandsInstrumentor, StatsClient, labels, subscribe
from openhands_otel.client import PROMETHEUS, AsyncStatsClient, StatsError, Unreachable
from openhands_otel.events import CostAdded, Event, Origin, RunEnded, TokensUsed
from openhands_otel.semconv import COST, REQUEST_MODEL, Metric, Role, RunOutcome, Status, prometheus_label
from openhands_otel.settings import Settings, ViewerSettings, load
from openhands_otel.stats import (
    Breakdown,
    ConversationStats,
    ConversationUpdate,
    History,
    Presence,
    RemovedUpdate,
    SnapshotUpdate,
    Spend,
    State,
    TokenUsage,
    TotalsUpdate,
    Update,
)
from openhands_otel.testing import Captured, capture


def instrumenting(instrumentor: OpenHandsInstrumentor) -> None:
    instrumentor.instrument()
    instrumentor.instrument(meter_provider=get_meter_provider(), tracer_provider=get_tracer_provider())
    instrumentor.instrument(settings=load(Settings), skip_dep_check=True, raise_exception_on_conflict=True)
    instrumentor.instrument(meter_providr=get_meter_provider())  # pyright: ignore[reportArgumentType]
    instrumentor.instrument(tracer_provider=get_meter_provider())  # pyright: ignore[reportArgumentType]
    instrumentor.instrument(get_meter_provider())  # pyright: ignore[reportCallIssue]
    assert_type(instrumentor.flush(), bool)
    assert_type(instrumentor.snapshot("id"), ConversationStats | None)
    instrumentor.snapshot(UUID(int=0))  # pyright: ignore[reportArgumentType]
    print(instrumentor.snapshot("id").llm_calls)  # pyright: ignore[reportOptionalMemberAccess]


def subscribing(identity: UUID) -> None:
    def hear(event: Event) -> None: ...

    def hear_costs(event: CostAdded) -> None: ...

    assert_type(subscribe(hear), Callable[[], None])
    subscribe(print, conversation=identity, usage_id="agent", kinds=CostAdded, background=True)
    subscribe(hear, kinds=(CostAdded, RunEnded))
    subscribe(hear_costs)  # pyright: ignore[reportArgumentType]
    subscribe(hear, kinds=(str,))  # pyright: ignore[reportArgumentType]
    subscribe(hear, None, None, CostAdded)  # pyright: ignore[reportCallIssue]


def labelling() -> int:
    assert_type(labels(instance="astropy-1"), AbstractContextManager[None])
    with labels(instance="astropy-1", attempt=2, team=None) as nothing:
        assert_type(nothing, None)
    labels("astropy-1")  # pyright: ignore[reportCallIssue]
    with labels(instance="a"):
        return 1


def reading_events(event: CostAdded | RunEnded) -> None:
    match event:
        case CostAdded(amount=amount, origin=origin):
            assert_type(amount, float)
            assert_type(origin, Origin)
            assert_type(origin.role, Role)
            event.amount = 1.0  # pyright: ignore[reportAttributeAccessIssue]
        case RunEnded(status=status, outcome=outcome):
            assert_type(status, Status)
            assert_type(outcome, RunOutcome)
        case _:
            assert_never(event)


async def asking_on_a_loop(client: AsyncStatsClient) -> None:
    assert_type(await client.state(), State)
    assert_type(await client.spend(["day", "model"], since=0.0, where=["model=gpt-5*"], top=3), Spend)
    assert_type(await client.presence(), tuple[Presence, ...])
    assert_type(await client.past_conversations(search="checkout"), tuple[ConversationStats, ...])
    await client.spend("day", 0.0)  # pyright: ignore[reportCallIssue]
    async for update in client.stream():
        assert_type(update, Update)


def asking(client: StatsClient) -> None:
    assert_type(client.spend(["day", "model"], since=0.0, where=["model=gpt-5*"], top=3), Spend)
    assert_type(client.presence(), tuple[Presence, ...])
    assert_type(client.past_conversations(where=["team=a"], limit=5), tuple[ConversationStats, ...])
    assert_type(client.state(), State)
    assert_type(client.totals(), Breakdown)
    assert_type(client.conversations(RunOutcome.ERROR), tuple[ConversationStats, ...])
    assert_type(client.conversation("id").accumulated_token_usage, TokenUsage)
    assert_type(client.history(since=0.0, bucket_s=60), History)
    client.history("id", 0.0)  # pyright: ignore[reportCallIssue]
    assert_type(StatsClient(f"{PROMETHEUS}http://127.0.0.1:9090", token="t", certificate="ca.pem"), StatsClient)
    StatsClient(port=4318)  # pyright: ignore[reportCallIssue]
    assert_type(client.stream(), Iterator[Update])
    try:
        client.state()
    except Unreachable as error:
        broken: StatsError = error
        print(broken)


def following(update: Update) -> None:
    match update.type:
        case "snapshot":
            assert_type(update, SnapshotUpdate)
        case "conversation":
            assert_type(update, ConversationUpdate)
            update.conversation.llm_calls = 1  # pyright: ignore[reportAttributeAccessIssue]
        case "totals":
            assert_type(update, TotalsUpdate)
        case "removed":
            assert_type(update, RemovedUpdate)


def capturing(identity: UUID) -> None:
    with capture() as spent:
        assert_type(spent, Captured)
    assert_type(spent.cost, float)
    assert_type(spent.tokens, TokenUsage)
    assert_type(spent.events, tuple[Event, ...])
    assert_type(spent.of(TokensUsed), tuple[TokensUsed, ...])
    assert_type(spent.conversation(identity), ConversationStats)
    assert_type(spent.conversations, tuple[ConversationStats, ...])
    spent.of(str)  # pyright: ignore[reportArgumentType]
    spent.cost = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    capture("id")  # pyright: ignore[reportCallIssue]


def naming() -> None:
    assert_type(COST, Metric)
    assert_type(COST.prometheus_name, str)
    assert_type(prometheus_label(REQUEST_MODEL), str)
    assert_type(load(ViewerSettings, port=0), ViewerSettings)
    load(dict)  # pyright: ignore[reportArgumentType]
