"""Numbers that no sum, no database and no JSON can hold are refused by name, and cost nothing else.

The kind of fault: an accepted value takes down what comes after it. One point of 2**63-1 tokens ended the saving of
history for good, while /healthz said ok.
"""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.collector.serve.exposition import Exposition
from openhands_otel.semconv import Metric
from openhands_otel.stats import State
from otlp_sender import Sender, key_values

from .held import HeldStore, write_as_before

HUGE = 2**63 - 1


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges") / "history.sqlite3"


@pytest.fixture(scope="module")
def viewer(database: Path) -> Iterator[Viewer]:
    with running_viewer(database=database) as viewer:
        yield viewer


def histogram(count: int, total: float, counts: list[int], bounds: list[float], metric: Metric) -> pb.Metric:
    message = pb.Metric(name=metric.name, unit=metric.unit)
    message.histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
    message.histogram.data_points.add(
        start_time_unix_nano=1, time_unix_nano=2, count=count, sum=total, bucket_counts=counts, explicit_bounds=bounds
    )
    return message


def send_metric(viewer: Viewer, instance: str, metric: pb.Metric) -> ExportMetricsServiceResponse:
    request = Sender(instance).spend(0.0).request()
    request.resource_metrics[0].scope_metrics[0].metrics.append(metric)
    response = viewer.post(request.SerializeToString())
    assert response.status_code == 200, response.text
    return ExportMetricsServiceResponse.FromString(response.content)


