"""Kind of fault: something odd of the application's stops what is sent, or is felt by the application.

One value that cannot be sent kept a whole process from being heard of; an end in another context was no end; a handler
of the application's that raises took money along; a class that was pickled by value could not be any more.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from openhands_otel import semconv
from openhands_otel._internal.clock import SECOND_NS
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.conversation_series import ConversationSeries
from openhands_otel._internal.model_names import without_path
from otlp_receiver import Receiver

from .conftest import Start
from .pipes import opened, origin, response

COST, CONVERSATION_COST = semconv.COST.name, semconv.CONVERSATION_COST.name
ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"

ODD_VALUES = """
import spending, uuid
from decimal import Decimal
from openhands.sdk import LLM, Agent
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands_otel._internal.guard import error_counts

class Number:
    "As those of numpy and torch: the SDK's records make an int of it."
    def __init__(self, value): self.value = value
    def __int__(self): return self.value
    def __float__(self): return float(self.value)
    def __add__(self, other): return self.value + int(other)
    def __radd__(self, other): return self.value + int(other)

spending.instrument()
for number, odd in enumerate((
    {"max_budget_per_run": Decimal("5.50")},
    {"max_budget_per_run": "no number"},
    {"observability_metadata": {"parent_session_id": uuid.UUID(int=7), "subagent_type": ["a", "b"]}},
    {"observability_metadata": {"parent_session_id": 17, "subagent_type": {"a": 1}}},
    {"observability_metadata": {"parent_session_id": ["x"], "subagent_type": 5}},
)):
    llm = LLM(model="openai/gpt-4o", api_key="x", usage_id="agent")
    conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace="w", **odd)
    spending.spend(conversation=str(conversation.id))
    with spending.inside(spending.Scope(conversation_id=str(conversation.id)), None):
        spending.metrics.add_token_usage(Number(7), Decimal(1), True, 0.0, Number(9), "r")
print("errors", error_counts())
"""


def test_values_that_are_none_keep_nobody_from_being_heard_of(start: Start, receiver: Receiver) -> None:
    agent = start(ODD_VALUES, receiver.url, OPENHANDS_SUPPRESS_BANNER="1")
    assert agent.wait() == 0, agent.err
    assert "errors {}" in agent.out, agent.err
    assert receiver.total(COST) == receiver.total(CONVERSATION_COST) == pytest.approx(0.005)
    used = {name: receiver.total(name) for name in (semconv.INPUT_TOKENS.name, semconv.CACHE_READ_TOKENS.name)}
    assert used == {semconv.INPUT_TOKENS.name: 5 * 107, semconv.CACHE_READ_TOKENS.name: 5}
    budgets = {point.value for point in receiver.points(semconv.CONVERSATION_BUDGET.name) if not point.flags}
    assert budgets == {5.5}
    about = receiver.points(semconv.CONVERSATION_INFO.name)
    parents = {point.attributes.get(semconv.CONVERSATION_PARENT_ID) for point in about}
    assert parents == {None, "00000000-0000-0000-0000-000000000007", "17"}


@pytest.mark.parametrize("odd", [object(), ["a", "list"]], ids=["object", "unhashable"])
def test_a_conversation_that_cannot_be_said_holds_no_others_up(odd: Any) -> None:
    """Neither in what is sent nor in what is kept on disk, and its own money is told when it can be."""
    ledger = Ledger(100, 100)
    series = ConversationSeries(ledger)
    for name in ("one", "odd", "other"):
        ledger.apply(opened(name))
        for event in response(origin(name)):
            ledger.apply(event)
    ledger.accounts["odd"].agent = odd
    kept = list(series.spooled(series.held(everything=True), SECOND_NS, {}))
    selection = series.select(everything=False, now=SECOND_NS)
    assert selection.scope is not None
    for scope in (*kept, selection.scope):
        assert _spenders(scope) >= {"one", "other"}
    selection.commit()
    ledger.accounts["odd"].agent = "Agent"
    again = series.select(everything=True, now=2 * SECOND_NS)
    assert again.scope is not None
    assert _spenders(again.scope) == {"one", "odd", "other"}


def _spenders(scope: ScopeMetrics) -> set[str]:
    """Conversations that the scope has a cost of."""
    cost = next(metric for metric in scope.metrics if metric.name == CONVERSATION_COST)
    attributes = [each for point in cost.sum.data_points for each in point.attributes]
    return {each.value.string_value for each in attributes if each.key == semconv.CONVERSATION_ID}


OTHER_CONTEXT = """
import asyncio, gc, logging
import spending
from openhands.sdk import LLM, Agent
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands_otel import subscribe
from openhands_otel._internal.guard import error_counts
from openhands_otel.events import LLMCallEnded, LLMCallStarted, RunEnded, RunStarted

