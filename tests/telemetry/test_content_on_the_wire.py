"""Raw requests of every signal, over HTTP and gRPC: planted secrets are in none, whether content is captured or not."""

from __future__ import annotations

import re

import pytest

from openhands_otel import semconv
from openhands_otel._internal.demo.answers import call, refuse, say
from openhands_otel._internal.demo.llm_server import LLMServer
from trace_receiver import grpc_trace_receiver, http_trace_receiver

from .conftest import Start

PROGRAM = """
    import os
    import spending
    from openhands.sdk import LLM, Agent, LocalConversation, Tool
    from openhands.tools.terminal import TerminalTool
    instrumentor = spending.instrument()
    path = "sk-planted-path-4711-4711-4711"
    os.makedirs(path)

    def talk(script):
        llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"].replace("SCRIPT", script),
                  api_key="planted-key-4711", num_retries=1, retry_min_wait=0, retry_max_wait=0)
        shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
        conversation = LocalConversation(agent=Agent(llm=llm, tools=[shell]), workspace=path, visualizer=None)
        conversation.update_secrets({"REGISTERED": "planted-registered-4711"})
        conversation.send_message("asked-4711: use AKIAPLANTEDPROMPT471 in " + os.path.abspath(path))
        try:
            conversation.run()
        except Exception as error:
            print("failed", "planted" in str(error), flush=True)
        conversation.close()

    talk("works")
    talk("fails")
    assert instrumentor.flush(50)
    """

COMMAND = (
    "export DB_PASSWORD=planted-argument-4711; echo called-4711; printenv SERVICE_ACCESS_KEY;"
    " echo postgres://user:planted-url-4711@db.test/x; pwd; echo resu''lt-4711"
)
SAID = [b"asked-4711", b"called-4711", b"result-4711", b"answered-4711", b"refused-4711"]


@pytest.mark.parametrize("mode", ["NO_CONTENT", "SPAN_ONLY"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_secret_is_in_a_byte_of_any_signal(protocol: str, mode: str, start: Start, llm_server: LLMServer) -> None:
    token = "eyJwbGFudGVk.eyJwbGFudGVk.planted-answer-4711"
    llm_server.script("works", [call("terminal", {"command": COMMAND}), say(f"answered-4711 {token} done")])
    llm_server.script("fails", lambda request: refuse(400, text="refused-4711, Bearer planted-error-4711"))
    with http_trace_receiver() if protocol == "http/protobuf" else grpc_trace_receiver() as receiver:
        child = start(
            PROGRAM,
            "",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.base,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=mode,
            LLM=llm_server.base_url("SCRIPT"),
            SERVICE_ACCESS_KEY="planted-environment-4711",
        )
        assert child.wait(90) == 0, child.err
        chat, shell = {"chat gpt-4o": []}, {"execute_tool terminal": []}
        assert receiver.tree() == [{"invoke_agent Agent": [chat, chat, shell]}, {"invoke_agent Agent": [chat]}]
        metrics = b"".join(receiver.others["metrics"])
        sent = b"".join(receiver.bodies) + metrics
        assert set(receiver.others) == {"metrics"}, "there are no logs"
    assert "failed True" in child.out, "the planted text is in the exception"
    assert semconv.COST.name.encode() in metrics
    assert re.findall(rb"(?is).{0,40}planted.{0,40}", sent) == []
    assert not [word for word in SAID if word in metrics]
    assert [word for word in SAID if word in sent] == (SAID if mode == "SPAN_ONLY" else [])
