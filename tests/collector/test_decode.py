"""Bytes into points: what is taken, what is left out, what is refused as a whole."""

from __future__ import annotations

from functools import partial

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import (
    MalformedRequest,
    count_logs,
    decode_metrics,
)
from openhands_otel._internal.collector.spans.decode import decode_spans
from otlp_sender import Sender


def test_protobuf_and_json_say_the_same() -> None:
    sender = Sender("p").spend(0.25).converse("c", 0.25).state("c", "running").observe(semconv.RESPONSE_LATENCY, [0.3])
    request = sender.request()
    from_protobuf = decode_metrics(request.SerializeToString(), json=False)
    from_json = decode_metrics(json_format.MessageToJson(request).encode(), json=True)
    assert from_json == from_protobuf
    assert from_protobuf.point_count == 4


def test_a_process_is_known_by_service_and_instance() -> None:
    [update] = decode_metrics(Sender("one", service="runner").spend(1.0).body(), json=False).updates
    assert update.instance.service == "runner"
    [other] = decode_metrics(Sender("two", service="runner").spend(1.0).body(), json=False).updates
    assert other.instance.key != update.instance.key


def test_a_sender_without_an_instance_id_is_known_by_its_whole_resource() -> None:
    keys: set[str] = set()
    for host in ("a", "b", "a"):
        request = Sender("", resource={"host.name": host}).spend(1.0).request()
        [update] = decode_metrics(request.SerializeToString(), json=False).updates
        keys.add(update.instance.key)
    assert len(keys) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_impossible_amount_is_left_out_and_the_rest_is_taken(value: float) -> None:
    decoded = decode_metrics(Sender("p").spend(value).converse("c", 2.0).body(), json=False)
    assert decoded.refusals.count == 1
    assert semconv.COST.name in decoded.refusals.reason
    assert [point.value for point in decoded.updates[0].points] == [2.0]


def of(sender: Sender) -> tuple[ExportMetricsServiceRequest, pb.Metric]:
    """What a sender sends, and the one metric in it."""
    request = sender.request()
    return request, request.resource_metrics[0].scope_metrics[0].metrics[0]


def refused(request: ExportMetricsServiceRequest) -> str:
    """Why the points of a request were left out, of which none was taken."""
    decoded = decode_metrics(request.SerializeToString(), json=False)
    assert (decoded.updates, decoded.refusals.count) == ([], 1)
    return decoded.refusals.reason


def test_what_may_fall_is_not_taken_as_deltas() -> None:
    request, metric = of(Sender("p").spend(1.0))
    metric.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_DELTA
    assert decode_metrics(request.SerializeToString(), json=False).point_count == 1
    metric.sum.is_monotonic = False
    assert "may fall" in refused(request)


def test_what_does_not_say_its_temporality_is_left_out() -> None:
    request, metric = of(Sender("p").spend(1.0))
    metric.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_UNSPECIFIED
    assert "cumulative or delta" in refused(request)


def test_a_summary_is_left_out_with_a_reason() -> None:
    request, metric = of(Sender("p").spend(1.0))
    metric.summary.data_points.add(count=1, sum=1.0)
    assert "summary" in refused(request)


@pytest.mark.parametrize("metric", [semconv.COST, semconv.CONVERSATION_CONTEXT_TOKENS])
def test_a_point_without_a_value_is_left_out(metric: semconv.Metric) -> None:
    """Kind: what is absent read as 0 ($1.50 became $2.50: a fall, and so a restart)."""
    request, message = of(Sender("p").add(metric, 1))
    for point in (*message.sum.data_points, *message.gauge.data_points):
        point.ClearField("as_int")
    assert "without a value" in refused(request)


def test_who_cannot_be_told_from_others_is_not_counted() -> None:
    """Neither an id nor a start: two such processes would be taken for one that starts again and again."""
    request, metric = of(Sender("", start=0).spend(1.0))
    assert "instance id" in refused(request)
    metric.sum.data_points[0].start_time_unix_nano = 1
    assert decode_metrics(request.SerializeToString(), json=False).point_count == 1


def test_an_exponential_histogram_whose_buckets_are_not_its_count_is_left_out() -> None:
    request, metric = of(Sender("p").spend(1.0))
    metric.exponential_histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_DELTA
    point = metric.exponential_histogram.data_points.add(count=4, zero_count=1)
    point.positive.bucket_counts.extend([1, 1])
    assert "in its buckets" in refused(request)
    point.count, point.scale = 3, 99
    assert "scale" in refused(request)
    point.scale, point.zero_threshold = 3, float("nan")
    assert refused(request)


def test_buckets_that_do_not_fit_their_bounds_are_left_out() -> None:
    request = Sender("p").observe(semconv.RESPONSE_LATENCY, [1.0]).request()
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    del metric.histogram.data_points[0].bucket_counts[-1]
    assert decode_metrics(request.SerializeToString(), json=False).refusals.count == 1


@pytest.mark.parametrize(
    ("body", "json"),
    [
        (b"\xff\xff\xff", False),
        (b"{", True),
        (b"[]", True),
        (b'{"resourceMetrics": 7}', True),
        (b"\xff\xfe", True),
        (b"[" * 100_000, True),
        (b'{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"\\ud800"}}]}}]}', True),
    ],
)
def test_a_body_that_is_none_is_refused_in_one_line(body: bytes, json: bool) -> None:
    for read in (decode_metrics, partial(decode_spans, received=0), count_logs):
        if read is not decode_metrics and b"resourceMetrics" in body:
            continue
        with pytest.raises(MalformedRequest) as refused:
            read(body, json)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300