@pytest.mark.parametrize(
    ("metric", "value", "limit"),
    [
        (semconv.COST, 1e300, "1e+09 USD"),
        (semconv.COST, 1.7e308, "1e+09 USD"),
        (semconv.COST, math.inf, "finite"),
        (semconv.COST, math.nan, "finite"),
        (semconv.COST, -0.01, "at least 0"),
        (semconv.INPUT_TOKENS, HUGE, "9.0072e+15 token"),
        (semconv.OUTPUT_TOKENS, 2**53 + 1, "9.0072e+15 token"),
        (semconv.UNPRICED_CALLS, -1, "at least 0"),
        (semconv.FLUSH_TIME, 1e12, "1e+11 s"),
        (semconv.CONVERSATION_COST, 1e10, "1e+09 USD"),
        (semconv.CONVERSATION_TOKENS, HUGE, "9.0072e+15 token"),
        (semconv.CONVERSATION_CONTEXT_LIMIT, HUGE, "9.0072e+15 token"),
        (semconv.CONVERSATION_CONTEXT_TOKENS, -1, "at least 0"),
        (semconv.CONVERSATION_NOW, 1e300, "1e+11 s"),
        (semconv.CONVERSATION_UNRECONCILED, -1e10, "1e+09 USD"),
        (semconv.CONVERSATION_STATE, math.nan, "finite"),
        (semconv.BUDGET, -1e308, "at least 0"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(viewer: Viewer, metric: Metric, value: float, limit: str) -> None:
    instance = f"{metric.name} {value}"
    sender = Sender(instance).spend(0.25).add(metric, value, {semconv.CONVERSATION_ID: "c"})
    before = viewer.state().totals.accumulated_cost
    answer = ExportMetricsServiceResponse.FromString(viewer.post(sender.body()).content)
    assert answer.partial_success.rejected_data_points == 1
    for named in (metric.name, limit, "agent", instance):
        assert named in answer.partial_success.error_message
    refusal = viewer.state().receiver.refusals[0]
    assert (refusal.service, refusal.instance, refusal.points) == ("agent", instance, 1)
    assert refusal.reason in answer.partial_success.error_message
    assert viewer.state().totals.accumulated_cost == before + 0.25


@pytest.mark.parametrize(
    ("count", "total", "counts", "bounds", "why"),
    [
        (2**63, 1.0, [], [], "the count 9223372036854775808"),
        (2**64 - 1, 1.0, [2**64 - 1, 0], [1.0], "the count"),
        (3, 1.0, [1, 1], [1.0], "2 in its buckets"),
        (1, 1e300, [1, 0], [1.0], "the sum 1e+300"),
        (1, math.nan, [1, 0], [1.0], "the sum nan"),
        (1, 1.0, [1, 0, 0], [2.0, 1.0], "do not rise"),
        (1, 1.0, [1, 0, 0], [1.0, math.inf], "no finite number"),
        (1, 1.0, [1, 0, 0], [math.nan, 2.0], "no finite number"),
    ],
)
def test_a_histogram_that_cannot_be_is_refused_by_name(
    viewer: Viewer, count: int, total: float, counts: list[int], bounds: list[float], why: str
) -> None:
    answer = send_metric(viewer, "h", histogram(count, total, counts, bounds, semconv.RESPONSE_LATENCY))
    assert answer.partial_success.rejected_data_points == 1
    assert why in answer.partial_success.error_message
    assert semconv.RESPONSE_LATENCY.name in answer.partial_success.error_message


def test_a_stamp_beyond_all_time_is_refused(viewer: Viewer) -> None:
    answer = viewer.post(Sender("far").spend(1.0, at=2**64 - 1).body())
    assert "has the time 18446744073709551615" in answer.text


def test_the_same_again_is_counted_and_the_list_stays_short(viewer: Viewer) -> None:
    for number in range(5):
        viewer.post(Sender("again").add(semconv.COST, 1e300 * (number + 1)).body())
    for number in range(300):
        viewer.post(Sender(f"flood {number}").add(semconv.COST, 1e300).body())
    viewer.post(Sender("again").add(semconv.COST, 1e300).body())
    receiver = viewer.state().receiver
    assert receiver.refusals[0].instance == "again"
    assert len(receiver.refusals) == 64
    assert receiver.refused_points >= 306


def test_a_request_that_cannot_be_read_stands_with_its_address(viewer: Viewer) -> None:
    assert viewer.post(b"\xff\xff").status_code == 400
    refusal = viewer.state().receiver.refusals[0]
    assert (refusal.instance, refusal.requests, refusal.points) == ("127.0.0.1", 1, 0)
    assert "protobuf" in refusal.reason


def test_after_all_of_it_history_is_saved_and_a_restart_knows_the_same(viewer: Viewer, database: Path) -> None:
    # Most that is taken: many processes at the upper end of what is plausible.
    for number in range(20):
        sender = Sender(f"rich {number}").spend(1e9).add(semconv.INPUT_TOKENS, 2**53)
        viewer.send(
            sender.converse("rich", 1e9).add(semconv.CONVERSATION_TOKENS, 2**53, {semconv.CONVERSATION_ID: "rich"})
        )
    before = viewer.state()
    assert before.totals.accumulated_token_usage.prompt_tokens == 20 * 2**53
    viewer.send(Sender("after").spend(101.25))
    total = viewer.state().totals.accumulated_cost
    wait_for(lambda: total in saved_costs(database), "the total was saved")
    assert viewer.http.get("/healthz").status_code == 200
    assert viewer.stop() == 0
    with running_viewer(database=database) as again:
        after = again.state()
        assert after.totals.accumulated_cost == total
        assert after.totals.accumulated_token_usage == before.totals.accumulated_token_usage
        assert again.http.get("/healthz").status_code == 200


def saved_costs(database: Path) -> set[float]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        return {cost for (cost,) in reader.execute("SELECT cost FROM samples WHERE subject = ''")}


def test_a_database_of_before_with_such_numbers_is_read_without_them(tmp_path: Path) -> None:
    """The release before took them; its file opens, and says what is true of the rest."""
    database = tmp_path / "history.sqlite3"
    with HeldStore(database) as held:
        held.take(Sender("good").spend(1.5).converse("c", 1.5))
        held.take(Sender("bad").spend(1.0).converse("d", 1.0).add(semconv.INPUT_TOKENS, 5))
    write_as_before(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        for table in ("processes", "conversations"):
            for rowid, text in connection.execute(f"SELECT rowid, record FROM {table}").fetchall():
                spoilt = json.dumps(json.loads(text)).replace(" 1.0,", " 1.7e308,").replace(" 5,", f" {HUGE},")
                connection.execute(f"UPDATE {table} SET record = ? WHERE rowid = ?", (spoilt, rowid))
    with HeldStore(database) as held:
        assert held.cost == 1.5
        assert held.store.totals().accumulated_token_usage.prompt_tokens == 0
        held.take(Sender("new").spend(0.25))
        assert held.cost == 1.75


any_double = st.floats() | st.sampled_from([1e300, 1.7e308, -1.7e308, 5e-324, 1e9, 1e9 + 1, 2.0**63])
any_int = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([HUGE, -HUGE - 1, 2**53, 2**53 + 1])
any_count = st.integers(0, 2**64 - 1) | st.sampled_from([2**63, 2**64 - 1, 2**53, 0, 1])
any_name = st.sampled_from(
    [m.name for m in vars(semconv).values() if isinstance(m, Metric)] + ["foreign", "other.total"]
)
any_attributes = st.dictionaries(
    st.sampled_from([semconv.CONVERSATION_ID, semconv.REQUEST_MODEL, semconv.CONVERSATION_PARENT_ID, "x"]),
    st.text(max_size=8) | any_int | any_double | st.booleans(),
    max_size=3,
)


@st.composite
def any_metric(draw: st.DrawFn) -> pb.Metric:
    metric = pb.Metric(name=draw(any_name), unit=draw(st.sampled_from(["", "1", "s", "USD", "{token}"])))
    times = {"start_time_unix_nano": draw(any_count), "time_unix_nano": draw(any_count)}
    attributes = key_values(draw(any_attributes))
    if draw(st.booleans()):
        numbers = metric.sum if draw(st.booleans()) else metric.gauge
        if isinstance(numbers, pb.Sum):
            numbers.is_monotonic, numbers.aggregation_temporality = draw(st.booleans()), 2
        value = {"as_int": draw(any_int)} if draw(st.booleans()) else {"as_double": draw(any_double)}
        numbers.data_points.add(attributes=attributes, **times, **value)
    else:
        metric.histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        counts = draw(st.lists(any_count, max_size=4))
        bounds = sorted(draw(st.lists(any_double, min_size=max(0, len(counts) - 1), max_size=max(0, len(counts) - 1))))
        count = sum(counts) % 2**64 if draw(st.booleans()) else draw(any_count)
        metric.histogram.data_points.add(
            attributes=attributes,
            **times,
            count=count,
            sum=draw(any_double),
            bucket_counts=counts,
            explicit_bounds=bounds,
        )
    return metric


@settings(max_examples=25)
@given(st.lists(st.lists(any_metric(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_whatever_numbers_come_it_can_be_saved_told_and_read_again(requests: list[list[pb.Metric]]) -> None:
    """Over the whole range of protobuf's types, for names of ours and of others: never a value that stops something."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "history.sqlite3"
        with HeldStore(database) as held:
            for number, metrics in enumerate(requests):
                request = Sender(f"p{number % 2}").spend(0.25).request()
                request.resource_metrics[0].scope_metrics[0].metrics.extend(metrics)
                held.take_body(request.SerializeToString())
            while held.run(held.housekeeping.save()):
                pass
            held.housekeeping.notice_silence(4e9)
            assert held.run(held.housekeeping.let_go()) in {True, False}
            assert held.store.health.problems == ()
            state = held.store.state()
            told = State.model_validate_json(state.model_dump_json())
            assert told.totals.accumulated_cost == state.totals.accumulated_cost < math.inf
            json.loads(held.store.greeting(None).split(b"data: ", 1)[1], parse_constant=lambda name: pytest.fail(name))
            for exposition in Exposition:
                assert held.run(exposition.render(held.store))
            before = held.store.breakdown()
        with HeldStore(database) as held:
            after = held.store.breakdown()
            assert after.totals.accumulated_cost == before.totals.accumulated_cost
            assert after.totals.accumulated_token_usage == before.totals.accumulated_token_usage
            assert after.by_model == before.by_model
