"""Builds traces requests as our instrumentation makes them, and as anybody else may."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from openhands_otel import semconv
from otlp_sender import key_values

SECOND = 1_000_000_000


def trace_of(number: int) -> bytes:
    return number.to_bytes(16)


def id_of(number: int) -> bytes:
    return number.to_bytes(8)


@dataclass
class SpanSender:
    """One process: collects spans, then hands out the request that carries them. Ids are small numbers."""

    service: str = "agent"
    instance: str = "p"
    resource: dict[str, str] = field(default_factory=dict)
    scope: str = semconv.SCOPE_SPANS
    began: int = field(default_factory=lambda: time.time_ns() - 60 * SECOND)
    """What starts and ends are counted from, unix nanoseconds."""
    spans: list[Span] = field(default_factory=list)

    def add(
        self,
        number: int,
        name: str = "span",
        *,
        trace: int = 1,
        parent: int = 0,
        start: float = 0.0,
        end: float = 1.0,
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        """Any span; ``start`` and ``end`` are seconds."""
        span = Span(
            trace_id=trace_of(trace),
            span_id=id_of(number),
            parent_span_id=id_of(parent) if parent else b"",
            name=name,
            start_time_unix_nano=self.began + int(start * SECOND),
            end_time_unix_nano=self.began + int(end * SECOND),
            attributes=key_values(attributes or {}),
        )
        self.spans.append(span)
        return span

    def call(self, number: int, conversation: str, *, cost: float | None = None, **more: Any) -> Span:
        """An LLM call of a conversation."""
        attributes = {
            semconv.OPERATION_NAME: "chat",
            semconv.CONVERSATION_ID: conversation,
            semconv.LLM_ROLE: "agent",
            semconv.REQUEST_MODEL: "gpt",
            semconv.PROVIDER_NAME: "openai",
            **more.pop("attributes", {}),
        }
        if cost is not None:
            attributes[semconv.USAGE_COST] = cost
        return self.add(number, "chat gpt", attributes=attributes, **more)

    def tool(self, number: int, conversation: str, tool: str = "terminal", **more: Any) -> Span:
        """A tool call of a conversation."""
        attributes = {
            semconv.OPERATION_NAME: "execute_tool",
            semconv.CONVERSATION_ID: conversation,
            semconv.TOOL_NAME: tool,
            semconv.TOOL_OUTCOME: "ok",
            **more.pop("attributes", {}),
        }
        return self.add(number, f"execute_tool {tool}", attributes=attributes, **more)

    def run(self, number: int, conversation: str, agent: str = "Agent", **more: Any) -> Span:
        """A run of a conversation."""
        attributes = {
            semconv.OPERATION_NAME: "invoke_agent",
            semconv.CONVERSATION_ID: conversation,
            semconv.AGENT_NAME: agent,
            semconv.RUN_OUTCOME: "finished",
            **more.pop("attributes", {}),
        }
        return self.add(number, f"invoke_agent {agent}", attributes=attributes, **more)

    def request(self) -> ExportTraceServiceRequest:
        """The request with all spans added since the last one."""
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add()
        resource_spans.resource.attributes.extend(
            key_values(
                {semconv.SERVICE_NAME: self.service, semconv.SERVICE_INSTANCE_ID: self.instance, **self.resource}
            )
        )
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = self.scope
        scope_spans.spans.extend(self.spans)
        self.spans = []
        return request

    def body(self) -> bytes:
        return self.request().SerializeToString()


def fail(span: Span, error: str) -> Span:
    """Have it have failed."""
    span.status.code = Status.STATUS_CODE_ERROR
    span.attributes.extend(key_values({semconv.ERROR_TYPE: error}))
    return span