class Waiting(LLM):
    async def acompletion(self, *args, **keywords):
        await asyncio.sleep(1000)

class Conversation(LocalConversation):
    async def arun(self):
        await self.agent.llm.acompletion([])

heard = []
spending.instrument()
subscribe(lambda event: heard.append(type(event).__name__), kinds=(RunStarted, RunEnded, LLMCallStarted, LLMCallEnded))
llm = Waiting(model="openai/gpt-4o", api_key="x", usage_id="agent")
conversation = Conversation(agent=Agent(llm=llm, tools=[]), workspace="w")
tasks = []

async def main():
    tasks.append(asyncio.ensure_future(conversation.arun()))
    await asyncio.sleep(0)
    while "LLMCallStarted" not in heard:
        await asyncio.sleep(0.01)

logging.getLogger("asyncio").setLevel(logging.CRITICAL)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
del loop
tasks.clear()
gc.collect()
print(*heard)
print("errors", error_counts())
"""


def test_what_ends_in_another_context_than_it_began_in_has_ended(start: Start, receiver: Receiver) -> None:
    """As the coroutines of a loop that was closed over them: they are collected somewhere else."""
    agent = start(OTHER_CONTEXT, receiver.url, OPENHANDS_SUPPRESS_BANNER="1")
    assert agent.wait() == 0, agent.err
    assert "RunStarted LLMCallStarted LLMCallEnded RunEnded" in agent.out, agent.err
    assert "errors {}" in agent.out, agent.err
    assert "Failed to detach" not in agent.err


BY_VALUE = """
import cloudpickle, pickle
import spending
from openhands.sdk.context.condenser.base import RollingCondenser
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands_otel import OpenHandsInstrumentor

instrumentor = spending.instrument()

class Condenser(RollingCondenser):
    def condense(self, view, agent_llm=None):
        return "condensed"

    async def acondense(self, view, agent_llm=None):
        return "condensed"

class Conversation(LocalConversation):
    def run(self):
        return super().run()

    def arun(self):
        return self.really()

    async def really(self):
        return "ran"

for kind in (Condenser, Conversation):
    pickle.loads(cloudpickle.dumps(kind))
copied = pickle.loads(cloudpickle.dumps(Condenser))
print(copied.condense(None, None))
"""


def test_classes_can_still_be_pickled_by_value(start: Start, receiver: Receiver) -> None:
    """As joblib, Dask and Ray do with what is defined in ``__main__`` or in a notebook."""
    pytest.importorskip("cloudpickle")
    agent = start(BY_VALUE, receiver.url, OPENHANDS_SUPPRESS_BANNER="1")
    assert agent.wait() == 0, agent.err
    assert "condensed" in agent.out


RAISING_HANDLER = """
import logging
import spending
from openhands_otel import labels

class Handler(logging.Handler):
    def emit(self, record):
        raise ValueError("the application's own fault")

logging.getLogger().addHandler(Handler())
spending.instrument()
with labels(**{f"a{number}": 1 for number in range(16)}), labels(b=1):
    spending.spend()
"""


def test_a_handler_that_raises_costs_nothing(start: Start) -> None:
    """Neither the application's calls fail, nor is lost what nobody has taken."""
    agent = start(RAISING_HANDLER, "http://127.0.0.1:9")
    assert agent.wait() == 0, agent.err
    spools = os.path.join(os.environ["XDG_STATE_HOME"], "openhands-otel", "spool")
    assert [name for name in os.listdir(spools) if name.endswith(".spool")]


MODEL_OF_A_FOLDER = """
import spending
from openhands.sdk import LLM, Agent
from openhands.sdk.conversation.impl.local_conversation import LocalConversation

class Answering(LLM):
    def completion(self, *args, **keywords):
        self.metrics.add_cost(0.25)

spending.instrument()
for model in (
    "openai//home/alice/models/Qwen3-8B",
    "hosted_vllm//home/alice/models/Qwen3-8B/",
    "openai/C:\\\\Users\\\\alice\\\\Qwen3-8B",
    "openai/~/alice/Qwen3-8B",
    "openai/../alice/Qwen3-8B",
    "litellm_proxy/hosted_vllm//home/alice/Qwen3-8B",
    "openai/file:///home/alice/Qwen3-8B",
    "/home/alice/models/Qwen3-8B",
    "/home/alice/models/Qwen3-8B",
):
    Answering(model=model, api_key="x", base_url="http://127.0.0.1:9/v1", usage_id="agent").completion([])
"""


