"""A traces request into spans: what cannot be kept is left out and reported, as OTLP's partial success has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance, instance_of, parse_request
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.spans.attributes import SpanRoom, count_of, number_of, text_of
from openhands_otel._internal.collector.spans.span import Span, SpanKind
from openhands_otel._internal.exact import INT64_MAX

AHEAD_S: Final = 86_400
"""How far ahead of the viewer's clock a span may end."""
_FIRST: Final = 946_684_800 * 10**9
"""The year 2000: an earlier time is none."""
_NAME: Final = 256
_EVENTS: Final = 64
_EVENT_ATTRIBUTES: Final = 32
_MOST_DOLLARS: Final = 1e9
_MOST_SECONDS: Final = 1e9

_KINDS: Final = {"invoke_agent": SpanKind.RUN, "chat": SpanKind.CALL, "execute_tool": SpanKind.TOOL}
_CONTENT: Final = frozenset(
    {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
    }
)
_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
_RESPONSE_MODEL: Final = "gen_ai.response.model"

_TEXTS: Final = {
    "role": semconv.LLM_ROLE,
    "model": semconv.REQUEST_MODEL,
    "response_model": _RESPONSE_MODEL,
    "provider": semconv.PROVIDER_NAME,
    "agent": semconv.AGENT_NAME,
    "usage_id": semconv.USAGE_ID,
    "tool": semconv.TOOL_NAME,
    "cost_source": semconv.COST_SOURCE,
    "error_type": semconv.ERROR_TYPE,
}
_COUNTS: Final = {
    "prompt_tokens": semconv.USAGE_INPUT_TOKENS,
    "completion_tokens": semconv.USAGE_OUTPUT_TOKENS,
    "cache_read_tokens": semconv.USAGE_CACHE_READ_TOKENS,
    "cache_write_tokens": semconv.USAGE_CACHE_WRITE_TOKENS,
    "reasoning_tokens": semconv.USAGE_REASONING_TOKENS,
}
_RESOURCE: Final = frozenset(
    {
        semconv.SERVICE_NAME,
        semconv.SERVICE_NAMESPACE,
        semconv.SERVICE_INSTANCE_ID,
        semconv.DEPLOYMENT_ENVIRONMENT,
    }
)
"""What each span keeps of its Resource; labels are kept apart."""
_CLAIMS: Final = frozenset(
    {
        *_TEXTS.values(),
        *_COUNTS.values(),
        semconv.OPERATION_NAME,
        semconv.CONVERSATION_ID,
        semconv.USAGE_COST,
        semconv.RUN_OUTCOME,
        semconv.TOOL_OUTCOME,
        _FINISH_REASONS,
        _FIRST_CHUNK,
    }
)
"""What a list shows of a span has room before anything else."""


@dataclass(slots=True)
class DecodedSpans:
    """A whole traces request."""

    spans: list[Span] = field(default_factory=list[Span])
    count: int = 0
    """How many there were, those that are refused too."""
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def size(self) -> int:
        """Bytes that they take, about."""
        return sum(span.size for span in self.spans)


def decode_spans(body: bytes, is_json: bool, received: int) -> DecodedSpans:
    """Read a whole traces request that came at ``received`` (unix nanoseconds). Raises MalformedRequest."""
    request = parse_request(ExportTraceServiceRequest(), body, is_json)
    decoded = DecodedSpans()
    for resource_spans in request.resource_spans:
        instance = instance_of(resource_spans.resource.attributes)
        resource = dict(instance.resource)
        labels = _labels(resource)
        resource = {name: value for name, value in resource.items() if name in _RESOURCE}
        decoded.refusals.of(instance.service, instance.name)
        for scope_spans in resource_spans.scope_spans:
            decoded.count += len(scope_spans.spans)
            for message in scope_spans.spans:
                reason = _why_not(message, received)
                if reason is None:
                    decoded.spans.append(_span(message, _Source(instance, resource, labels, scope_spans.scope.name)))
                else:
                    decoded.refusals.add(reason)
    return decoded


