"""Spans over a provider of our own: where they go, what is in their bytes, and the ends and forks of the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openhands_otel import semconv
from openhands_otel._internal.demo.answers import Answer, call, refuse, say
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_receiver import Receiver
from trace_receiver import TraceReceiver, grpc_trace_receiver, http_trace_receiver

from .conftest import COLLECTORS, Start

PROGRAM = """
    import logging, os, signal, sys, time
    ours = logging.getLogger("openhands_otel")
    ours.setLevel(logging.INFO)
    ours.addHandler(logging.FileHandler("our.log"))
    import spending
    from openhands.sdk import LLM, Agent, LocalConversation, Message, TextContent, Tool
    from openhands.tools.terminal import TerminalTool

    def llm(script):
        return LLM(model="openai/gpt-4o", base_url=os.environ["LLM"].replace("SCRIPT", script),
                   api_key="planted-key-4711", num_retries=1, retry_min_wait=0, retry_max_wait=0)

    def ask(script="default"):
        llm(script).completion([Message(role="user", content=[TextContent(text="ping")])])

    def talk(script, **options):
        os.makedirs("planted-path-4711", exist_ok=True)
        conversation = LocalConversation(
            agent=Agent(llm=llm(script), **({"tools": []} | options)), workspace="planted-path-4711", visualizer=None)
        conversation.send_message("planted-prompt-4711")
        try:
            conversation.run()
        except Exception as error:
            print("failed", "planted-error-4711" in str(error), flush=True)
        conversation.close()
