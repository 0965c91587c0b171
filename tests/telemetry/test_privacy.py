"""What is said in a conversation stays in the process: not a word of it is in a byte that we send or log."""

from __future__ import annotations

import gzip

import pytest

from openhands_otel import semconv
from openhands_otel._internal.demo.answers import call, refuse, say
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_receiver import grpc_receiver, http_receiver

from .conftest import Start

WORDS = ["prompt", "argument", "result", "answer", "error", "path", "title", "subscriber", "argv", "key", "header"]
SECRETS = [f"planted-{word}-4711" for word in WORDS]

PROGRAM = """
    import logging, os, sys
    ours = logging.getLogger("openhands_otel")
    ours.setLevel(logging.DEBUG)
    ours.addHandler(logging.FileHandler("our.log"))
    sys.argv.append("planted-argv-4711")
    import spending
    import openhands_otel
    from openhands.sdk import LLM, Agent, LocalConversation, Tool
    from openhands.tools.terminal import TerminalTool

    def subscriber(event):
        raise ValueError("planted-subscriber-4711")
    openhands_otel.subscribe(subscriber)
    instrumentor = spending.instrument()
    os.makedirs("planted-path-4711")

    def llm(script):
        return LLM(model="openai/gpt-4o", base_url=os.environ["LLM"].replace("SCRIPT", script),
                   api_key="planted-key-4711", num_retries=1, retry_min_wait=0, retry_max_wait=0)

    def talk(script):
        shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
        conversation = LocalConversation(
            agent=Agent(llm=llm(script), tools=[shell]), workspace="planted-path-4711", visualizer=None)
        conversation.send_message("planted-prompt-4711")
        try:
            conversation.run()
        except Exception as error:
            print("failed", "planted-error-4711" in str(error), flush=True)
        return conversation

    done = talk("works")
    done.generate_title(llm("title"))
    talk("fails").close()
    done.close()
    # Whatever goes wrong inside of ours says no more than its kind.
    from openhands_otel._internal.guard import guarded
    def hook():
        raise ValueError("planted-error-4711")
    guarded(hook)()
    assert instrumentor.flush(50)
    """


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_planted_secret_is_in_a_byte_that_leaves_or_in_our_log(
    protocol: str, start: Start, llm_server: LLMServer
) -> None:
    command = "echo planted-argument-4711; echo planted-resu''lt-4711"
    llm_server.script("works", [call("terminal", {"command": command}), say("planted-answer-4711")])
    llm_server.script("title", [say("planted-title-4711")])
    llm_server.script("fails", lambda request: refuse(400, text="planted-error-4711"))
    with http_receiver() if protocol == "http/protobuf" else grpc_receiver() as receiver:
        child = start(
            PROGRAM,
            receiver.url,
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-key=planted-header-4711",
            LLM=llm_server.base_url("SCRIPT"),
        )
        assert child.wait(100) == 0, child.err
        assert receiver.total(semconv.COST.name) == pytest.approx(llm_server.bill.total, abs=1e-9)
        assert len(llm_server.bill.entries) == 3
        sent = b"".join(receiver.bodies)
    log = (child.directory / "our.log").read_text()
    assert "subscriber" in log, "what fails is told"
    for secret in SECRETS:
        assert secret.encode() not in sent, secret
        assert secret not in log, secret
    assert str(child.directory).encode() not in sent


def test_the_secrets_would_be_found_if_they_were_there(llm_server: LLMServer) -> None:
    """A search that cannot find proves nothing: raw bodies are what the receiver keeps, compressed or not."""
    with http_receiver() as receiver:
        from .pipes import call as llm_call
        from .pipes import origin, pipeline, put

        for compression in ("none", "gzip"):
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
            with pipeline(environ) as pipe:
                put(pipe, *llm_call(origin("planted-conversation-4711")))
                assert pipe.flush(50)
        assert all(b"planted-conversation-4711" in body for body in receiver.bodies if b"conversation.cost" in body)
        assert any(b"planted-conversation-4711" in body for body in receiver.bodies)
        assert not any(body.startswith(gzip.compress(b"")[:2]) for body in receiver.bodies)


def test_keys_in_the_endpoint_are_not_logged(start: Start) -> None:
    child = start(
        """
        import spending
        instrumentor = spending.instrument()
        spending.spend()
        assert not instrumentor.flush(5)
        """,
        "http://user:planted-key-4711@127.0.0.1:9/v1/metrics?token=planted-key-4711",
    )
    assert child.wait() == 0, child.err
    assert "127.0.0.1:9" in child.err
    assert "planted" not in child.err
