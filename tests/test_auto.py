"""What importing ``openhands_otel.auto`` does where OpenHands is loaded already, and what it does where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from openhands_otel._internal.demo.llm_server import LLMServer
from trace_receiver import TraceReceiver, http_trace_receiver

WAIT_S = 500
CONVERSATION = """
import os, sys
import openhands.sdk
{begin}
from openhands.sdk import LLM, Agent, LocalConversation
llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="x", num_retries=1)
conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", visualizer=None)
conversation.send_message("hello")
conversation.run()
conversation.close()
if "lmnr" in sys.modules:
    from lmnr import Laminar
    Laminar.flush()
"""


def start(program: str, directory: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=directory,
        env={**os.environ, "HOME": str(directory), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_sending(
    receiver: TraceReceiver, begin: str, llm_server: LLMServer, directory: Path, variables: dict[str, str]
) -> tuple[subprocess.Popen[str], TraceReceiver]:
    directory.mkdir()
    sending = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    program = CONVERSATION.format(begin=begin)
    return start(program, directory, LLM=llm_server.base_url(), **sending, **variables), receiver


def ended(process: subprocess.Popen[str], receiver: TraceReceiver) -> set[str]:
    """Names of the spans that arrived."""
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    return {span.name for span in receiver.spans}


def test_a_laminar_that_an_endpoint_has_started_is_ended_and_the_spans_are_ours(
    llm_server: LLMServer, tmp_path: Path
) -> None:
    cases = {
        "without-us": ("", {}),
        "with-us": ("import openhands_otel.auto", {}),
        "left-to-laminar": ("import openhands_otel.auto", {"OPENHANDS_OTEL_TRACES": "laminar"}),
    }
    with ExitStack() as stack:
        running = {
            case: start_sending(
                stack.enter_context(http_trace_receiver()), begin, llm_server, tmp_path / case, variables
            )
            for case, (begin, variables) in cases.items()
        }
        names = {case: ended(process, receiver) for case, (process, receiver) in running.items()}
    assert names["with-us"] == {"invoke_agent Agent", "chat gpt-4o"}
    assert "conversation" in names["without-us"]
    assert "conversation" in names["left-to-laminar"]


@pytest.mark.parametrize(
    ("broken", "variables"),
    [
        ("import sys; sys.modules['opentelemetry.instrumentation.instrumentor'] = None", {}),
        ("import sys; sys.modules['opentelemetry.instrumentation'] = None", {}),
        ("", {"OPENHANDS_OTEL_FLUSH_WINDOW_MS": "soon"}),
    ],
    ids=["no instrumentor", "a partial OpenTelemetry", "a wrong setting"],
)
def test_it_never_raises_and_says_in_one_line_why_nothing_comes(
    broken: str, variables: dict[str, str], tmp_path: Path
) -> None:
    process = start(f"{broken}\nimport openhands_otel.auto\nprint('alive')", tmp_path, **variables)
    out, errors = process.communicate(timeout=WAIT_S)

    assert (process.returncode, out) == (0, "alive\n")
    (line,) = errors.splitlines()
    assert line.startswith("openhands-otel: this process runs without telemetry: ")


def test_a_process_that_is_instrumented_already_stays_so(tmp_path: Path) -> None:
    program = """
from openhands_otel import OpenHandsInstrumentor
OpenHandsInstrumentor().instrument()
import openhands_otel.auto
print(OpenHandsInstrumentor().is_instrumented_by_opentelemetry)
"""
    out, errors = start(program, tmp_path, OTEL_METRICS_EXPORTER="none").communicate(timeout=WAIT_S)
    assert (out, errors) == ("True\n", "")
