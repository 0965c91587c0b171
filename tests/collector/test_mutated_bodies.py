"""Requests that were real until somebody bent them, to a real viewer with a database: nothing that is held is harmed.

``TEST_BODIES`` says how many (``make fuzz``: 50,000). Numbers are set to the ends of protobuf's types, bytes are
flipped, cut and doubled, before compression and after. One honest process sends in between; it is what must be right.
"""

from __future__ import annotations

import gzip
import math
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from span_sender import SpanSender
from viewer_process import Viewer, start_viewer

from openhands_otel import semconv
from openhands_otel.stats import Breakdown, Totals
from otlp_sender import Sender

BODIES = int(os.environ.get("TEST_BODIES", "1500"))
EVERY = 50
"""Bodies between two looks at what is held."""
MEMORY_MB = 80
"""What the second half of the bodies may add to the viewer: tables are full by then, or nearly so."""
COST = 0.0123
HONEST = "honest"
COSTS = semconv.COST.name

WHOLE = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1)
BROKEN = (0.0, -0.0, 5e-324, 1e-300, 1e300, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan, -1.0, 2.0**53)
TEXTS = (
    "",
    "\0",
    "\x1b]0;pwned\x07",
    "a\nb",
    "\u202e",
    "{}",
    "__name__",
    "le",
    "x" * 5_000,
    "é" * 700,
    semconv.OVERFLOW,
)
LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

Body = tuple[bytes, dict[str, str]]


def seed_request(chance: random.Random) -> ExportMetricsServiceRequest:
    """A request as an agent makes it."""
    sender = Sender(f"bent-{chance.randrange(40)}", service=f"service-{chance.randrange(5)}")
    name = f"conversation-{chance.randrange(30)}"
    cost = chance.random()
    sender.spend(cost).converse(name, cost).introduce(name).state(name, chance.choice(tuple(semconv.Status)))
    sender.now(name, "llm", time.time())
    sender.add(semconv.INPUT_TOKENS, chance.randrange(1000), {semconv.REQUEST_MODEL: "gpt"})
    sender.add(semconv.CONVERSATION_CALLS, chance.randrange(9), {semconv.CONVERSATION_ID: name})
    sender.add(semconv.BUDGET, 5.0, {semconv.BUDGET_SCOPE: "day"})
    sender.observe(semconv.RESPONSE_LATENCY, [0.1, 2.0], {semconv.REQUEST_MODEL: "gpt"})
    request = sender.request()
    spent = next(metric for metric in request.resource_metrics[0].scope_metrics[0].metrics if metric.name == COSTS)
    for seconds in (1, 2):
        spent.sum.data_points[0].exemplars.add(
            trace_id=b"t" * 16, span_id=b"s" * 8, time_unix_nano=time.time_ns() - seconds * 10**9, as_double=cost
        )
    return request


