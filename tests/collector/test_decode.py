"""Bytes into points: what is taken, what is left out, what is refused as a whole."""

from __future__ import annotations

import pytest
from google.protobuf import json_format
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel import semconv
from openhands_otel.collector.decode import (
    MalformedRequest,
    count_logs,
    count_spans,
    decode_metrics,
)
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


def test_deltas_are_left_out_with_a_reason() -> None:
    request = Sender("p").spend(1.0).request()
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_DELTA
    decoded = decode_metrics(request.SerializeToString(), json=False)
    assert (decoded.updates, decoded.refusals.count) == ([], 1)
    assert "cumulative" in decoded.refusals.reason


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
    for read in (decode_metrics, count_spans, count_logs):
        if read is not decode_metrics and b"resourceMetrics" in body:
            continue
        with pytest.raises(MalformedRequest) as refused:
            read(body, json)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300
