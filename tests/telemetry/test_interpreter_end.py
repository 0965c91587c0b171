"""Fault of the kind *work that is left to a thread*: one that cannot be started any more, was stopped, or has died.

When main has returned Python starts no thread (3.12), daemons live on until the last ``atexit`` handler is done, and
handlers that were registered before ours are called after it. Whatever is at hand then is delivered all the same, in
bounded time, by whoever is there; what is not delivered is counted and said; and nobody is told that it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from openhands_otel._internal.bus.background import Background
from openhands_otel._internal.bus.dispatch import Bus
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.self_observation import SelfObservation
from openhands_otel._internal.process.flusher import Flusher
from openhands_otel._internal.process.runtime import Runtime
from openhands_otel._internal.process.schedule import Schedule
from openhands_otel._internal.tracing.traces import TracePipeline
from openhands_otel.events import CostAdded, Event, Origin
from openhands_otel.semconv import COST, CostSource
from openhands_otel.settings import Settings
from otlp_receiver import Receiver
from trace_receiver import TraceReceiver, http_trace_receiver

from .conftest import Start

PROGRAM = """
    import atexit, concurrent.futures, os, sys, threading, time
    import spending
    from openhands_otel import subscribe
    from openhands.sdk import LLM, Agent, LocalConversation

    def talk():
        llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="none", num_retries=0)
        conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", visualizer=None)
        conversation.send_message("hello")
        conversation.run()
        conversation.close()

    heard = open("heard", "a", buffering=1)

    def hear(event):
        time.sleep(0.02)
        heard.write(f"{event.amount}\\n")
