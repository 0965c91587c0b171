"""Any history of senders, networks and viewers comes to what was truly spent.

Hypothesis plays processes that spend, on clocks that step, with starts that gateways move, cumulative, delta or
exponential, with and without an instance id, restarted under their old one; requests that come late, twice, in any
order and whose answers are lost; viewers that are stopped, killed and started again on their database, and whose
records leave memory. A model beside them knows the truth. When all has arrived that was ever sent, the totals are the
model's, by conversation and model too.

``TEST_HISTORIES`` is how many are played (``make test``: a few).
"""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel import semconv
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.rows import Dimension
from openhands_otel.stats import Share
from otlp_sender import Sender, key_values

from .held import HeldStore

HISTORIES = int(os.environ.get("TEST_HISTORIES", "40"))
SECOND = 1_000_000_000
EPOCH = time.time_ns() - 86_400 * SECOND
SCALE = 3
"""Of exponential histograms, before they have grown coarser."""

amounts = st.sampled_from([0.1, 0.25, 1e-7, 3.0, 1234.56789])
models = st.sampled_from(["gpt", "claude"])
conversations = st.sampled_from(["a", "b", None])
Key = tuple[str, str]
"""Metric and model, or metric and conversation."""


@dataclass
class Process:
    """A process and its clock. What it says is made here as another program would make it."""

    instance: str
    host: str
    delta: bool
    exponential: bool
    counts_calls: bool
    now: int
    start: int = 0
    began: int = 0
    last_stamp: int = 0
    values: dict[Key, float] = field(default_factory=lambda: defaultdict(float))
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[Key, float] = field(default_factory=dict)
    acknowledged_latencies: dict[str, int] = field(default_factory=dict)
    stamps: dict[Key, int] = field(default_factory=dict)
    """The newest of each series."""
    joint: int = 0
    """Where the interval begins that is sent next, as delta."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin from nothing; of the clock only that it is later than all that was said before."""
        self.now = max(self.now, self.last_stamp) + 2 * SECOND
        self.start = self.began = self.joint = self.now
        self.values.clear()
        self.latencies.clear()
        self.acknowledged.clear()
        self.acknowledged_latencies.clear()
        self.stamps.clear()

    def zeros(self, keys: list[Key]) -> bytes:
        """The points of value 0 that streams start with."""
        sender = Sender(self.instance, resource={"host.name": self.host}, start=self.start)
        for metric, name in keys:
            self._number(sender, metric, name, 0.0, self.now)
        self._note_stamps(keys)
        return sender.body()

    def body(self, acknowledge: bool) -> bytes:
        """A request with all that it has to say; ``acknowledge``: whether it will know that it arrived."""
        sender = Sender(self.instance, resource={"host.name": self.host}, start=self.start)
        at = self.now
        for (metric, name), value in self.values.items():
            self._number(sender, metric, name, value, at)
        request = sender.request()
        for fleet in request.resource_metrics[0].scope_metrics:
            if fleet.scope.name != semconv.SCOPE_FLEET:
                continue
            for metric in fleet.metrics:
                if self.delta:
                    metric.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_DELTA
            self._add_latencies(fleet, at)
        if acknowledge:
            self.acknowledged = dict(self.values)
            self.acknowledged_latencies = {model: len(values) for model, values in self.latencies.items()}
            self.joint = self.now
        self._note_stamps([*self.values, *((semconv.RESPONSE_LATENCY.name, model) for model in self.latencies)])
        return request.SerializeToString()

    def _note_stamps(self, keys: Iterable[Key]) -> None:
        self.last_stamp = max(self.last_stamp, self.now)
        for key in keys:
            self.stamps[key] = max(self.stamps.get(key, 0), self.now)

    def _number(self, sender: Sender, metric: str, name: str, value: float, at: int) -> None:
        named = {semconv.COST.name: semconv.COST, semconv.CALLS.name: semconv.CALLS}.get(metric)
        if named is None:
            sender.converse(name, value, at=at)
            return
        start = self.start
        if self.delta:
            value, start = value - self.acknowledged.get((metric, name), 0), self.joint
        sender.add(named, value, {semconv.REQUEST_MODEL: name}, at=at, start=start)

    def _add_latencies(self, fleet: pb.ScopeMetrics, at: int) -> None:
        metric = fleet.metrics.add(name=semconv.RESPONSE_LATENCY.name, unit="s")
        data: Any = metric.exponential_histogram if self.exponential else metric.histogram
        data.aggregation_temporality = (
            pb.AGGREGATION_TEMPORALITY_DELTA if self.delta else pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        for model, values in self.latencies.items():
            told = values[self.acknowledged_latencies.get(model, 0) if self.delta else 0 :]
            point = data.data_points.add(
                attributes=key_values({semconv.REQUEST_MODEL: model}),
                start_time_unix_nano=self.joint if self.delta else self.start,
                time_unix_nano=at,
                count=len(told),
                sum=math.fsum(told),
            )
            if self.exponential:
                fill(point, told)
            else:
                point.explicit_bounds.extend([0.1, 1.0, 10.0])
                point.bucket_counts.extend(counted(told))


def counted(values: list[float]) -> list[int]:
    bounds = [0.1, 1.0, 10.0, math.inf]
    counts = [0] * len(bounds)
    for value in values:
        counts[next(index for index, bound in enumerate(bounds) if value <= bound)] += 1
    return counts


def fill(point: pb.ExponentialHistogramDataPoint, values: list[float]) -> None:
    """Buckets by the data model's own formula, coarser the more there are."""
    point.scale = max(0, SCALE - len(values) // 4)
    buckets = Counter(math.ceil(math.log2(value) * 2**point.scale) - 1 for value in values)
    if buckets:
        point.positive.offset = min(buckets)
        point.positive.bucket_counts.extend(buckets[index] for index in range(min(buckets), max(buckets) + 1))


class AnyHistory(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="history"))
        self.processes: list[Process] = []
        self.sent: list[bytes] = []
        self.cost: dict[str, list[float]] = defaultdict(list)
        self.by_conversation: dict[str, list[float]] = defaultdict(list)
        self.calls: Counter[str] = Counter()
        self.viewer = self.start_viewer()

    def start_viewer(self) -> HeldStore:
        return HeldStore(self.folder / "history.sqlite3", conversation_limit=1).__enter__()

    @initialize(
        kinds=st.lists(st.tuples(st.sampled_from(["own", "none"]), *[st.booleans()] * 3), min_size=1, max_size=3)
    )
    def begin(self, kinds: list[tuple[str, bool, bool, bool]]) -> None:
        for number, (named, delta, exponential, counts_calls) in enumerate(kinds):
            # Without ids all of them are alike, but for the nanosecond at which they started.
            instance, host = (f"p{number}", f"h{number}") if named == "own" else ("", "h")
            # An old and a new agent cannot both be one.
            counts_calls |= not instance
            now = EPOCH + number + number * SECOND * (named == "own")
            self.processes.append(Process(instance, host, delta, exponential, counts_calls, now))

    def choose(self, index: int) -> Process:
        return self.processes[index % len(self.processes)]

    @rule(index=st.integers(0, 2), amount=amounts, model=models, conversation=conversations)
    def spend(self, index: int, amount: float, model: str, conversation: str | None) -> None:
        process = self.choose(index)
        before = set(process.values)
        process.values[semconv.COST.name, model] += amount
        self.cost[model].append(amount)
        process.latencies[model].append(amount)
        self.calls[model] += 1
        if process.counts_calls:
            calls = process.values.get((semconv.CALLS.name, model), 0)
            process.values[semconv.CALLS.name, model] = int(calls) + 1
        if conversation is not None:
            process.values[semconv.CONVERSATION_COST.name, conversation] += amount
            self.by_conversation[conversation].append(amount)
        if not process.delta and (new := [key for key in process.values if key not in before]):
            self.sent.append(process.zeros(new))

    @rule(index=st.integers(0, 2), answered=st.booleans(), arrives=st.booleans(), passes_s=st.sampled_from([0, 1, 60]))
    def send(self, index: int, answered: bool, arrives: bool, passes_s: int) -> None:
        process = self.choose(index)
        process.now += passes_s * SECOND + 1_000_000
        self.sent.append(process.body(acknowledge=answered))
        if arrives:
            self.viewer.take_body(self.sent[-1])

    @rule(chosen=st.randoms(use_true_random=False), many=st.integers(1, 5))
    def arrives_late_or_twice(self, chosen: random.Random, many: int) -> None:
        for body in chosen.choices(self.sent, k=many) if self.sent else ():
            self.viewer.take_body(body, replayed=chosen.random() < 0.2)

    @rule(index=st.integers(0, 2), by_s=st.sampled_from([-1800, -10, 3600]))
    def clock_steps(self, index: int, by_s: int) -> None:
        process = self.choose(index)
        if not process.delta:
            process.now = max(process.now + by_s * SECOND, process.began)

    @rule(index=st.integers(0, 2))
    def gateway_moves_the_start(self, index: int) -> None:
        """It puts a time there that it has seen; without an id a start is all that is known of a process."""
        process = self.choose(index)
        seen = min(process.stamps.values(), default=0)
        if process.instance and not process.delta and seen > process.start + 2 * SECOND:
            process.start = seen

    @rule(index=st.integers(0, 2))
    def process_restarts(self, index: int) -> None:
        """Its last values are sent, as they are at any exit."""
        process = self.choose(index)
        self.sent.append(process.body(acknowledge=True))
        process.restart()

    @rule(orderly=st.booleans())
    def viewer_restarts(self, orderly: bool) -> None:
        if not orderly:
            # Killed: what was not saved is lost, and comes again.
            self.viewer.run(self.viewer.housekeeping.save())
            self.viewer.store.fleet.dirty.clear()
            self.viewer.store.conversations.dirty.clear()
            self.viewer.store.sampled.clear()
        self.viewer.__exit__()
        self.viewer = self.start_viewer()

    @rule(hours=st.sampled_from([0, 20, 30]))
    def dates_are_forgotten(self, hours: int) -> None:
        while self.viewer.run(self.viewer.housekeeping.save()):
            pass
        self.viewer.run(self.viewer.store.archive.purge(0.0, EPOCH / SECOND + hours * 3600))

    @rule()
    def memory_is_made_free(self) -> None:
        self.viewer.let_all_go()

    def teardown(self) -> None:
        for process in self.processes:
            self.sent.append(process.body(acknowledge=True))
        chosen = random.Random(len(self.sent))
        for body in chosen.sample(self.sent, len(self.sent)):
            self.viewer.take_body(body)
        try:
            self.check()
            self.viewer.__exit__()
            self.viewer = self.start_viewer()
            self.check()
        finally:
            self.viewer.__exit__()
            shutil.rmtree(self.folder)

    def check(self) -> None:
        store = self.viewer.store
        totals = store.totals()
        assert totals.accumulated_cost == pytest.approx(math.fsum(chain(*self.cost.values())), abs=1e-9)
        assert totals.llm_calls == self.calls.total()
        shares = {share.name: share for share in store.breakdown().by_model}
        for model, spent in self.cost.items():
            share = shares.get(model, Share(name=model))
            assert share.accumulated_cost == pytest.approx(math.fsum(spent), abs=1e-9)
            assert share.llm_calls == self.calls[model]
        self.check_places()
        for conversation, spent in self.by_conversation.items():
            held = store.conversations.by_id.get(conversation)
            if held is not None:
                assert held.own_cost == pytest.approx(math.fsum(spent), abs=1e-9)
        assert set(store.conversations.by_id) <= set(self.by_conversation)
        for process in store.fleet.processes.values():
            for (name, _), series in process.series.items():
                if name == semconv.RESPONSE_LATENCY.name:
                    assert sum(series.value.counts) == series.value.count

    def check_places(self) -> None:
        """Whatever the archive is asked by, its rows add up to the totals."""
        cost, calls = math.fsum(chain(*self.cost.values())), self.calls.total()
        by_model = defaultdict(Amount, self.viewer.spent(Dimension.MODEL))
        for model, spent in self.cost.items():
            assert by_model[(model,)].cost.value == pytest.approx(math.fsum(spent), abs=1e-9)
            assert by_model[(model,)].calls == self.calls[model]
        for names in ((), (Dimension.SERVICE, Dimension.PROVIDER), (Dimension.CONVERSATION, Dimension.MODEL)):
            rows = self.viewer.spent(*names).values()
            assert math.fsum(row.cost.value for row in rows) == pytest.approx(cost, abs=1e-9)
            assert sum(row.calls for row in rows) == calls
        # Of what has lost its date the conversation is forgotten.
        by_conversation = self.viewer.spent(Dimension.CONVERSATION)
        for conversation, spent in self.by_conversation.items():
            held = by_conversation.get((conversation,))
            assert held is None or held.cost.value <= math.fsum(spent) + 1e-9


@pytest.mark.timeout(3600)
def test_any_history_comes_to_what_was_spent() -> None:
    """Kind: the order of things, and what is one thing, taken from what cannot tell."""
    few = settings(
        max_examples=HISTORIES,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(AnyHistory, settings=few)
