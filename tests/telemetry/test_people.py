"""Who somebody is and what his machine and folder are called: in no byte that leaves, unless a setting lists it."""

from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel import semconv
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.semconv import LABEL_PREFIX
from trace_receiver import TraceReceiver, http_trace_receiver

from .conftest import Start

PROGRAM = """
    import os, socket
    socket.gethostname = lambda: "planted-host-4711"
    import spending
    from openhands.sdk import LLM, Agent, LocalConversation
    instrumentor = spending.instrument()
    folder = "planted-path-4711/planted-folder-4711"
    os.makedirs(folder)
    llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="x", num_retries=1)
    conversation = LocalConversation(
        agent=Agent(llm=llm, tools=[]), workspace=folder, visualizer=None, user_id="planted-user-4711",
        tags={"team": "planted-team-4711", "owner": "planted-owner-4711"})
    conversation.send_message("hello")
    conversation.run()
    conversation.close()
    assert instrumentor.flush(50)
    """
DETECTED = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "host,process,os,otel"}
WORDS = ["host", "path", "folder", "user", "team", "owner"]


def run(start: Start, llm_server: LLMServer, **environ: str) -> tuple[TraceReceiver, bytes]:
    with http_trace_receiver() as receiver:
        child = start(
            PROGRAM,
            "",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.base,
            LLM=llm_server.base_url(None),
            **DETECTED,
            **environ,
        )
        assert child.wait(90) == 0, child.err
        assert receiver.bodies
    return receiver, b"".join(receiver.bodies) + b"".join(receiver.others["metrics"])


def points_of(receiver: TraceReceiver, metric: str) -> list[dict[str, str]]:
    """Labels of a counter's points."""
    return [
        {each.key: each.value.string_value for each in point.attributes if each.key.startswith(LABEL_PREFIX)}
        for body in receiver.others["metrics"]
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric
        for point in found.sum.data_points
    ]


def test_nothing_of_people_leaves_by_default_whatever_detectors_find(start: Start, llm_server: LLMServer) -> None:
    receiver, sent = run(start, llm_server)
    assert semconv.CONVERSATION_COST.name.encode() in sent
    assert [word for word in WORDS if f"planted-{word}-4711".encode() in sent] == []
    assert LABEL_PREFIX.encode() not in sent
    for name in ("host.name", "host.id", "process.owner", "process.command", "process.executable.path", "enduser."):
        assert name.encode() not in sent, name
    resource = receiver.spans[0].resource
    assert {"process.pid", "os.type"} <= resource.keys(), "what names nobody is what a detector was asked for"


def test_what_is_listed_is_told_as_labels_and_the_rest_is_not(start: Start, llm_server: LLMServer) -> None:
    listed = "user_id, tags.team, host.name, workspace, enduser.id, secrets"
    receiver, sent = run(start, llm_server, OPENHANDS_OTEL_SEND=listed, OTEL_RESOURCE_ATTRIBUTES="enduser.id=somebody")
    assert [word for word in WORDS if f"planted-{word}-4711".encode() in sent] == ["host", "folder", "user", "team"]
    named = {
        f"{LABEL_PREFIX}user": "planted-user-4711",
        f"{LABEL_PREFIX}team": "planted-team-4711",
        f"{LABEL_PREFIX}workspace": "planted-folder-4711",
    }
    costs = points_of(receiver, semconv.CONVERSATION_COST.name)
    assert costs
    assert all(labels == named for labels in costs)
    assert all(labels == {} for labels in points_of(receiver, semconv.COST.name))
    for span in receiver.spans:
        assert span.resource[f"{LABEL_PREFIX}host"] == "planted-host-4711"
        assert span.resource[f"{LABEL_PREFIX}user"] == "somebody"
        assert named.items() <= span.attributes.items()


def test_what_somebody_writes_into_the_resource_himself_is_sent(start: Start, llm_server: LLMServer) -> None:
    meant = dict.fromkeys(("host.name", "enduser.id", "process.owner", "user.email"), "meant-4711")
    given = ",".join(f"{name}={value}" for name, value in meant.items())
    receiver, _ = run(start, llm_server, OTEL_RESOURCE_ATTRIBUTES=given)
    assert meant.items() <= receiver.spans[0].resource.items()
