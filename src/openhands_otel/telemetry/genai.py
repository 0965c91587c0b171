"""The one place that knows ``opentelemetry-util-genai``, whose names still move from release to release.

It makes the spans as the GenAI conventions want them. What it would do beyond that is turned off: its metrics (ours
come from the ledger), the current context (a span of ours is nobody's ambient parent) and the text of exceptions,
which it puts into the span's status.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context, set_value
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import SpanContext, TracerProvider
from opentelemetry.util.genai.handler import TelemetryHandler  # pyright: ignore[reportMissingTypeStubs]
from opentelemetry.util.genai.invocation import (  # pyright: ignore[reportMissingTypeStubs]
    CLIENT_INFERENCE_CONTEXT_KEY,
    GenAIInvocation,
    InferenceInvocation,
)
from opentelemetry.util.genai.types import Error  # pyright: ignore[reportMissingTypeStubs]

from openhands_otel import semconv
from openhands_otel.version import __version__

Value = str | bool | int | float


class Operation:
    """A span that is open."""

    def __init__(self, invocation: GenAIInvocation) -> None:
        self._invocation = invocation

    @property
    def context(self) -> Context:
        """What a child's span takes as its parent's context."""
        return self._invocation.context

    @property
    def span_context(self) -> SpanContext:
        """What a link points to."""
        return self._invocation.span.get_span_context()

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Attributes that the span gets at its end."""
        self._invocation.attributes.update(attributes)

    def link(self, to: SpanContext) -> None:
        """Point to a span that has to do with this one."""
        self._invocation.span.add_link(to)

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Something happened."""
        self._invocation.span.add_event(name, attributes)

    def end(self, error_type: str | None = None) -> None:
        """End the span, as failed where ``error_type`` is given; never with a description, which could say anything."""
        if error_type is None:
            self._invocation.stop()
        else:
            self._invocation.fail(Error(message=None, type=error_type))


class Chat(Operation):
    """The span of a logical LLM call."""

    def __init__(self, invocation: InferenceInvocation) -> None:
        super().__init__(invocation)
        self._inference = invocation

    def first_chunk(self, seconds: float) -> None:
        """The answer is streamed, and its first chunk came after so long."""
        self._inference.request_stream = True
        self._inference.ttfc_seconds = seconds

    def answered(self, response_id: str | None, model: str | None, finish_reasons: tuple[str, ...]) -> None:
        """What the provider says of its answer."""
        self._inference.response_id = response_id
        self._inference.response_model_name = model
        self._inference.finish_reasons = finish_reasons or None


class GenAI:
    """Starts spans on a provider; parents are given, never taken from the current context."""

    def __init__(self, provider: TracerProvider) -> None:
        self._handler = TelemetryHandler(
            tracer_provider=provider,
            # Without one it takes the global one, and emits metrics that we have already.
            meter_provider=NoOpMeterProvider(),
            instrumentation_scope_name=semconv.SCOPE_SPANS,
            instrumentation_scope_version=__version__,
        )

    def run(self, agent: str | None, conversation_id: str, context: Context) -> Operation:
        """``invoke_agent``. Should it run inside an LLM call of the application, that is not a call of the agent's."""
        context = set_value(CLIENT_INFERENCE_CONTEXT_KEY, None, context)
        return Operation(
            self._handler.invoke_local_agent(
                agent_name=agent, conversation_id=conversation_id, context=context, _attach_to_context=False
            )
        )

    def chat(self, provider: str, model: str, conversation_id: str | None, context: Context) -> Chat:
        """``chat``."""
        return Chat(
            self._handler.inference(
                provider,
                request_model=model,
                conversation_id=conversation_id,
                context=context,
                _attach_to_context=False,
            )
        )

    def tool(self, name: str, agent: str | None, context: Context) -> Operation:
        """``execute_tool``."""
        return Operation(
            self._handler.tool(name, tool_type="function", agent_name=agent, context=context, _attach_to_context=False)
        )
