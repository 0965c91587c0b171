"""What the record of open spans does at its edges; runs of a real agent are in compat/test_spans.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openhands_otel._internal import guard
from openhands_otel._internal.tracing import spans as spans_module
from openhands_otel._internal.tracing.genai import GenAI
from openhands_otel._internal.tracing.spans import Spans
from openhands_otel.events import (
    CostAdded,
    Event,
    LLMCallEnded,
    LLMCallStarted,
    Origin,
    RunEnded,
    RunStarted,
    TokensUsed,
    ToolEnded,
    ToolStarted,
)
from openhands_otel.semconv import CostSource, Operation, Role, Status


class Told:
    """Spans that are told events, with a real provider behind."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.asked = 0

        def make() -> GenAI:
            self.asked += 1
            return GenAI(provider)

        self.spans = Spans(make)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.spans.put(event)

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def parents(self) -> dict[str, str | None]:
        """Names of ended spans to the names of their parents."""
        names = {span.context.span_id: span.name for span in self.ended}
        return {span.name: names[span.parent.span_id] if span.parent else None for span in self.ended}


@pytest.fixture
def told() -> Iterator[Told]:
    errors = dict(guard.error_counts())
    yield Told()
    assert guard.error_counts() == errors


def ended_run(conversation: str, run: int) -> RunEnded:
    return RunEnded(2, conversation, Status.FINISHED, None, run=run)


def ended_tool(number: int, conversation: str = "parent") -> ToolEnded:
    return ToolEnded(2, conversation, f"tool-{number}", number, None)


def test_a_sub_agent_of_one_of_several_tool_calls_is_linked_to_the_newest(told: Told) -> None:
    told.tell(
        RunStarted(1, "parent", 1, "Parent"),
        ToolStarted(1, "parent", "tool-1", 1),
        ToolStarted(1, "parent", "tool-2", 2),
        RunStarted(1, "child", 2, "Child", parent_id="parent"),
        ended_run("child", 2),
        ended_tool(1),
        ended_tool(2),
        ended_run("parent", 1),
    )
    assert told.parents()["invoke_agent Child"] == "invoke_agent Parent"
    (child,) = (span for span in told.ended if span.name == "invoke_agent Child")
    (newest,) = (span for span in told.ended if span.name == "execute_tool tool-2")
    assert [link.context.span_id for link in child.links] == [newest.context.span_id]


def test_a_sub_agent_whose_tool_call_is_known_is_under_it(told: Told) -> None:
    told.tell(
        RunStarted(1, "parent", 1, "Parent"),
        ToolStarted(1, "parent", "tool-1", 1),
        ToolStarted(1, "parent", "tool-2", 2),
        RunStarted(1, "child", 2, "Child", parent_id="parent", tool=1),
        ended_run("child", 2),
        ended_tool(1),
        ended_tool(2),
        ended_run("parent", 1),
    )
    assert told.parents()["invoke_agent Child"] == "execute_tool tool-1"


def test_two_runs_of_one_conversation_end_in_either_order(told: Told) -> None:
    call = Origin("c", model="m")
    for first, second in ((1, 2), (4, 3)):
        told.tell(
            RunStarted(1, "c", min(first, second), "Outer"),
            RunStarted(1, "c", max(first, second), "Inner"),
            ended_run("c", first),
            LLMCallStarted(1, call, first),
            LLMCallEnded(2, call, first, None),
            ended_run("c", second),
        )
    assert [told.parents()["chat m"], told.spans.open] == ["invoke_agent Outer", 0]
    chats = [span for span in told.ended if span.name == "chat m"]
    assert all(chat.parent is not None for chat in chats)


def test_what_nobody_ends_is_bounded_and_ends_with_us(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "OPEN_LIMIT", 3)
    told.tell(*(RunStarted(1, f"c{number}", number) for number in range(10)))
    assert told.spans.open == 3
    told.tell(ended_run("c9", 9))
    told.spans.end_all()
    assert (told.spans.open, len(told.ended)) == (0, 3)
    told.tell(ended_run("c1", 1))
    assert len(told.ended) == 3


def test_what_an_acp_agent_spends_stands_on_its_run(told: Told) -> None:
    """With whose model it was, as far as the agent has said."""
    unsaid = Origin("c", Role.ACP, operation=Operation.INVOKE_AGENT)
    origin = replace(unsaid, model="claude-opus-5", provider="anthropic")
    told.tell(
        RunStarted(1, "c", 1, "ACPAgent"),
        CostAdded(1, unsaid, 0.0, CostSource.ACP_REPORTED, 0.0),
        CostAdded(1, origin, 0.25, CostSource.ACP_REPORTED, 0.25),
        CostAdded(1, origin, 0.5, CostSource.ACP_REPORTED, 0.5),
        TokensUsed(1, origin, 100, 10, 0, 0, 0, 0, ""),
        ended_run("c", 1),
    )
    attributes = dict(told.ended[0].attributes or {})
    assert attributes["gen_ai.usage.cost"] == 0.75
    assert attributes["gen_ai.usage.cost.source"] == "provider"
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert attributes["gen_ai.request.model"] == "claude-opus-5"
    assert attributes["gen_ai.provider.name"] == "anthropic"
    assert attributes["openhands.llm.role"] == "acp"


def test_money_of_no_call_and_no_run_is_on_no_span(told: Told) -> None:
    told.tell(
        RunStarted(1, "c", 1, "Agent"),
        CostAdded(1, Origin("c"), 0.25, CostSource.PRICE_TABLE, 0.25),
        ended_run("c", 1),
    )
    assert "gen_ai.usage.cost" not in (told.ended[0].attributes or {})


def test_threads_that_begin_at_once_ask_once_where_spans_go(told: Told) -> None:
    numbers = count(1)
    barrier = threading.Barrier(8)

    def begin() -> None:
        number = next(numbers)
        barrier.wait(100)
        told.tell(RunStarted(1, f"c{number}", number), ended_run(f"c{number}", number))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert (told.asked, len(told.ended), told.spans.open) == (1, 8, 0)
