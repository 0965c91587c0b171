"""The one place that knows ``opentelemetry-util-genai``, whose names still move from release to release.

It makes the spans as the GenAI conventions want them. What it would do beyond that is turned off: its metrics (ours
come from the ledger), the current context (a span of ours is nobody's ambient parent) and the text of exceptions,
which it puts into the span's status. Content comes here redacted; whether it is exported is said by variables of its.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Final

from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import SpanContext, Tracer, TracerProvider
from opentelemetry.util.genai.handler import TelemetryHandler  # pyright: ignore[reportMissingTypeStubs]
from opentelemetry.util.genai.invocation import (  # pyright: ignore[reportMissingTypeStubs]
    CLIENT_INFERENCE_CONTEXT_KEY,
    GenAIInvocation,
    InferenceData,
    InferenceInvocation,
    ToolInvocation,
)
from opentelemetry.util.genai.types import (  # pyright: ignore[reportMissingTypeStubs]
    Error,
    InputMessage,
    MessagePart,
    OutputMessage,
    ReasoningPart,
    TextPart,
    ToolCallRequestPart,
    ToolCallResponsePart,
)
from opentelemetry.util.types import Attributes

from openhands_otel import semconv
from openhands_otel._internal.content import Content, ContentPart, Message, Reasoning, Text, ToolAnswer, ToolRequest
from openhands_otel._internal.scoped import set_until
from openhands_otel._internal.version import __version__
from openhands_otel.events import ResponseMetadata
from openhands_otel.semconv import GenAINames

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
OPENLLMETRY_SUPPRESSION: Final = "suppress_language_model_instrumentation"
COMPLETION_HOOK: Final = "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK"
_suppressing: ContextVar[bool] = ContextVar("openhands_otel_suppressing", default=False)
"""Set beside what is attached: it tells whether a call ends in the context in which it began."""

GenAIValue = str | bool | int | float


class GenAISpan:
    """A span that is open."""

    def __init__(self, invocation: GenAIInvocation) -> None:
        self._invocation = invocation
        self._said_by_error: str | None = None

    @property
    def context(self) -> Context:
        """What a child's span takes as its parent's context."""
        return self._invocation.context

    @property
    def span_context(self) -> SpanContext:
        """What a link points to."""
        return self._invocation.span.get_span_context()

    def set(self, attributes: Mapping[str, GenAIValue]) -> None:
        """Attributes that the span gets at its end."""
        self._invocation.attributes.update(attributes)

    def link(self, to: SpanContext) -> None:
        """Point to a span that has to do with this one."""
        self._invocation.span.add_link(to)

    def event(self, name: str, attributes: Mapping[str, GenAIValue]) -> None:
        """Something happened."""
        self._invocation.span.add_event(name, attributes)

    def spoken(self, content: Content) -> None:
        """Something was said, and is redacted."""
        if captures_on_spans():
            self._said_by_error = content.error

    def end(self, error_type: str | None = None) -> None:
        """End the span, as failed where ``error_type`` is given. A description could say anything, so it is content."""
        if error_type is None:
            self._invocation.stop()
        else:
            self._invocation.fail(Error(message=self._said_by_error, type=error_type))


class ChatSpan(GenAISpan):
    """The span of a logical LLM call."""

    def __init__(self, invocation: InferenceInvocation) -> None:
        super().__init__(invocation)
        self._inference = invocation

    def first_chunk(self, seconds: float) -> None:
        """The answer is streamed, and its first chunk came after so long."""
        self._inference.request_stream = True
        self._inference.ttfc_seconds = seconds

    def ended(self, response: ResponseMetadata) -> None:
        """What the provider says of its response."""
        self._inference.response_id = response.id
        self._inference.response_model_name = response.model
        self._inference.finish_reasons = response.finish_reasons or None

    def spoken(self, content: Content) -> None:
        super().spoken(content)
        if content.system:
            self._inference.system_instruction = [TextPart(each) for each in content.system]
        if content.input:
            self._inference.input_messages = [InputMessage(each.role, _parts(each)) for each in content.input]
        if content.output:
            self._inference.output_messages = [OutputMessage(each.role, _parts(each)) for each in content.output]


class ToolSpan(GenAISpan):
    """The span of a tool call."""

    def __init__(self, invocation: ToolInvocation) -> None:
        super().__init__(invocation)
        self._tool = invocation

    def spoken(self, content: Content) -> None:
        super().spoken(content)
        if content.arguments is not None:
            self._tool.arguments = json.dumps(content.arguments, ensure_ascii=False)
        if content.result is not None:
            self._tool.tool_result = content.result


class _WithSchema(TracerProvider):
    """Tracers of the newest conventions' schema; the handler itself names an older one, whatever is on its spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes | None = None,
    ) -> Tracer:
        return self._provider.get_tracer(
            instrumenting_module_name, instrumenting_library_version, semconv.GENAI_SCHEMA_URL, attributes
        )


