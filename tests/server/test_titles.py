"""The title of a conversation: not a word of it leaves its server, unless content may be captured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel._internal.demo.answers import Answer, LLMRequest, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import ConversationStats
from trace_receiver import http_trace_receiver

from .agent_server import AgentServer, RemoteClient, agent_server, by_run
from .scripts import TITLE

PATIENCE_S = 120
CONTENT = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}
MADE, GIVEN = "planted-made-4711", "planted-given-4711"


def answer(request: LLMRequest) -> Answer:
    """Without tools it is a title that is asked for."""
    return say("Done.") if request.body.get("tools") else say(MADE, usage=TITLE)


@pytest.fixture
def titled(client: RemoteClient) -> RemoteClient:
    if not client.has(module="opentelemetry.util.genai"):
        pytest.skip("no spans in this environment")
    return client


def begin(client: RemoteClient, server: AgentServer, provider: LLMServer) -> str:
    provider.script("main", answer)
    conversation: str = client.open(host=server.url, provider=provider.base_url("main"), tools=("terminal",))
    client.run(conversation=conversation, text="hello")
    return conversation


def rename(server: AgentServer, conversation: str, title: str) -> None:
    path = f"{server.url}/api/conversations/{conversation}"
    httpx.patch(path, json={"title": title}, trust_env=False, timeout=PATIENCE_S).raise_for_status()


def of(viewer: Viewer, conversation: str) -> ConversationStats | None:
    return next((one for one in viewer.state().conversations if one.conversation_id == conversation), None)


def is_called(viewer: Viewer, conversation: str, title: str) -> None:
    """Title and name are this, soon."""

    def told() -> bool:
        one = of(viewer, conversation)
        return one is not None and (one.title, one.name) == (title, title)

    wait_for(told, f"the title {title!r}", PATIENCE_S)


def test_by_default_a_title_is_in_nothing_that_we_send_or_write(
    titled: RemoteClient, llm_server: LLMServer, tmp_path: Path
) -> None:
    """Spans, metrics, files, and what the server logs of us."""
    state, files = tmp_path / "state", tmp_path / "files"
    variables = {"XDG_STATE_HOME": str(state), "OPENHANDS_OTEL_FILE": str(files)}
    with http_trace_receiver() as receiver:
        with agent_server(by_run("--endpoint", receiver.base), tmp_path, **variables) as server:
            conversation = begin(titled, server, llm_server)
            rename(server, conversation, GIVEN)
            titled.run(conversation=conversation, text="again")
            wait_for(lambda: receiver.bodies and receiver.others.get("metrics"), "spans and metrics", PATIENCE_S)
            receiver_is_there = len(receiver.bodies)
        spans, metrics = receiver.bodies, receiver.others["metrics"]
    assert receiver_is_there
    written = [file.read_bytes() for folder in (state, files) for file in folder.rglob("*") if file.is_file()]
    ours = [line for line in server.log.splitlines() if "openhands_otel" in line or "openhands-otel" in line]
    for kind in (spans, metrics, written):
        assert any(conversation.encode() in each for each in kind)
    for title in (MADE, GIVEN):
        assert not any(title.encode() in each for each in (*spans, *metrics, *written))
        assert not any(title in line for line in ours)


def test_where_content_is_allowed_it_is_the_name_of_its_conversation(
    titled: RemoteClient, viewer: Viewer, token_file: Path, llm_server: LLMServer, tmp_path: Path
) -> None:
    """What its client calls it, redacted; the newest, and in the next process the one that was saved."""
    launch = by_run("--endpoint", viewer.url, "--token-file", str(token_file))
    with agent_server(launch, tmp_path, **CONTENT) as server:
        conversation = begin(titled, server, llm_server)
        rename(server, conversation, "Deploy\u202e with sk-planted4711planted4711 today")
        is_called(viewer, conversation, "Deploy with [redacted] today")
        rename(server, conversation, GIVEN)
        is_called(viewer, conversation, GIVEN)
    with running_viewer() as second, agent_server(by_run("--endpoint", second.url), tmp_path, **CONTENT) as server:
        # Nobody has told this server's process of a title.
        body = {"role": "user", "content": [{"type": "text", "text": "again"}], "run": True}
        events = f"{server.url}/api/conversations/{conversation}/events"
        httpx.post(events, json=body, trust_env=False, timeout=PATIENCE_S).raise_for_status()
        is_called(second, conversation, GIVEN)
        shown = subprocess.run(
            [sys.executable, "-m", "openhands_otel", "watch", second.url, "--once"],
            env=os.environ | {"COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
        assert GIVEN in shown.stdout