def test_a_model_that_is_called_by_its_folder_is_told_without_the_path(start: Start, receiver: Receiver) -> None:
    """vLLM calls a model by the folder that it was loaded from, and so does who asks it; a home has a person's name."""
    agent = start(MODEL_OF_A_FOLDER, receiver.url)
    assert agent.wait() == 0, agent.err
    assert receiver.total(COST) == 9 * 0.25
    assert {point.attributes[semconv.REQUEST_MODEL] for point in receiver.points(COST)} == {"Qwen3-8B"}
    assert not any(b"alice" in body for body in receiver.bodies)


@pytest.mark.parametrize("route", ["", "litellm_proxy/", "lm_studio/", "litellm_proxy/hosted_vllm/"])
@pytest.mark.parametrize("path", ["/home/alice/m", "~alice/m", "C:\\alice\\m", "file:///home/alice/m", "./alice/m"])
def test_a_path_is_known_behind_any_routes(route: str, path: str) -> None:
    """litellm puts its provider before what a server calls a model."""
    assert without_path(route + path) == "m"


@pytest.mark.parametrize(
    "name", ["gpt-5", "meta-llama/Llama-3.1-8B", "openrouter/anthropic/claude-4", "qwen3:8b", "a.b/c"]
)
def test_a_name_without_a_path_stays(name: str) -> None:
    assert without_path(name) == name


DEBUG = """
import logging, requests, os
logging.basicConfig(level=logging.DEBUG)
import spending
instrumentor = spending.instrument()
logging.getLogger().setLevel(logging.DEBUG)
for _ in range(3):
    spending.spend()
    assert instrumentor.flush(20)
requests.post(os.environ["THEIRS"], data=b"")
"""


def test_an_address_with_a_key_is_not_logged_at_debug_but_the_applications_own_are(
    start: Start, receiver: Receiver
) -> None:
    agent = start(DEBUG, f"{receiver.url}/v1/metrics?api_key=sk-of-nobody-else", THEIRS=f"{receiver.url}/theirs")
    assert agent.wait() == 0, agent.err
    assert receiver.total(COST) > 0
    assert "sk-of-nobody-else" not in agent.err + agent.out
    assert "POST /theirs" in agent.err


def test_what_a_receiver_repeats_of_the_address_is_told_without_its_key(start: Start, receiver: Receiver) -> None:
    receiver.answer = lambda: (404, b"nothing at /v1/metrics?api_key=sk%2Dof-nobody-else, nor for sk-of-nobody-else")
    receiver.content_type = "text/plain"
    agent = start(
        "import spending\nspending.instrument()\nspending.spend()", f"{receiver.url}/x?api_key=sk%2Dof-nobody-else"
    )
    assert agent.wait() == 0, agent.err
    assert "nothing at /v1/metrics?api_key=***, nor for ***" in agent.err
    assert "nobody-else" not in agent.err


@pytest.mark.parametrize(
    "odd",
    [
        {"OTEL_BSP_SCHEDULE_DELAY": "9" * 20},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "1e400"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0.5"},
        {"OTEL_BSP_SCHEDULE_DELAY": "nan"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "1e300"},
    ],
    ids=str,
)
def test_numbers_beyond_use_are_taken_for_those_that_can_be_used(
    odd: dict[str, str], start: Start, receiver: Receiver
) -> None:
    agent = start(
        """
        import spending, threading
        from openhands_otel._internal.process.subscriptions import bus
        from openhands_otel.events import RunEnded, RunStarted
        from openhands_otel.semconv import Status
        instrumentor = spending.instrument()
        bus.publish(RunStarted(1, "c", 1))
        spending.spend()
        assert instrumentor.flush(20)
        print("threads", *(thread.name for thread in threading.enumerate()))
        """,
        receiver.url,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.url}/v1/traces",
        **odd,
    )
    assert agent.wait() == 0, agent.err
    assert receiver.total(COST) > 0
    assert "openhands-otel-spans" in agent.out, agent.err
    assert "Traceback" not in agent.err