"""
RUN = [{"invoke_agent Agent": [{"chat gpt-4o": []}]}]


@pytest.fixture
def traces() -> Iterator[TraceReceiver]:
    with http_trace_receiver() as receiver:
        yield receiver


def environ(traces: TraceReceiver | str, llm_server: LLMServer, **more: str) -> dict[str, str]:
    url = traces if isinstance(traces, str) else traces.url
    return {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url, "LLM": llm_server.base_url("SCRIPT")} | more


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_is_sent_before_the_process_ends_and_nothing_that_was_said(
    protocol: str, start: Start, receiver: Receiver, llm_server: LLMServer
) -> None:
    command = "echo planted-argument-4711; echo planted-resu''lt-4711"
    llm_server.script("works", [call("terminal", {"command": command}), say("planted-answer-4711")])
    llm_server.script("fails", lambda request: refuse(400, text="planted-error-4711"))
    with http_trace_receiver() if protocol == "http/protobuf" else grpc_trace_receiver() as traces:
        child = start(
            PROGRAM
            + """
    spending.instrument()
    talk("works", tools=[Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})])
    talk("fails")
    """,
            f"{receiver.url}/v1/metrics",
            **environ(
                traces,
                llm_server,
                OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=protocol,
                OTEL_EXPORTER_OTLP_TRACES_HEADERS="x-key=planted-header-4711",
                PLANTED="planted-environment-4711",
            ),
        )
        assert child.wait(100) == 0, child.err
        chat, shell = {"chat gpt-4o": []}, {"execute_tool terminal": []}
        assert traces.tree() == [{"invoke_agent Agent": [chat, chat, shell]}, {"invoke_agent Agent": [chat]}]
        assert {span.attributes.get("error.type") for span in traces.spans} > {None}
        sent = b"".join(traces.bodies)
        assert all(headers["x-key"] == "planted-header-4711" for headers in traces.headers)
    assert "failed True" in child.out, "the planted text is in the exception"
    assert b"planted" not in sent
    assert str(child.directory).encode() not in sent
    log = (child.directory / "our.log").read_text()
    assert log.count("spans:") == 1
    assert "spans: over OTLP" in log
    assert "planted" not in log
    points = receiver.points(semconv.COST.name)
    assert {int.from_bytes(span.trace_id) for span in traces.spans} == {
        exemplar.trace_id for point in receiver.points() for exemplar in point.exemplars
    }
    assert {span.resource["service.instance.id"] for span in traces.spans} == {
        point.resource["service.instance.id"] for point in points
    }
    assert {span.resource["service.name"] for span in traces.spans} == {"openhands"}


def test_a_forked_child_has_a_provider_and_an_instance_id_of_its_own(
    start: Start, receiver: Receiver, traces: TraceReceiver, llm_server: LLMServer
) -> None:
    child = start(
        PROGRAM
        + """
    spending.instrument()
    talk("default")
    # litellm's threads still log that call; forked in the middle of it, a child gets a lock that nobody opens.
    time.sleep(1)
    if os.fork() == 0:
        talk("default")
        sys.exit(0)
    os.wait()
    talk("default")
    """,
        f"{receiver.url}/v1/metrics",
        **environ(traces, llm_server),
    )
    assert child.wait(100) == 0, child.err
    assert traces.tree() == RUN * 3
    instances = [span.resource["service.instance.id"] for span in traces.spans if span.name.startswith("invoke")]
    assert sorted(instances.count(each) for each in set(instances)) == [1, 2]


def test_what_is_open_is_sent_at_sigterm(
    start: Start, receiver: Receiver, traces: TraceReceiver, llm_server: LLMServer
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def answer(request: Any) -> Answer:
        reached.set()
        go_on.wait(100)
        return say("late")

    llm_server.script("slow", answer)
    child = start(
        PROGRAM
        + """
    spending.instrument()
    talk("slow")
    """,
        f"{receiver.url}/v1/metrics",
        **environ(traces, llm_server),
    )
    try:
        assert reached.wait(100), child.err
        child.kill(signal.SIGTERM)
        assert child.wait(100) == -signal.SIGTERM, child.err
    finally:
        go_on.set()
    assert traces.tree() == RUN


@pytest.mark.parametrize("collector", ["refusing", "silent"])
def test_a_dead_collector_holds_neither_the_agent_nor_the_exit_up(
    collector: str, start: Start, receiver: Receiver, llm_server: LLMServer
) -> None:
    with COLLECTORS[collector]() as port:
        child = start(
            PROGRAM
            + """
    from stopwatch import Stopwatch
    spending.instrument()
    watch = Stopwatch()
    talk("default")
    print("took", watch.s(), flush=True)
    spending.mark("end")
    """,
            f"{receiver.url}/v1/metrics",
            **environ(f"http://127.0.0.1:{port}/v1/traces", llm_server),
        )
        assert child.wait(100) == 0, child.err
        assert child.exit_time() < 2.3
        assert child.marks["took"] < 5


DECISION = (
    PROGRAM
    + """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    spending.instrument()
    if os.environ.get("GLOBAL"):
        trace.set_tracer_provider(TracerProvider())
    if os.environ.get("GLOBAL") == "used":
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    ask()
    ask()
    """
)
NAMED = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}
GENERAL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
KEY = {"LMNR_PROJECT_API_KEY": "key"}


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({}, "none,"),
        (NAMED, "over OTLP"),
        (GENERAL, "over OTLP"),
        (NAMED | {"OTEL_TRACES_EXPORTER": "none"}, "none,"),
        (NAMED | {"GLOBAL": "idle"}, "to the application's"),
        (NAMED | {"GLOBAL": "idle", "OTEL_TRACES_EXPORTER": "none"}, "none,"),
        (NAMED | {"GLOBAL": "used", "OTEL_TRACES_EXPORTER": "none"}, "to the application's"),
        (NAMED | KEY, "none of ours, Laminar"),
        (NAMED | KEY | {"OPENHANDS_OTEL_TRACES": "own"}, "over OTLP"),
        (NAMED | {"OPENHANDS_OTEL_TRACES": "own", "OTEL_TRACES_EXPORTER": "none"}, "over OTLP"),
        (GENERAL | {"OPENHANDS_OTEL_TRACES": "otlp", "OTEL_TRACES_EXPORTER": "none"}, "over OTLP"),
        ({"OPENHANDS_OTEL_TRACES": "otlp"}, "none,"),
        (NAMED | KEY | {"OPENHANDS_OTEL_TRACES": "otlp"}, "none of ours, Laminar"),
        (NAMED | {"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, "over OTLP"),
        (NAMED | {"OTEL_TRACES_EXPORTER": "console,otlp_proto_http"}, "over OTLP"),
        (NAMED | {"OPENHANDS_OTEL_TRACES": "off"}, "none of ours (OPENHANDS_OTEL_TRACES=off)"),
        (NAMED | {"OPENHANDS_OTEL_TRACES": "laminar"}, "none of ours (OPENHANDS_OTEL_TRACES=laminar)"),
    ],
)
def test_where_spans_go_is_decided_by_the_environment_and_said_once(
    variables: dict[str, str], where: str, start: Start, receiver: Receiver, llm_server: LLMServer
) -> None:
    child = start(DECISION, f"{receiver.url}/v1/metrics", LLM=llm_server.base_url("SCRIPT"), **variables)
    assert child.wait(100) == 0, child.err
    lines = [line for line in Path(child.directory / "our.log").read_text().splitlines() if line.startswith("spans:")]
    assert len(lines) == 1
    assert lines[0].startswith(f"spans: {where}")
    assert receiver.total("gen_ai.client.inference.usage.input_tokens") > 0, "money and tokens are counted in any case"


def test_the_token_of_a_file_is_shown(
    start: Start, receiver: Receiver, traces: TraceReceiver, llm_server: LLMServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    child = start(
        PROGRAM
        + """
    spending.instrument()
    ask()
    """,
        f"{receiver.url}/v1/metrics",
        **environ(traces, llm_server, OPENHANDS_OTEL_TOKEN_FILE=str(tmp_path / "token")),
    )
    assert child.wait(100) == 0, child.err
    assert [headers["authorization"] for headers in traces.headers] == ["Bearer secret-token"]


LAMINAR = (
    PROGRAM
    + """
    from lmnr import Laminar
    from opentelemetry import trace
    port = int(os.environ["LAMINAR"])
    Laminar.initialize(project_api_key="key", base_url="http://127.0.0.1", http_port=port, grpc_port=port,
                       force_http=True)
    steps = []
    from openhands.sdk.tool.builtins.think import ThinkExecutor
    original = ThinkExecutor.__call__
    def think(self, *args, **kwargs):
        steps.append(trace.get_current_span().is_recording())
        return original(self, *args, **kwargs)
    ThinkExecutor.__call__ = think
    instrumentor = spending.instrument()
    talk("thinks")
    assert instrumentor.flush(50)
    Laminar.flush()
    print("laminar was there", steps, flush=True)
    os._exit(0)
    """
)
"""Leaves at once: Laminar's threads would take their time."""


