"""What many tests need: the scripted provider, and real OpenHands parts that talk to it.

The environment is put in order before anything can import OpenHands: its import waits for the network unless litellm
is told to use its own price table, and telemetry variables of the shell that runs the tests must not reach them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from forked import Prepared, with_openhands
from openhands_otel._internal.demo.llm_server import LLMServer

if TYPE_CHECKING:
    from openhands.sdk import LLM, Agent, LocalConversation

for _name in list(os.environ):
    if _name.startswith(("OTEL_", "OPENHANDS_OTEL_", "LMNR_")):
        del os.environ[_name]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and every child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# What compat/test_beside_others.py wants to have installed is not to start under auto-instrumentation in other tests.
os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "openai"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
# How long an example takes, and how long it takes to think one up, tells how busy the machine is.
settings.register_profile(
    "busy machine", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of ``-n auto``: two for each core, because what takes time in most tests is waiting for a process."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own: what one leaves undelivered is not to be sent by another, nor by the user's."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def _llm_server() -> Iterator[LLMServer]:
    with LLMServer() as server:
        yield server


@pytest.fixture
def llm_server(_llm_server: LLMServer) -> LLMServer:
    """The scripted provider, with an empty bill and no script but ``default`` (one answer: "Done.")."""
    _llm_server.provider.reset()
    return _llm_server


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Forks processes off a Python that has OpenHands imported, and nothing of ours: see ``prepared.py``."""
    prepared = with_openhands()
    try:
        yield prepared
    finally:
        prepared.stop()


@pytest.fixture
def make_llm(llm_server: LLMServer) -> Callable[..., LLM]:
    """Make a real ``LLM``: ``make_llm("script", model="gpt-4o", num_retries=0, usage_id="default", ...)``.

    ``num_retries`` counts attempts, the first one included, from 1 on.
    """
    from openhands.sdk import LLM

    def make(script: str | None = None, model: str = "gpt-4o", **options: Any) -> LLM:
        waits = {"num_retries": 0, "retry_min_wait": 0, "retry_max_wait": 0, "timeout": 30}
        return LLM(
            model=f"openai/{model}",
            base_url=llm_server.base_url(script),
            api_key="no-key-needed",
            **(waits | options),
        )

    return make


@pytest.fixture
def make_agent() -> Callable[..., Agent]:
    """Make a real ``Agent`` with a real shell and file editor: ``make_agent(llm, condenser=...)``. One a conversation.

    The shell is a subprocess: a tmux server would outlive a test that fails.
    """
    from openhands.sdk import Agent, Tool
    from openhands.tools.file_editor import FileEditorTool
    from openhands.tools.terminal import TerminalTool

    def make(llm: LLM, tools: bool = True, **options: Any) -> Agent:
        shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
        return Agent(llm=llm, tools=[shell, Tool(name=FileEditorTool.name)] if tools else [], **options)

    return make


@pytest.fixture
def make_conversation(tmp_path: Path) -> Iterator[Callable[..., LocalConversation]]:
    """Make a real ``LocalConversation`` in a temporary directory; it is closed when the test ends."""
    from openhands.sdk import LocalConversation

    with ExitStack() as closing:

        def make(agent: Agent, **options: Any) -> LocalConversation:
            workspace = tmp_path / "workspace"
            workspace.mkdir(exist_ok=True)
            conversation = LocalConversation(
                agent=agent, **({"workspace": str(workspace), "visualizer": None} | options)
            )
            closing.callback(conversation.close)
            return conversation

        yield make