class GenAI:
    """Starts spans on a provider; parents are given, never taken from the current context."""

    def __init__(self, provider: TracerProvider, names: GenAINames = GenAINames.TODAY) -> None:
        self._tells_server = names.has_newest
        self._handler = TelemetryHandler(
            tracer_provider=_WithSchema(provider) if names.has_newest else provider,
            # Without one it takes the global one, and emits metrics that we have already.
            meter_provider=NoOpMeterProvider(),
            instrumentation_scope_name=semconv.SCOPE_SPANS,
            instrumentation_scope_version=__version__,
        )

    def run(self, agent: str | None, conversation_id: str, context: Context) -> GenAISpan:
        """``invoke_agent``. Should it run inside an LLM call of the application, that is not a call of the agent's."""
        context = set_value(CLIENT_INFERENCE_CONTEXT_KEY, None, context)
        return GenAISpan(
            self._handler.invoke_local_agent(
                agent_name=agent, conversation_id=conversation_id, context=context, _attach_to_context=False
            )
        )

    def chat(
        self, provider: str, model: str, conversation_id: str | None, context: Context, server: tuple[str, int] | None
    ) -> ChatSpan:
        """``chat``."""
        host, port = server if server is not None and self._tells_server else (None, None)
        return ChatSpan(
            self._handler.inference(
                provider,
                request_model=model,
                server_address=host,
                server_port=port,
                conversation_id=conversation_id,
                context=context,
                _attach_to_context=False,
            )
        )

    def tool(self, name: str, agent: str | None, context: Context) -> ToolSpan:
        """``execute_tool``."""
        return ToolSpan(
            self._handler.tool(name, tool_type="function", agent_name=agent, context=context, _attach_to_context=False)
        )


def suppress_inner_calls() -> Callable[[], None]:
    """Keep instrumentation of LLM clients that uses this library, or is OpenLLMetry's, from making a span of its own.

    Of the call that begins here, until the returned function is called, in this thread or task. What it would tell the
    outer span is thrown away: it is told of one attempt, and not redacted.
    """
    within = set_value(CLIENT_INFERENCE_CONTEXT_KEY, InferenceData())
    token = attach(set_value(OPENLLMETRY_SUPPRESSION, True, within))
    # In another context nothing was attached: OpenTelemetry would log an error.
    return set_until(_suppressing, True, lambda: detach(token))


def captures_content() -> bool:
    """Whether its variables ask for content; it reads them itself when the first span begins, and complains."""
    return _mode() not in ("", "NO_CONTENT") or bool(os.environ.get(COMPLETION_HOOK, "").strip())


def captures_on_spans() -> bool:
    """Whether they ask for it on spans, and not in events alone."""
    return _mode() in ("SPAN_ONLY", "SPAN_AND_EVENT")


def _mode() -> str:
    return os.environ.get(CAPTURE, "").strip().upper()


def _parts(message: Message) -> list[MessagePart]:
    return [_part(each) for each in message.parts]


def _part(part: ContentPart) -> MessagePart:
    match part:
        case Text():
            return TextPart(part.text)
        case Reasoning():
            return ReasoningPart(part.text)
        case ToolRequest():
            return ToolCallRequestPart(part.arguments, part.name, part.id)
        case ToolAnswer():
            return ToolCallResponsePart(part.text, part.id)
