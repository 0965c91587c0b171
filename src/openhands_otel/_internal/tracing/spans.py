"""Turns runs, LLM calls and tool calls into spans: ``invoke_agent`` over ``chat`` and ``execute_tool``.

It is a sink on the bus and works on the agent's thread, where a span begins and ends. Parents come from a record of
what is open and not from the current context: that is wrong in the threads of tools, and Laminar or a web framework
may have spans of their own there. Only a run that nobody of ours started takes the application's current span.

The record holds what is open and nothing else, up to a limit. What does not begin under ``suppress_instrumentation``
or beyond the limit is not there when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.content import MessageCaptured
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.labels import Labels, merged
from openhands_otel._internal.tracing import genai
from openhands_otel._internal.tracing.content_limits import redacted
from openhands_otel._internal.tracing.genai import GenAI
from openhands_otel._internal.tracing.redaction import Redaction
from openhands_otel.events import (
    CallRetried,
    CostAdded,
    Event,
    FirstChunk,
    LatencyRecorded,
    LLMCallEnded,
    LLMCallStarted,
    Origin,
    RunEnded,
    RunStarted,
    TokensUsed,
    ToolEnded,
    ToolStarted,
)
from openhands_otel.semconv import CostSource, Operation, RunOutcome, ToolOutcome

OPEN_LIMIT: Final = 10_000
"""Spans of each kind that may be open at a time."""

_FAILED_RUNS: Final = frozenset({RunOutcome.ERROR, RunOutcome.STUCK})
_BY_PROVIDER: Final = frozenset({CostSource.PROVIDER, CostSource.ACP_REPORTED})


@dataclass(slots=True)
class _Usage:
    """What one span spent, over all attempts."""

    cost: float | None = None
    source: CostSource = CostSource.PRICE_TABLE
    tokens: dict[str, int] = field(default_factory=dict[str, int])

    def add_cost(self, event: CostAdded) -> None:
        self.cost = (self.cost or 0.0) + event.amount
        self.source = event.source

    def add_tokens(self, event: TokensUsed) -> None:
        for name, count in (
            (semconv.USAGE_INPUT_TOKENS, event.input),
            (semconv.USAGE_OUTPUT_TOKENS, event.output),
            (semconv.USAGE_CACHE_READ_TOKENS, event.cache_read),
            (semconv.USAGE_CACHE_WRITE_TOKENS, event.cache_write),
            (semconv.USAGE_REASONING_TOKENS, event.reasoning),
        ):
            self.tokens[name] = self.tokens.get(name, 0) + count
        for direction, counts in (("input", event.input_modalities), ("output", event.output_modalities)):
            for modality, count in counts:
                name = semconv.USAGE_BY_MODALITY.format(modality=modality.value, direction=direction)
                self.tokens[name] = self.tokens.get(name, 0) + count

    def attributes(self) -> dict[str, genai.GenAIValue]:
        attributes: dict[str, genai.GenAIValue] = dict(self.tokens)
        if self.cost is not None:
            attributes[semconv.USAGE_COST] = self.cost
            attributes[semconv.USAGE_COST_AMOUNT] = self.cost
            attributes[semconv.USAGE_COST_CURRENCY] = semconv.USD
            by_provider = self.source in _BY_PROVIDER
            attributes[semconv.USAGE_COST_SOURCE] = semconv.COST_BY_PROVIDER if by_provider else semconv.COST_BY_CLIENT
            attributes[semconv.COST_SOURCE] = self.source.value
        return attributes


@dataclass(slots=True)
class _Open[S: genai.GenAISpan]:
    span: S
    conversation_id: str | None
    before: int | None = None
    """The run of the same conversation that this one began in."""
    usage: _Usage = field(default_factory=_Usage)

    def end(self, error_type: str | None = None) -> None:
        self.span.set(self.usage.attributes())
        self.span.end(error_type)


class Spans:
    """The sink. ``make`` is asked once, when the first span is to begin; None from it means that there are none.

    What is said is captured where there is a ``redaction``. ``labels`` are those of the process: the application's
    provider need not have them on its Resource.
    """

    def __init__(
        self, make: Callable[[], GenAI | None], redaction: Redaction | None = None, labels: Labels = ()
    ) -> None:
        self._labels = labels
        self._make = make
        self._redaction = redaction
        self._made = False
        self._making = threading.Lock()
        self._genai: GenAI | None = None
        self._runs: dict[int, _Open[genai.GenAISpan]] = {}
        self._run_of: dict[str, int] = {}
        """The newest open run of a conversation."""
        self._chats: dict[int, _Open[genai.ChatSpan]] = {}
        self._tools: dict[int, _Open[genai.ToolSpan]] = {}
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            RunEnded: self._run_ended,
            LLMCallStarted: self._call_started,
            LLMCallEnded: self._call_ended,
            FirstChunk: self._first_chunk,
            CallRetried: self._retried,
            CostAdded: self._cost,
            TokensUsed: self._tokens,
            ToolStarted: self._tool_started,
            ToolEnded: self._tool_ended,
            MessageCaptured: self._message_captured,
        }

    @guarded
    def put(self, event: Event | MessageCaptured) -> None:
        """Take an event, or what was said; never raises an Exception."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    @guarded
    def span_of(self, event: Event) -> SpanContext | None:
        """The span of an event that is not put yet (a run's beginning: is put); None if it has none that is sampled."""
        if self._genai is None:
            return None
        match event:
            case CostAdded() | TokensUsed() | LatencyRecorded():
                opened = self._spender(event)
            case LLMCallEnded() | FirstChunk():
                opened = None if event.call is None else self._chats.get(event.call)
            case ToolEnded():
                opened = self._tools.get(event.call)
            case RunStarted() | RunEnded():
                opened = self._runs.get(event.run)
            case _:
                opened = None
        context = None if opened is None else opened.span.span_context
        return context if context is not None and context.trace_flags.sampled else None

    def end_all(self) -> None:
        """End what is open: nobody will say when it ends."""
        for opened in (self._chats, self._tools, self._runs):
            while opened:
                _end_one(opened)
        self._run_of.clear()

    @property
    def begun(self) -> bool:
        """Whether spans are made at all; known once the first has begun."""
        return self._genai is not None

    @property
    def open(self) -> int:
        """Spans that are open."""
        return len(self._chats) + len(self._tools) + len(self._runs)

    def _begins(self, opened: dict[int, Any]) -> GenAI | None:
        if not is_instrumentation_enabled() or len(opened) >= OPEN_LIMIT:
            return None
        if not self._made:
            with self._making:
                if not self._made:
                    try:
                        self._genai = self._make()
                    finally:
                        self._made = True
        return self._genai

    def _run_started(self, event: RunStarted) -> None:
        begin = self._begins(self._runs)
        if begin is None:
            return
        context, related = self._starter_of(event)
        span = begin.run(event.agent, event.conversation_id, get_current() if context is None else context)
        span.set(self._labels_with(event.labels))
        for each in related:
            span.link(each.span.span_context)
        self._runs[event.run] = _Open(span, event.conversation_id, self._run_of.get(event.conversation_id))
        self._run_of[event.conversation_id] = event.run

    def _starter_of(self, event: RunStarted) -> tuple[Context | None, Sequence[_Open[Any]]]:
        """(parent, links) of a run: the tool call that it is part of, or what its parent's conversation does."""
        starter = self._tools.get(event.tool) if event.tool is not None else None
        if starter is not None:
            return starter.span.context, []
        if event.parent_id is None:
            return None, []
        # In a thread of its own: which tool call started it can be told only if there is one.
        tools = [each for each in tuple(self._tools.values()) if each.conversation_id == event.parent_id]
        if len(tools) == 1:
            return tools[0].span.context, []
        run = self._run_in(event.parent_id)
        return (None if run is None else run.span.context), tools[-1:]

    def _run_ended(self, event: RunEnded) -> None:
        opened = self._runs.pop(event.run, None)
        if opened is None:
            return
        if self._run_of.get(event.conversation_id) == event.run:
            if opened.before is not None and opened.before in self._runs:
                self._run_of[event.conversation_id] = opened.before
            else:
                del self._run_of[event.conversation_id]
        opened.span.set({semconv.RUN_OUTCOME: event.outcome.value})
        failed = event.outcome.value if event.outcome in _FAILED_RUNS else None
        opened.end(event.error or failed)

    def _call_started(self, event: LLMCallStarted) -> None:
        begin = self._begins(self._chats)
        if begin is None:
            return
        origin = event.origin
        context = self._context_in(origin.conversation_id, event.tool)
        span = begin.chat(origin.provider, origin.model, origin.conversation_id, context, origin.server)
        attributes: dict[str, genai.GenAIValue] = {semconv.LLM_ROLE: origin.role.value}
        if origin.agent:
            attributes[semconv.AGENT_NAME] = origin.agent
        if origin.usage_id:
            attributes[semconv.USAGE_ID] = origin.usage_id
        span.set(attributes | self._labels_with(origin.labels))
        self._chats[event.call] = _Open(span, origin.conversation_id)

    def _call_ended(self, event: LLMCallEnded) -> None:
        opened = self._chats.pop(event.call, None)
        if opened is None:
            return
        if event.response is not None:
            opened.span.ended(event.response)
        opened.end(event.error)

    def _first_chunk(self, event: FirstChunk) -> None:
        opened = None if event.call is None else self._chats.get(event.call)
        if opened is not None:
            opened.span.first_chunk(event.seconds)

    def _retried(self, event: CallRetried) -> None:
        opened = None if event.call is None else self._chats.get(event.call)
        if opened is not None:
            opened.span.event(semconv.RETRY_EVENT, {semconv.RETRY_ATTEMPT: event.attempt})

    def _cost(self, event: CostAdded) -> None:
        spender = self._spender(event)
        if spender is not None:
            spender.usage.add_cost(event)
            _name_model(spender, event.origin)
            if event.origin.fallback:
                spender.span.set({semconv.LLM_FALLBACK: True})

    def _tokens(self, event: TokensUsed) -> None:
        spender = self._spender(event)
        if spender is not None:
            spender.usage.add_tokens(event)
            _name_model(spender, event.origin)

    def _spender(self, event: CostAdded | TokensUsed | LatencyRecorded) -> _Open[Any] | None:
        """The span that owns what was spent: the call's, or the run's of an ACP agent, whose calls nobody sees."""
        if event.call is not None:
            return self._chats.get(event.call)
        if event.origin.operation is Operation.INVOKE_AGENT:
            return self._run_in(event.origin.conversation_id)
        return None

    def _tool_started(self, event: ToolStarted) -> None:
        begin = self._begins(self._tools)
        if begin is None:
            return
        span = begin.tool(event.tool, event.agent, self._context_in(event.conversation_id, None))
        span.set(self._labels_with(event.labels))
        if event.conversation_id is not None:
            span.set({semconv.CONVERSATION_ID: event.conversation_id})
        self._tools[event.call] = _Open(span, event.conversation_id)

    def _tool_ended(self, event: ToolEnded) -> None:
        opened = self._tools.pop(event.call, None)
        if opened is None:
            return
        opened.span.set({semconv.TOOL_OUTCOME: event.outcome.value})
        failed = None if event.outcome is ToolOutcome.OK else event.outcome.value
        opened.end(event.error or failed)

    def _message_captured(self, message: MessageCaptured) -> None:
        opened: _Open[Any] | None = None
        for kind, number in ((self._chats, message.call), (self._tools, message.tool), (self._runs, message.run)):
            if number is not None:
                opened = kind.get(number)
        if opened is None or self._redaction is None:
            return
        # All of it or nothing: whatever is raised here, nothing has reached the span.
        said = redacted(message.content, self._redaction)
        opened.span.spoken(said.content)
        if said.left_out:
            opened.span.set({semconv.MESSAGES_LEFT_OUT: said.left_out})

    def _labels_with(self, labels: Labels) -> dict[str, genai.GenAIValue]:
        return {semconv.LABEL_PREFIX + name: value for name, value in merged(self._labels, labels)}

    def _run_in(self, conversation_id: str | None) -> _Open[genai.GenAISpan] | None:
        number = None if conversation_id is None else self._run_of.get(conversation_id)
        return None if number is None else self._runs.get(number)

    def _context_in(self, conversation_id: str | None, tool: int | None) -> Context:
        """Parent of what happens in a conversation: the tool call that does it, else the run, else what is current."""
        parent = (self._tools.get(tool) if tool is not None else None) or self._run_in(conversation_id)
        return get_current() if parent is None else parent.span.context


def _name_model(spender: _Open[Any], origin: Origin) -> None:
    """An ACP agent's run stands for its calls, so it says what they would: the model is that of the agent's session."""
    if origin.operation is Operation.INVOKE_AGENT:
        named = {semconv.REQUEST_MODEL: origin.model, semconv.PROVIDER_NAME: origin.provider}
        told: dict[str, genai.GenAIValue] = {name: value for name, value in named.items() if value != semconv.UNKNOWN}
        spender.span.set(told | {semconv.LLM_ROLE: origin.role.value})


@guarded
def _end_one(opened: dict[int, Any]) -> None:
    try:
        _, each = opened.popitem()
    except KeyError:
        # It ended by itself meanwhile.
        return
    each.end()
