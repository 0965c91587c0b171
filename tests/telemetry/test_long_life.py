"""One process that lives for months: conversations come and go, and what is held of them does not grow.

``make test`` plays a few thousand; ``TEST_CONVERSATIONS=100000`` (``make test-life``) a hundred thousand.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from viewer_process import start_viewer

from openhands_otel import semconv
from otlp_receiver import Receiver

from .conftest import Start

CONVERSATIONS = int(os.environ.get("TEST_CONVERSATIONS", "4000"))
REAL_CONVERSATIONS = CONVERSATIONS // 100
FEW = 1_000
GROWTH_KB = 20_000

LIFE = """
import gc, json, threading, time
import spending
from openhands.sdk.conversation.conversation_stats import ConversationStats
from openhands.sdk.llm.utils.metrics import Metrics
from openhands_otel import events
from openhands_otel._internal.process.subscriptions import bus
from openhands_otel._internal.capture.identity import Scope, inside

def held_kb():
    gc.collect()
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def flusher_s():
    (flusher,) = (each for each in threading.enumerate() if each.name == "openhands-otel-flusher")
    return time.clock_gettime(time.pthread_getcpuclockid(flusher.ident))

def live(number):
    name = f"conversation-{number}"
    stats = ConversationStats(usage_to_metrics={"agent": Metrics(model_name="gpt-4o")})
    bus.publish(events.ConversationOpened(time.time_ns(), name, None, "Agent", "1.58.0", 0.0, None))
    with inside(Scope(conversation_id=name), None):
        meter = stats.usage_to_metrics["agent"]
        meter.add_cost(0.001)
        meter.add_token_usage(100, 10, 0, 0, 128_000, "r")
        meter.add_response_latency(0.1, "r")
    bus.publish(events.ConversationClosed(time.time_ns(), name))

instrumentor = spending.instrument()
report = []
for number in range(1, CONVERSATIONS + 1):
    live(number)
    if number % 100 == 0:
        assert instrumentor.flush(50), number
    if number % FEW == 0:
        report.append((held_kb(), flusher_s()))
with open("report", "w") as file:
    json.dump(report, file)
"""


@pytest.mark.timeout(900)
def test_conversations_come_and_go_and_nothing_of_them_stays_but_their_money(start: Start) -> None:
    viewer = start_viewer()
    try:
        source = f"CONVERSATIONS, FEW = {CONVERSATIONS}, {FEW}\n{LIFE}"
        child = start(source, f"{viewer.url}/v1/metrics", OTEL_METRIC_EXPORT_TIMEOUT="30000")
        assert child.wait(600) == 0, child.err
        report: list[tuple[int, float]] = json.loads((child.directory / "report").read_text())

        assert viewer.state().totals.accumulated_cost == pytest.approx(CONVERSATIONS * 0.001, abs=1e-9)
        assert {stats.status for stats in viewer.state().conversations} == {semconv.Status.CLOSED}
        assert semconv.CONVERSATION_ID.replace(".", "_") not in viewer.http.get("/metrics").text
    finally:
        viewer.stop()
    held, spent = zip(*report, strict=True)
    print(f"RSS after {FEW}: {held[0]} kB, after {CONVERSATIONS}: {held[-1]} kB; "
          f"flusher: {(spent[1] - spent[0]) / FEW * 1e6:.0f} us a conversation at first, "
          f"{(spent[-1] - spent[-2]) / FEW * 1e6:.0f} at last")  # fmt: skip
    assert held[-1] - held[0] < GROWTH_KB
    # Processor time, so that a busy machine does not decide.
    assert spent[-1] - spent[-2] < 2 * (spent[1] - spent[0])


REAL = """
import gc, json, os, weakref
import spending
from openhands.sdk import LLM, Agent, LocalConversation

def held():
    gc.collect()
    gc.collect()
    with open("/proc/self/status") as status:
        kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return kb, sum(ref() is not None for ref in alive)

spending.instrument()
alive, report = [], []
for number in range(1, CONVERSATIONS + 1):
    llm = LLM(model="gpt-4o", api_key="x", usage_id="agent")
    conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=os.getcwd(), visualizer=None)
    alive.append(weakref.ref(conversation))
    llm.metrics.add_cost(0.001)
    conversation.close()
    del conversation, llm
    if number in (CONVERSATIONS // 10, CONVERSATIONS):
        report.append(held())
with open("report", "w") as file:
    json.dump(report, file)
"""


@pytest.mark.timeout(900)
def test_no_real_conversation_is_kept_alive_by_us(start: Start, receiver: Receiver) -> None:
    source = f"CONVERSATIONS = {REAL_CONVERSATIONS}\n{REAL}"
    children = [start(source, f"{receiver.url}/v1/metrics", **environ) for environ in ({}, {"WITHOUT_US": "1"})]
    reports: list[Any] = []
    for child in children:
        assert child.wait(600) == 0, child.err
        reports.append(json.loads((child.directory / "report").read_text()))
    grown_kb, plain_kb = (report[-1][0] - report[0][0] for report in reports)
    print(f"{REAL_CONVERSATIONS} real conversations: {grown_kb} kB more with us, {plain_kb} kB without")
    assert [alive for _, alive in reports[0]] == [alive for _, alive in reports[1]]
    assert grown_kb - plain_kb < GROWTH_KB
    assert receiver.total(semconv.COST.name) == pytest.approx(REAL_CONVERSATIONS * 0.001, abs=1e-9)
