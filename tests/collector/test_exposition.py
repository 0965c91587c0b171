"""What a Prometheus scrapes: names as its own OTLP receiver makes them, and text that its own parser reads."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.serve.exposition import Exposition
from openhands_otel._internal.prometheus import label_name, metric_name
from otlp_sender import Sender, key_values

from .held import HeldStore

GOLDEN = """\
# HELP openhands_conversation_cost_USD_total Cost of a conversation in this process, by role, model, usage id.
# TYPE openhands_conversation_cost_USD_total counter
openhands_conversation_cost_USD_total{gen_ai_conversation_id="c\\"1",gen_ai_request_model="gpt",instance="p",job="lab/agent",openhands_llm_role="agent",openhands_usage_id="agent"} 0.5
# HELP openhands_conversation_status_ratio 1 for the state that the conversation is in.
# TYPE openhands_conversation_status_ratio gauge
openhands_conversation_status_ratio{gen_ai_conversation_id="c\\"1",instance="p",job="lab/agent",openhands_conversation_status="running"} 1.0
# HELP openhands_llm_cost_USD_total What LLM calls cost.
# TYPE openhands_llm_cost_USD_total counter
openhands_llm_cost_USD_total{gen_ai_provider_name="openai",gen_ai_request_model="gpt",instance="p",job="lab/agent",openhands_llm_role="agent"} 0.75
"""  # noqa: E501


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        sender = Sender("p", resource={"service.namespace": "lab", "host.name": "box"})
        sender.spend(0.75).converse('c"1', 0.5).state('c"1', "idle").observe(
            semconv.RESPONSE_LATENCY, [0.005, 0.3, 99.0]
        )
        viewer.send(sender)
        viewer.send(sender.state('c"1', "idle", ended=True).state('c"1', "running"))
        yield viewer


def test_the_text_format_is_as_it_should_be(viewer: Viewer) -> None:
    response = viewer.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = ("openhands_conversation_cost", "openhands_conversation_status", "openhands_llm_cost")
    lines = [line for line in response.text.splitlines() if any(family in line for family in families)]
    assert "\n".join([*lines, ""]) == GOLDEN


def test_a_prometheus_parser_reads_both_formats_alike(viewer: Viewer) -> None:
    text = viewer.http.get("/metrics").text
    response = viewer.http.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")

    def samples(families: Iterator[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    from_text = samples(parse_text(text))
    from_openmetrics = samples(parse_openmetrics(response.text))
    own = "openhands_otel_collector"
    created = {k: v for k, v in from_openmetrics.items() if k[0].endswith("_created")}
    assert {k: v for k, v in from_text.items() if own not in k[0]} == {
        k: v for k, v in from_openmetrics.items() if own not in k[0] and k not in created
    }
    # The text format has no place for when a series began, OpenMetrics has.
    [began] = [at for (name, _), at in created.items() if name == "openhands_llm_cost_USD_created"]
    assert abs(began - time.time()) < 600
    [began] = [at for (name, _), at in created.items() if name == "openhands_otel_collector_points_created"]
    assert abs(began - time.time()) < 600
    assert "# UNIT openhands_llm_cost_USD USD\n" in response.text
    latency = "openhands_llm_response_latency_seconds"
    where = (("instance", "p"), ("job", "lab/agent"))
    assert from_text[f"{latency}_count", where] == 3
    assert from_text[f"{latency}_bucket", (*where, ("le", "0.01"))] == 1
    assert from_text[f"{latency}_bucket", (*where, ("le", "0.32"))] == 2
    assert from_text[f"{latency}_bucket", (*where, ("le", "+Inf"))] == 3
    assert from_text["target_info", (("host_name", "box"), *where)] == 1


def test_what_has_ended_is_no_longer_scraped(viewer: Viewer) -> None:
    assert 'openhands_conversation_status="idle"' not in viewer.http.get("/metrics").text


@pytest.mark.parametrize(
    ("name", "kind", "unit", "expected"),
    [
        ("openhands.llm.cost", "counter", "USD", "openhands_llm_cost_USD_total"),
        ("gen_ai.client.token.usage", "histogram", "{token}", "gen_ai_client_token_usage"),
        ("http.server.duration", "histogram", "ms", "http_server_duration_milliseconds"),
        ("requests.total", "counter", "1", "requests_total"),
        ("cpu.utilization", "gauge", "1", "cpu_utilization_ratio"),
        ("net.speed", "gauge", "By/s", "net_speed_bytes_per_second"),
        ("queue.rate", "gauge", "{item}/min", "queue_rate_per_min"),
        ("wait.seconds", "gauge", "s", "wait_seconds"),
        ("2xx", "counter", "", "_2xx_total"),
        ("a..b--c", "gauge", "", "a_b_c"),
    ],
)
def test_names_are_those_of_prometheus_own_receiver(name: str, kind: str, unit: str, expected: str) -> None:
    assert metric_name(name, kind, unit) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gen_ai.request.model", "gen_ai_request_model"),
        ("2nd", "key_2nd"),
        ("_own", "key_own"),
        ("__name", "__name"),
        ("__name__", "key__name__"),
    ],
)
def test_label_names_are_those_of_prometheus_own_receiver(name: str, expected: str) -> None:
    assert label_name(name) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Exposition.TEXT),
        ("*/*", Exposition.TEXT),
        ("text/plain;version=0.0.4", Exposition.TEXT),
        ("application/openmetrics-text;version=1.0.0", Exposition.OPENMETRICS),
        ("application/openmetrics-text;q=0", Exposition.TEXT),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", Exposition.TEXT),
        ("Application/OpenMetrics-Text; version=1.0.0; q=0.6, text/plain;version=0.0.4;q=0.4", Exposition.OPENMETRICS),
        ("application/openmetrics-text;q=nonsense", Exposition.OPENMETRICS),
    ],
)
def test_the_format_is_the_one_that_is_liked_best(accept: str, expected: Exposition) -> None:
    assert Exposition.accepted(accept) is expected


NAMES = [
    "foo",
    "foo.total",
    "foo_total",
    "foo.created",
    "foo_bucket",
    "foo.count",
    "foo.sum",
    "foo_info",
    "foo.seconds",
]
NAMES += [
    "f.oo",
    "f_oo",
    "f:oo",
    "1foo",
    "_",
    "...",
    "é",
    "\N{SNOWMAN}",
    "total",
    "target.info",
    "target",
    "info",
    "a\nb",
]
NAMES += [
    semconv.COST.name,
    "openhands_llm_cost",
    "openhands.llm.cost.USD",
    "openhands_otel_collector_points",
    "x" * 2000,
]
LABELS = [
    "__name__",
    "le",
    "quantile",
    "job",
    "instance",
    "a.b",
    "a_b",
    "a-b",
    "",
    "_",
    "__",
    "1",
    "é",
    "exported_job",
    "\n",
]
LABELS += ["exported_exported_job", semconv.REQUEST_MODEL, "key__name__"]
values = (
    st.text(max_size=6) | st.sampled_from(["", '"', "\\", "\n", "\r", "\u2028", "\x00", "y" * 5000]) | st.booleans()
)
attribute_sets = st.dictionaries(st.sampled_from(LABELS), values | st.integers(-5, 5), max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
IDS = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


@st.composite
def exemplars(draw: st.DrawFn) -> pb.Exemplar:
    trace_id, span_id = (draw(st.just(bytes.fromhex(good)) | st.binary(max_size=20)) for good in IDS.values())
    made = pb.Exemplar(trace_id=trace_id, span_id=span_id, time_unix_nano=draw(st.integers(0, 2**64 - 1)))
    made.filtered_attributes.extend(key_values(draw(attribute_sets)))
    value = draw(st.none() | st.floats() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e6, 1e6))
    if value is not None:
        setattr(made, "as_int" if isinstance(value, int) else "as_double", value)
    return made


@st.composite
def metrics(draw: st.DrawFn) -> pb.Metric:
    name, unit = draw(st.sampled_from(NAMES)), draw(st.sampled_from(["", "1", "s", "USD", "{x}", "By/s", "total", "%"]))
    metric = pb.Metric(name=name, unit=unit, description=draw(st.sampled_from(["", "a\\b\n# EOF", "what it is"])))
    kind = draw(st.sampled_from(["counter", "updown", "gauge", "histogram", "exponential"]))
    temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
    if kind != "updown" and draw(st.booleans()):
        temporality = pb.AGGREGATION_TEMPORALITY_DELTA
    for attributes in draw(st.lists(attribute_sets, min_size=1, max_size=3)):
        common = {
            "attributes": key_values(attributes),
            "start_time_unix_nano": 10**18,
            "time_unix_nano": 2 * 10**18,
            "exemplars": draw(st.lists(exemplars(), max_size=2)),
        }
        if kind == "exponential":
            counts = draw(st.lists(st.integers(0, 2**40), max_size=4))
            metric.exponential_histogram.aggregation_temporality = temporality
            metric.exponential_histogram.data_points.add(
                **common,
                count=sum(counts),
                sum=draw(st.floats(-1e9, 1e9)),
                scale=draw(st.integers(-10, 20)),
                positive={"offset": draw(st.integers(-1000, 1000)), "bucket_counts": counts},
            )
            continue
        if kind == "histogram":
            bounds = sorted(draw(st.sets(st.floats(-1e6, 1e6), max_size=3)))
            counts = draw(st.lists(st.integers(0, 2**40), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
            metric.histogram.aggregation_temporality = temporality
            total = draw(st.floats(-1e9, 1e9))
            metric.histogram.data_points.add(
                **common, count=sum(counts), sum=total, bucket_counts=counts, explicit_bounds=bounds
            )
            continue
        data = metric.gauge if kind == "gauge" else metric.sum
        value = draw(numbers)
        data.data_points.add(**common, **({"as_int": value} if isinstance(value, int) else {"as_double": value}))
        if kind != "gauge":
            metric.sum.is_monotonic = kind == "counter"
            metric.sum.aggregation_temporality = temporality
    return metric


def check_openmetrics(families: list[Metric]) -> None:
    """What the text format has no place for: when series began, units, and exemplars where they may stand."""
    ends = {"counter": "_total", "histogram": "_bucket"}
    for family in families:
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        began, counted = set[tuple[tuple[str, str], ...]](), set[tuple[tuple[str, str], ...]]()
        below: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples:
            le = float(sample.labels.get("le", "inf"))
            series = tuple(sorted((name, text) for name, text in sample.labels.items() if name != "le"))
            if sample.name == f"{family.name}_created" and family.type in ends:
                began.add(series)
            elif family.type in ends:
                counted.add(series)
            if sample.exemplar:
                assert sample.name == family.name + ends[family.type]
                assert len(sample.exemplar.labels["trace_id"]) == 32, sample.exemplar
                assert sample.exemplar.labels.keys() == IDS.keys()
                assert float(sample.exemplar.timestamp) <= time.time()
                if family.type == "histogram":
                    assert below.get(series, -math.inf) < sample.exemplar.value <= le
            below[series] = le
        assert began == counted, family.name


def own_series(families: list[Metric]) -> dict[tuple[str, str], float]:
    return {
        (s.labels["instance"], s.labels["gen_ai_request_model"]): s.value
        for family in families
        for s in family.samples
        if s.name == "openhands_llm_cost_USD_total" and s.labels.get("gen_ai_provider_name") == "openai"
    }


def series_of(families: list[Metric]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [(s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.lists(metrics(), max_size=5)), min_size=1, max_size=4))
def test_the_page_is_valid_as_a_set_whatever_was_sent(requests: list[tuple[bool, list[pb.Metric]]]) -> None:
    """The kind of fault: names, labels and kinds of a stranger decide whether ours can be scraped at all.

    Judged by prometheus_client's strict parser, and as a set: no name in two families, no series twice, none of
    Prometheus' own labels from an attribute, and what is ours is there with its value.
    """
    with HeldStore() as held:
        for number, (named, foreign) in enumerate(requests):
            request = Sender(f"p{number}", service="s").spend(0.25, model=f"m{number}").request()
            request.resource_metrics[0].scope_metrics[0].metrics.extend(foreign)
            held.take_body(request.SerializeToString())
            # The same from two that have no instance id, or one that has none and says it twice.
            resource = request.resource_metrics[0].resource
            del resource.attributes[:]
            resource.attributes.extend(key_values({"service.name": "s", "service.namespace": "s" if named else "t"}))
            held.take_body(request.SerializeToString())
        page = held.run(Exposition.OPENMETRICS.render(held.store)).decode()
        families = list(parse_openmetrics(page))
        check_openmetrics(families)
        text = held.run(Exposition.TEXT.render(held.store)).decode()
        plain = list(parse_text(text))
    for each in (families, plain):
        series = series_of(each)
        assert len(series) == len(set(series))
        assert all(not label.startswith("__") or not label.endswith("__") for _, pairs in series for label, _ in pairs)
        ours = own_series(each)
        assert {ours[f"p{number}", f"m{number}"] for number in range(len(requests))} == {0.25}
    declared = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(declared) == len(set(declared))
    for before, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if after.startswith("# TYPE "):
            assert before.split(" ")[:3] == ["#", "HELP", after.split(" ")[2]]