def fields_of(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """Every scalar field that is set, with its message."""
    for descriptor, value in message.ListFields():
        if descriptor.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            for one in value if descriptor.is_repeated else (value,):
                yield from fields_of(one)
        else:
            yield message, descriptor


def extreme(chance: random.Random, descriptor: FieldDescriptor) -> Any:
    kind = descriptor.cpp_type
    if kind in LIMITS:
        low, high = LIMITS[kind]
        return min(max(chance.choice((*WHOLE, chance.randint(low, high))), low), high)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice((*BROKEN, chance.uniform(-1e6, 1e6)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        # Bytes are of this kind too.
        return chance.randbytes(3) if descriptor.type == FieldDescriptor.TYPE_BYTES else chance.choice(TEXTS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice((0, 1, 2, 3, 99))
    return True


def bend_fields(chance: random.Random, request: Message) -> None:
    fields = list(fields_of(request))
    for message, descriptor in chance.sample(fields, k=min(len(fields), chance.randint(1, 4))):
        value = extreme(chance, descriptor)
        if descriptor.is_repeated:
            getattr(message, descriptor.name)[0] = value
        else:
            setattr(message, descriptor.name, value)


def bend_bytes(chance: random.Random, body: bytes) -> bytes:
    bent = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(bent) or 1)
        match chance.randrange(4):
            case 0 if bent:
                bent[at] ^= 1 << chance.randrange(8)
            case 1:
                del bent[at:]
            case 2:
                bent[at:at] = bent[at : at + chance.randrange(40)]
            case _:
                bent[at:at] = chance.randbytes(chance.randrange(12))
    return bytes(bent)


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


def bent_body(chance: random.Random, seed: Callable[[random.Random], Message] = seed_request) -> Body:
    request = seed(chance)
    if chance.random() < 0.7:
        bend_fields(chance, request)
    kind = "json" if chance.random() < 0.2 else "x-protobuf"
    body = json_format.MessageToJson(request).encode() if kind == "json" else request.SerializeToString()
    if chance.random() < 0.4:
        body = bend_bytes(chance, body)
    coding = chance.choice(tuple(CODINGS))
    body = CODINGS[coding](body)
    if chance.random() < 0.1:
        body = bend_bytes(chance, body)
    return body, {"content-type": f"application/{kind}", "content-encoding": coding}


def seed_spans(chance: random.Random) -> Message:
    """A traces request as an agent makes it, or with what no agent says."""
    sender = SpanSender(service=f"service-{chance.randrange(5)}", instance=f"bent-{chance.randrange(40)}")
    name, trace = f"conversation-{chance.randrange(9)}", chance.randrange(1, 30)
    first = chance.randrange(1, 1_000)
    made = chance.choice((sender.call, sender.tool, sender.run))
    for number in range(first, first + 6):
        # Ids that come again, and circles.
        parent = chance.choice((first, number + 1, number - 1))
        made(number, name, trace=trace, parent=parent, start=chance.uniform(-9, 9), end=chance.uniform(-9, 9))
    sender.call(first + 9, name, trace=trace, cost=chance.random()).events.add(name=semconv.RETRY_EVENT)
    return sender.request()


def seed_logs(chance: random.Random) -> Message:
    """A logs request, as applications make them."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(chance.randint(1, 5)):
        record = records.add(time_unix_nano=time.time_ns(), severity_number=SeverityNumber.SEVERITY_NUMBER_INFO)
        record.body.string_value = "said"
        record.trace_id, record.span_id = chance.randbytes(16), chance.randbytes(8)
    return request


def timelines(viewer: Viewer) -> None:
    """Whatever is kept can be shown."""
    for number in range(9):
        for kind in ("calls", "timeline"):
            found = viewer.http.get(f"/api/v1/conversations/conversation-{number}/{kind}", params={"limit": 1000})
            assert found.status_code in (200, 404), found.text
            for each in found.json().get("rows", ())[:3]:
                if each["span_id"]:
                    query = {"trace": each["trace_id"], "span": each["span_id"]}
                    viewer.http.get("/api/v1/span", params=query).raise_for_status().json()


def counted(viewer: Viewer) -> tuple[float, int, int]:
    totals = Totals.model_validate(viewer.http.get("/api/v1/totals").raise_for_status().json()["totals"])
    return totals.accumulated_cost, totals.accumulated_token_usage.prompt_tokens, totals.llm_calls


def breakdown(viewer: Viewer) -> Breakdown:
    return Breakdown.model_validate_json(viewer.http.get("/api/v1/totals").raise_for_status().content)


class Honest:
    """A process whose requests nobody bends."""

    def __init__(self) -> None:
        self.calls = 0
        self._sender = Sender("honest-1", service=HONEST)

    def spend(self, viewer: Viewer) -> None:
        self.calls += 1
        viewer.send(self._sender.spend(self.calls * COST, model="honest").converse("honest", self.calls * COST))

    def look(self, viewer: Viewer) -> None:
        """What is held of it is right, tables add up, saving works and health tells so."""
        found = breakdown(viewer)
        (share,) = [share for share in found.by_service if share.name == HONEST]
        assert share.accumulated_cost == pytest.approx(self.calls * COST, abs=1e-9)
        for shares in (found.by_model, found.by_role, found.by_provider, found.by_agent, found.by_service):
            together = math.fsum(share.accumulated_cost for share in shares)
            assert together == pytest.approx(found.totals.accumulated_cost, rel=1e-12, abs=1e-9)
        health = viewer.http.get("/healthz")
        assert health.status_code == 200, health.text
        assert viewer.state().receiver.history_error is None


@pytest.mark.timeout(600 + BODIES // 10)
def test_a_bent_request_harms_nothing_that_is_held(tmp_path: Path) -> None:
    """Stands for all values and bytes that can arrive: refused or counted, never half, never in the way of others."""
    chance, honest = random.Random(BODIES), Honest()
    viewer = start_viewer(database=tmp_path / "history.sqlite3")
    port = int(viewer.url.rpartition(":")[2])
    refused = taken = 0
    half_way_mb = 0.0
    try:
        before = counted(viewer)
        for number in range(BODIES):
            body, headers = bent_body(chance)
            status = viewer.http.post("/v1/metrics", content=body, headers=headers).status_code
            assert status in (200, 400, 413, 415), (status, number)
            after = counted(viewer)
            if status == 200:
                taken += 1
            else:
                refused += 1
                assert after == before, f"a request that was refused counts: body {number}"
            before = after
            if number % EVERY == 0:
                honest.spend(viewer)
                honest.look(viewer)
                before = counted(viewer)
            if number == BODIES // 2:
                half_way_mb = viewer.memory_mb()
        grown = viewer.memory_mb() - half_way_mb
        print(f"{taken} bent bodies taken, {refused} refused; the second half added {grown:.1f} MB to the viewer")
        assert taken
        assert refused
        assert grown < MEMORY_MB
        viewer.stop()
        viewer = start_viewer(database=tmp_path / "history.sqlite3", port=port)
        # Bent counts may add up to more than 2**53, beyond which a float does not hold every whole number.
        assert counted(viewer) == pytest.approx(before, rel=1e-12)
        honest.look(viewer)
    finally:
        if viewer.process.poll() is None:
            viewer.stop()


@pytest.mark.timeout(600 + BODIES // 10)
def test_bent_spans_harm_neither_what_is_held_nor_what_is_shown(tmp_path: Path) -> None:
    """The same of spans, and of logs between them: kept or refused; money is never touched, timelines can be shown."""
    chance, honest = random.Random(BODIES), Honest()
    viewer = start_viewer(database=tmp_path / "history.sqlite3")
    port = int(viewer.url.rpartition(":")[2])
    taken = 0
    half_way_mb = 0.0
    try:
        for number in range(BODIES):
            path, seed = ("/v1/logs", seed_logs) if number % 10 == 9 else ("/v1/traces", seed_spans)
            body, headers = bent_body(chance, seed)
            status = viewer.http.post(path, content=body, headers=headers).status_code
            assert status in (200, 400, 413, 415), (status, number)
            taken += status == 200
            if number % EVERY == 0:
                honest.spend(viewer)
                honest.look(viewer)
                assert counted(viewer)[0] == pytest.approx(honest.calls * COST, abs=1e-9)
                timelines(viewer)
            if number == BODIES // 2:
                half_way_mb = viewer.memory_mb()
        assert 0 < taken < BODIES
        assert viewer.memory_mb() - half_way_mb < MEMORY_MB
        viewer.stop()
        viewer = start_viewer(database=tmp_path / "history.sqlite3", port=port)
        honest.look(viewer)
        timelines(viewer)
    finally:
        if viewer.process.poll() is None:
            viewer.stop()