"""
COST_OF_ONE = 0.001


@pytest.fixture
def traces() -> Iterator[TraceReceiver]:
    with http_trace_receiver() as receiver:
        yield receiver


RUN = ["chat gpt-4o", "chat gpt-4o", "execute_tool think", "invoke_agent Agent"]
ENDS = {
    "the end of main": ("", "talk(); talk(); talk()", RUN * 3),
    "an exception": ("", "talk(); talk(); talk(); raise RuntimeError", RUN * 3),
    "sys.exit in a thread": (
        "",
        """
    def leave():
        talk()
        sys.exit(3)
    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    talk(); talk()""",
        RUN * 3,
    ),
    "a thread that outlives main": (
        "",
        """
    talk()
    def late():
        threading.main_thread().join()
        spending.spend(10)
    threading.Thread(target=late).start()""",
        RUN,
    ),
    "an executor that outlives main": (
        "",
        """
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(talk).result()
    for _ in range(10):
        pool.submit(spending.spend)""",
        RUN,
    ),
    "handlers called after ours": ("atexit.register(spending.spend, 10)", "talk()", RUN),
}
"""By the way it ends: what is done before we come, after it, and the spans of that. OpenHands itself calls no LLM any
more once main has returned: litellm needs a thread for it."""


@pytest.mark.parametrize("end", ENDS)
def test_all_spans_and_all_money_of_a_short_script_arrive(
    end: str, start: Start, receiver: Receiver, traces: TraceReceiver, llm_server: LLMServer
) -> None:
    """The script leaves no time to send anything before its end."""
    llm_server.script("main", lambda request: call("think", {"thought": "."}) if request.turn == 0 else say("done"))
    before, after, names = ENDS[end]
    child = start(
        f"""{PROGRAM}
    {before}
    spending.instrument()
    {after}
    """,
        f"{receiver.url}/v1/metrics",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces.url,
        LLM=llm_server.base_url("main"),
    )
    child.wait(100)
    assert sorted(span.name for span in traces.spans) == sorted(names), child.err
    spent = sum(entry.cost for entry in llm_server.bill.entries)
    late = 10 * COST_OF_ONE if "spend" in before + after else 0.0
    assert receiver.total(COST.name) == pytest.approx(spent + late, abs=1e-9)


WAYS = {
    "subscribed": ("", ""),
    "instrumented": ("spending.instrument()", ""),
    "in a forked child": ("", "if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))"),
    "in a worker": (
        "",
        """
    import multiprocessing
    worker = multiprocessing.get_context("fork").Process(target=spending.spend, args=(20,))
    worker.start()
    worker.join()
    os._exit(worker.exitcode)""",
    ),
    "in handlers called after ours": ("atexit.register(spending.spend, 20)", "sys.exit()"),
    "subscribed at the end": ("atexit.register(lambda: (subscribe_late(), spending.spend(20)))", "sys.exit()"),
}


@pytest.mark.parametrize("way", WAYS)
def test_background_subscribers_get_all_before_the_end(way: str, start: Start, receiver: Receiver) -> None:
    """Twenty of twenty, however little time the script leaves between the last event and its end."""
    before, after = WAYS[way]
    child = start(
        f"""{PROGRAM}
    from openhands_otel.events import CostAdded

    def subscribe_late():
        subscribe(hear, kinds=CostAdded, background=True)

    {before}
    if {way!r} != "subscribed at the end":
        subscribe_late()
    {after}
    spending.spend(20)
    """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(100) == 0, child.err
    assert (child.directory / "heard").read_text().splitlines() == [f"{COST_OF_ONE}"] * 20, child.err
    assert "dropped" not in child.err


def test_what_background_subscribers_are_too_slow_for_is_said(start: Start, receiver: Receiver) -> None:
    """What was begun and what was dropped add up to what was spent, and the metric says the same."""
    child = start(
        f"""{PROGRAM}
    import logging
    from openhands_otel.events import CostAdded
    logging.basicConfig()
    spending.instrument()
    def slow(event):
        heard.write("begun\\n")
        time.sleep(0.3)
    subscribe(slow, kinds=CostAdded, background=True)
    spending.spend(40)
    """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(100) == 0
    begun = len((child.directory / "heard").read_text().splitlines())
    assert 0 < begun < 40
    assert f"{40 - begun} events for background subscribers were dropped" in child.err
    assert receiver.total("openhands.otel.dropped_callbacks") == 40 - begun
    assert receiver.total(COST.name) == pytest.approx(40 * COST_OF_ONE)


def test_instrumented_where_python_starts_no_thread_any_more(
    start: Start, receiver: Receiver, traces: TraceReceiver
) -> None:
    """Everything is built and sent by the thread that spends, and what is said of that is true."""
    child = start(
        f"""{PROGRAM}
    from openhands.sdk import Message, TextContent

    def at_the_end():
        instrumentor = spending.instrument()
        try:
            llm = LLM(model="openai/gpt-4o", base_url="http://127.0.0.1:9", api_key="none", num_retries=0)
            llm.completion([Message(role="user", content=[TextContent(text="hello")])])
        except Exception:
            pass
        spending.spend(5)
        assert instrumentor.flush(50)
        print("flushed", flush=True)
        spending.spend(5)
    atexit.register(at_the_end)
    """,
        f"{receiver.url}/v1/metrics",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces.url,
    )
    assert child.wait(100) == 0, child.err
    assert "flushed" in child.out, child.err
    assert [span.name for span in traces.spans] == ["chat gpt-4o"]
    assert receiver.total(COST.name) == pytest.approx(10 * COST_OF_ONE, abs=1e-9)


def cost(amount: float = 0.5) -> CostAdded:
    return CostAdded(time.time_ns(), Origin("c"), amount, CostSource.PRICE_TABLE, amount)


def test_a_flush_of_a_pipeline_that_never_came_up_is_none() -> None:
    """True as long as nothing was spent; False from then on, for ``stop`` too."""
    bus = Bus()

    def fail(parent: object) -> None:
        raise OSError("no such thing")

    settings = Settings()
    runtime = Runtime(bus, fail, settings, TracePipeline(settings, None, lambda: False))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no such thing"):
        runtime.start()
    assert runtime.flush(1)
    bus.publish(cost())
    assert not runtime.flush(1)
    assert not runtime.stop()


class Receiving:
    """A subscriber whose callback does what it is told."""

    def __init__(self, call: Callable[[Event], object]) -> None:
        self.call = call

    def wants(self, event: Event) -> bool:
        return True


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError()])
def test_a_task_of_ours_goes_on_whatever_ends_its_work(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Supervised: an error is logged once and counted, and the next piece of work is done."""
    caplog.set_level(logging.WARNING, "openhands_otel")
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if len(heard) < 3:
            raise error

    background, receiving = Background(), Receiving(hear)
    background.start()
    for _ in range(5):
        background.put(receiving, cost())
    assert background.drain(20)
    assert len(heard) == 5

    intake, sent, failed = Intake(Ledger(10, 10)), [0], [2]

    class Failing:
        has_more = False
        beat_in_s = None

        def prepare(self, everything: bool, last: bool, complete: bool) -> Callable[[float], Outcome]:
            if failed[0]:
                failed[0] -= 1
                raise error
            sent[0] += 1
            return lambda timeout_s: Outcome(True)

    observation = SelfObservation(intake.ledger, lambda: 0)
    flusher = Flusher(intake, Failing(), lambda: False, Schedule(0.0, 1.0, 60, time.monotonic()), observation, 1)
    flusher.start()
    answers: list[bool] = []
    for _ in range(4):
        intake.put(cost())
        answers.append(flusher.flush(20))
    assert answers[-1]
    assert answers.count(False) <= 2
    assert flusher.stop(20)
    assert flusher.ended
    assert len([record for record in caplog.records if "Flusher" in record.getMessage()]) <= 1


def test_a_logging_that_breaks_breaks_no_task_of_ours() -> None:
    """The handler of an error is one more thing that fails."""

    class Breaking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    handler, logger = Breaking(), logging.getLogger("openhands_otel")
    logger.addHandler(handler)
    heard = threading.Event()

    def fail_once(event: Event) -> None:
        if not heard.is_set():
            heard.set()
            raise LookupError

    try:
        background = Background()
        background.start()
        for _ in range(2):
            background.put(Receiving(fail_once), cost())
        assert background.drain(20)
    finally:
        logger.removeHandler(handler)
