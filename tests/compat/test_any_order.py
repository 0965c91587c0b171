"""Whatever is done in whatever order: the counters equal the bill, and each conversation has what was billed to it.

Hypothesis makes up sequences of the things that OpenHands users do, over several conversations and threads, on the
real SDK. The provider's bill knows each request's conversation by the session header that OpenHands sends (1.30 on).
``TEST_SEQUENCES`` says how many sequences are played (20; CI plays 500, the same ones each time).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_receiver import http_receiver

from .scenario import EXACT, Scenario, called, needs, said

SEQUENCES = int(os.environ.get("TEST_SEQUENCES", "20"))
MODELS = ("gpt-4o", "gpt-4o-mini")

pick = st.integers(min_value=0, max_value=7)


@pytest.fixture
def stage(llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[LLMServer, Any]]:
    """A provider and a receiver for all sequences."""
    # Older releases send the session header with some calls only, so there the bill does not know whose a call is.
    needs("openhands.sdk.llm.call_context", "LLMCallContext")
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/v1/metrics")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        yield llm_server, receiver
        OpenHandsInstrumentor().uninstrument()


@pytest.mark.timeout(1800)
def test_any_order(stage: tuple[LLMServer, Any]) -> None:
    server, receiver = stage
    played = 0

    class Users(RuleBasedStateMachine):
        """Users of OpenHands who do anything."""

        @initialize()
        def begin(self) -> None:
            OpenHandsInstrumentor().instrument()
            self.closing = ExitStack()
            folder = Path(self.closing.enter_context(tempfile.TemporaryDirectory()))
            self.scenario = Scenario(server, receiver, folder, self.closing)
            self.scenario.script("main", self.answer)
            self.conversations: list[Any] = []
            self.llms: list[Any] = []

        @staticmethod
        def answer(request: Any) -> Any:
            """Thinks once in three answers, and costs something else each time."""
            tokens = {"prompt": 500 + 7 * request.number, "output": 10 + request.number % 5}
            if request.number % 3 == 0:
                return called("think", {"thought": f"number {request.number}"}, **tokens)
            return said(**tokens, cached=64 * (request.number % 4))

        def chosen(self, number: int) -> Any:
            return self.conversations[number % len(self.conversations)]

        def new_llm(self, number: int) -> Any:
            llm = self.scenario.llm("main", model=MODELS[number % 2], usage_id=f"usage-{len(self.llms)}")
            self.llms.append(llm)
            return llm

        @rule(number=pick, shared=st.booleans())
        def open_one(self, number: int, shared: bool) -> None:
            if len(self.conversations) >= 4:
                return
            llm = self.llms[number % len(self.llms)] if shared and self.llms else self.new_llm(number)
            folder = str(self.scenario.folder / "persisted")
            self.conversations.append(
                self.scenario.conversation(llm, persistence_dir=folder, conversation_id=uuid.uuid4())
            )

        @precondition(lambda self: self.conversations)
        @rule(number=pick)
        def run(self, number: int) -> None:
            self.scenario.run(self.chosen(number))

        @precondition(lambda self: self.conversations)
        @rule(number=pick)
        def run_async(self, number: int) -> None:
            conversation = self.chosen(number)
            conversation.send_message("hello")
            asyncio.run(conversation.arun())

        @precondition(lambda self: len(self.conversations) > 1)
        @rule()
        def run_all_at_once(self) -> None:
            threads = [threading.Thread(target=self.scenario.run, args=(each,)) for each in self.conversations]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(100)

        @precondition(lambda self: self.conversations)
        @rule(number=pick, elsewhere=st.booleans())
        def ask(self, number: int, elsewhere: bool) -> None:
            self._maybe_in_a_thread(lambda: self._ask(self.chosen(number)), elsewhere)

        @precondition(lambda self: self.conversations)
        @rule(number=pick, own=st.booleans(), elsewhere=st.booleans())
        def title(self, number: int, own: bool, elsewhere: bool) -> None:
            conversation = self.chosen(number)
            if not conversation.state.events or conversation.state.execution_status.value == "idle":
                return
            llm = {"llm": self.new_llm(number)} if own else {}
            self._maybe_in_a_thread(lambda: conversation.generate_title(**llm), elsewhere)

        @precondition(lambda self: self.conversations)
        @rule(number=pick, reset=st.booleans())
        def fork(self, number: int, reset: bool) -> None:
            if len(self.conversations) < 4:
                fork = self.chosen(number).fork(reset_metrics=reset)
                self.closing.callback(fork.close)
                self.conversations.append(fork)

        @precondition(lambda self: self.conversations)
        @rule(number=pick)
        def switch(self, number: int) -> None:
            self.chosen(number).switch_llm(self.new_llm(number))

        @precondition(lambda self: self.conversations)
        @rule(number=pick)
        def close_and_resume(self, number: int) -> None:
            old = self.chosen(number)
            old.close()
            again = self.scenario.conversation(
                self.new_llm(number), persistence_dir=str(self.scenario.folder / "persisted"), conversation_id=old.id
            )
            self.conversations[number % len(self.conversations)] = again

        @rule(number=pick)
        def call_for_nobody(self, number: int) -> None:
            from openhands.sdk import Message, TextContent

            self.new_llm(number).completion([Message(role="user", content=[TextContent(text="ping")])])

        def _ask(self, conversation: Any) -> None:
            try:
                conversation.ask_agent("how far?")
            except Exception as error:
                # OpenHands raises where the answer is a tool call; it was billed all the same.
                assert "Failed to generate summary" in str(error)  # noqa: PT017

        def _maybe_in_a_thread(self, work: Any, elsewhere: bool) -> None:
            if not elsewhere:
                work()
                return
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(100)

        @invariant()
        def the_counters_equal_the_bill(self) -> None:
            if not hasattr(self, "scenario"):
                return
            self.scenario.settle()
            assert self.scenario.fleet() == pytest.approx(server.bill.total, abs=EXACT)
            for conversation in self.conversations:
                own = server.bill.of_session(str(conversation.id)).total
                assert self.scenario.cost_of(conversation) == pytest.approx(own, abs=EXACT)

        def teardown(self) -> None:
            nonlocal played
            played += 1
            if hasattr(self, "closing"):
                self.closing.close()
            OpenHandsInstrumentor().uninstrument()
            server.bill.clear()
            receiver.forget()

    run_state_machine_as_test(
        Users,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=8,
            deadline=None,
            derandomize="CI" in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert played >= SEQUENCES