def _why_not(message: SpanMessage, received: int) -> str | None:
    ids = ((message.trace_id, 16), (message.span_id, 8))
    if any(len(given) != size or not any(given) for given, size in ids) or len(message.parent_span_id) not in (0, 8):
        return "a span has ids that are none"
    if not _FIRST <= message.start_time_unix_nano <= received + AHEAD_S * 10**9:
        return "a span begins at a time that is out of range"
    if message.end_time_unix_nano > received + AHEAD_S * 10**9:
        return "a span ends more than a day ahead of the viewer's clock"
    return None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a span comes from."""

    instance: Instance
    resource: dict[str, Any]
    labels: dict[str, str]
    scope: str


def _span(message: SpanMessage, source: _Source) -> Span:
    room, ours = SpanRoom(), source.scope == semconv.SCOPE_SPANS
    attributes = room.attributes(message.attributes, _CLAIMS)
    kind = _KINDS.get(str(attributes.get(semconv.OPERATION_NAME)), SpanKind.OTHER) if ours else SpanKind.OTHER
    parent = "" if message.parent_span_id in (message.span_id, bytes(8)) else message.parent_span_id.hex()
    return Span(
        trace=message.trace_id.hex(),
        span=message.span_id.hex(),
        parent=parent,
        conversation=(text_of(attributes, semconv.CONVERSATION_ID) or "") if ours else "",
        service=source.instance.service,
        kind=kind,
        name=message.name[:_NAME],
        started=message.start_time_unix_nano,
        # A clock may have been set back meanwhile.
        ended=max(message.start_time_unix_nano, message.end_time_unix_nano),
        labels=_dumped(source.labels | _labels(attributes)),
        facts=_dumped(_facts(message, attributes)),
        details=_dumped(_details(message, attributes, source, room)),
    )


def _facts(message: SpanMessage, attributes: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {name: text_of(attributes, attribute) for name, attribute in _TEXTS.items()}
    facts |= {name: count_of(attributes, attribute) for name, attribute in _COUNTS.items()}
    facts["cost"] = number_of(attributes, semconv.USAGE_COST, _MOST_DOLLARS)
    facts["first_chunk_s"] = number_of(attributes, _FIRST_CHUNK, _MOST_SECONDS)
    facts["outcome"] = text_of(attributes, semconv.RUN_OUTCOME) or text_of(attributes, semconv.TOOL_OUTCOME)
    facts["finish_reason"] = _finish_reason(attributes.get(_FINISH_REASONS))
    facts["retries"] = sum(event.name == semconv.RETRY_EVENT for event in message.events) or None
    if message.status.code == StatusMessage.STATUS_CODE_ERROR:
        facts["error_type"] = facts["error_type"] or "error"
    facts["has_content"] = not _CONTENT.isdisjoint(attributes) or None
    return {name: value for name, value in facts.items() if value is not None}


def _finish_reason(given: object) -> str | None:
    reasons = cast(list[object], given) if isinstance(given, list) else []
    return ", ".join(str(reason) for reason in reasons[:8])[:_NAME] or None


def _details(message: SpanMessage, attributes: dict[str, Any], source: _Source, room: SpanRoom) -> dict[str, Any]:
    events = [
        {
            "unix_nano": min(event.time_unix_nano, INT64_MAX),
            "name": event.name[:_NAME],
            "attributes": room.attributes(event.attributes, most=_EVENT_ATTRIBUTES),
        }
        for event in message.events[:_EVENTS]
    ]
    links = [
        {"trace_id": link.trace_id[:16].hex(), "span_id": link.span_id[:8].hex()} for link in message.links[:_EVENTS]
    ]
    room.left_out += max(0, len(message.events) - _EVENTS) + max(0, len(message.links) - _EVENTS)
    details: dict[str, Any] = {
        "scope": source.scope[:_NAME],
        "status_message": message.status.message[:_NAME],
        "attributes": attributes,
        "events": events,
        "links": links,
        "resource": source.resource,
        "left_out": room.left_out + message.dropped_attributes_count,
    }
    return {name: value for name, value in details.items() if value}


def _labels(attributes: dict[str, Any]) -> dict[str, str]:
    prefix = semconv.LABEL_PREFIX
    return {name.removeprefix(prefix): str(v) for name, v in attributes.items() if name.startswith(prefix)}


def _dumped(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