@pytest.mark.parametrize(("setting", "ours"), [("auto", False), ("own", True)])
def test_beside_laminar_there_are_none_of_ours_or_a_tree_of_our_own(
    setting: str, ours: bool, start: Start, receiver: Receiver, traces: TraceReceiver, llm_server: LLMServer
) -> None:
    llm_server.script("thinks", [call("think", {"thought": "hm"}), say("done")])
    with http_trace_receiver() as laminar:
        child = start(
            LAMINAR,
            f"{receiver.url}/v1/metrics",
            **environ(traces, llm_server, OPENHANDS_OTEL_TRACES=setting, LAMINAR=laminar.base.rpartition(":")[2]),
        )
        assert child.wait(90) == 0, child.err
        assert "laminar was there [True]" in child.out
        names = [span.name for span in laminar.spans]
        assert names, "Laminar's own arrived"
        assert len({span.span_id for span in laminar.spans}) == len(names)
        assert not [name for name in names if name.startswith(("chat ", "invoke_agent", "execute_tool"))]
    run = {"invoke_agent Agent": [{"chat gpt-4o": []}, {"chat gpt-4o": []}, {"execute_tool think": []}]}
    assert traces.tree() == ([run] if ours else [])
    assert receiver.total(semconv.COST.name) == pytest.approx(llm_server.bill.total, abs=1e-9)
    assert receiver.total(semconv.CONVERSATION_COST.name) == pytest.approx(llm_server.bill.total, abs=1e-9)
