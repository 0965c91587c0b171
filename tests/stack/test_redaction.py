"""Keys that somebody's telemetry lets slip don't get past the collector, wherever in a span or log record they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from deploy.native.stack import Stack
from trace_receiver import TraceReceiver, http_trace_receiver

from .jaeger_api import Jaeger
from .otlp_http import logs, pairs, post, span, text, traces
from .prometheus_api import wait

SERVICE = "talkative"
# Each has the word zebra in it. In pieces, so that no scanner of this repository takes them for real ones.
SECRETS = {
    "openai": "sk-" + "proj-Zebra4vN2xK7pL9wR3yB6cD1",
    "anthropic": "sk-" + "ant-api03-Hj5kL8mN2pZebra6tV9wX",
    "aws": "AKIA" + "ZEBRAGHT7YUJ2KLM",
    "github": "ghp_" + "ZebraDe0Fg1Hi2Jk3Lm4No5Pq6",
    "google": "AIza" + "SyDZebramW9xN2vB5cF8hJ1lP3rT6uY8iO0",
    "slack": "xoxb-" + "284756392017-ZebraFgHiJ",
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiJ6ZWJyYSJ9.Zebra-c2lnbmF0dXJl",
    "pem": "-----BEGIN " + "PRIVATE KEY-----\nMIIEvzebracrossing\n-----END PRIVATE KEY-----",
    "bearer": "Bearer " + "zebra.crossing-0123456789",
    "password": "password=" + "zebra-crossing-1",
    "json": '{"db_' + 'password": "zebra-crossing-2"}',
    "json in json": '{"arguments": "{\\"api_' + 'key\\": \\"zebra-crossing-3\\"}"}',
    "environment": "MY_SERVICE_" + "API_KEY=zebra-crossing-4",
    "url": "postgres://admin:" + "zebra-crossing-5@db.example:5432/app",
}
NAMED = (
    "authorization",
    "http.request.header.cookie",
    "db.password",
    "client_secret",
    "aws.secret_access_key",
    "x-api-key",
)
HARMLESS = {
    "gen_ai.usage.input_tokens": AnyValue(int_value=1234),
    "gen_ai.token.type": text("input"),
    "gen_ai.usage.cost": AnyValue(double_value=0.0125),
    "gen_ai.request.model": text("gpt-5-mini-2025-08-07"),
    "gen_ai.conversation.id": text("0b8f7d0e-3c55-4c7e-9d2e-1f6f0a2b3c4d"),
    "message": text(
        "the token count is 17; see https://example.com/a:b, task-oriented work, risk-assessment-of-things"
    ),
}


def carriers(secret: str) -> list[Span]:
    """Spans with the secret in each place where one can be."""
    said = f"before {secret} after"
    nested = AnyValue(
        kvlist_value=KeyValueList(values=pairs({"deep": AnyValue(array_value=ArrayValue(values=[text(said)]))}))
    )
    with_event = span("event")
    with_event.events.add(name="exception", attributes=pairs({"exception.message": text(said)}))
    return [
        span("attribute", {"gen_ai.input.messages": text(said)}),
        span("nested", {"gen_ai.tool.call.arguments": nested}),
        span(f"name {said}"),
        span("status", status=said),
        with_event,
    ]


def leaks(everything: str) -> list[str]:
    """Each secret that got through, and what stands before it."""
    return re.findall(r"(?i).{0,80}zebra.{0,20}", everything)


def test_planted_keys_do_not_reach_jaeger(stack: Stack, jaeger: Jaeger) -> None:
    sent = 0
    for secret in SECRETS.values():
        spans = carriers(secret)
        assert post(stack, traces(SERVICE, *spans, resource={"process.command_line": text(secret)})).status_code == 200
        sent += len(spans)
    for key in NAMED:
        assert post(stack, traces(SERVICE, span("named", {key: text("zebra")}))).status_code == 200
        sent += 1
    assert wait(lambda: len(jaeger.spans(SERVICE)), lambda count: count == sent) == sent
    said = jaeger.text(SERVICE)
    assert leaks(said) == []
    assert said.count("****") >= sent


def test_what_is_no_secret_arrives_as_it_was(stack: Stack, jaeger: Jaeger) -> None:
    sent = span("chat gpt-5", HARMLESS, status="rate limited, try again in 20 s")
    assert post(stack, traces(SERVICE, sent)).status_code == 200
    (found,) = wait(lambda: jaeger.spans(SERVICE), bool)
    assert found.name == sent.name
    for key, value in HARMLESS.items():
        assert found.tags[key] == getattr(value, str(value.WhichOneof("value")))
    assert found.tags["otel.status_description"] == sent.status.message
    assert not [key for key in found.tags if "redact" in key]


@pytest.fixture
def log_store(make_stack: Callable[..., Stack], tmp_path: Path) -> Iterator[tuple[Stack, TraceReceiver]]:
    """A stack whose logs go to a store, as docs/operations.md says; by default they are dropped."""
    with http_trace_receiver() as receiver:
        overlay = tmp_path / "logs.yaml"
        overlay.write_text(
            f"""
            exporters: {{otlp_http/logs: {{endpoint: {receiver.base}, compression: none}}}}
            service: {{pipelines: {{logs: {{exporters: [otlp_http/logs]}}}}}}
            """
        )
        yield make_stack(overlays=[overlay]), receiver


def test_planted_keys_do_not_get_into_a_store_of_logs(log_store: tuple[Stack, TraceReceiver]) -> None:
    stack, receiver = log_store
    for secret in SECRETS.values():
        said = text(f"before {secret} after")
        nested = AnyValue(kvlist_value=KeyValueList(values=pairs({"deep": said, "password": text("zebra")})))
        sent = logs(SERVICE, said, nested, AnyValue(array_value=ArrayValue(values=[said])), attributes={"said": said})
        assert post(stack, sent).status_code == 200
    received = wait(lambda: receiver.others.get("logs", []), lambda bodies: records(bodies) == 3 * len(SECRETS))
    assert records(received) == 3 * len(SECRETS)
    everything = b"".join(received).decode(errors="replace")
    assert leaks(everything) == []
    assert "before" in everything


def records(bodies: list[bytes]) -> int:
    requests = [ExportLogsServiceRequest.FromString(body) for body in bodies]
    scopes = [scope for request in requests for found in request.resource_logs for scope in found.scope_logs]
    return sum(len(scope.log_records) for scope in scopes)
