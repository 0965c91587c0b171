"""Metrics as files: complete however the process ends, small however long it lives, imported in any order, any number
of times, from any machine."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.cli import main
from openhands_otel._internal.export.otlp_file.json_lines import decode_line, encode_line
from openhands_otel._internal.export.otlp_file.merging import Merged
from openhands_otel._internal.export.otlp_file.writer import FileTransport
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import MARK, NEWEST, Spool, SpooledRequest, encode
from otlp_receiver import Receiver, http_receiver
from otlp_sender import Sender

from .conftest import Start
from .pipes import call, closed, opened, origin, pipeline, put, run_started

COST = semconv.COST.name
QUARTER_NS = 900 * 10**9
FILE = "OPENHANDS_OTEL_FILE"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def metrics(found: Iterable[dict[str, Any]], name: str) -> Iterable[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Of each point: instance, attributes, point."""
    for line in found:
        for resource in line["resourceMetrics"]:
            about = {each["key"]: each["value"] for each in resource["resource"]["attributes"]}
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    if metric["name"] == name:
                        for point in next(metric[kind] for kind in ("sum", "gauge", "histogram") if kind in metric)[
                            "dataPoints"
                        ]:
                            yield about["service.instance.id"]["stringValue"], point, about


def total(found: Iterable[dict[str, Any]], name: str = COST) -> float:
    """Of each series the greatest value less its first, which is 0."""
    values: dict[str, list[float]] = defaultdict(list)
    for instance, point, _ in metrics(found, name):
        series = json.dumps([instance, point["startTimeUnixNano"], point.get("attributes")])
        values[series].append(float(point.get("asDouble", point.get("asInt", 0))))
    assert all(series[0] == 0 for series in values.values())
    return sum(map(max, values.values()))


def import_(*words: str) -> int:
    return main(["import", *words])


# ---------------------------------------------------------------- a process's own file


def test_without_an_endpoint_there_is_a_file_and_nothing_else(start: Start, tmp_path: Path) -> None:
    """The user of an air-gapped CI: no viewer, no warning about one, no spool, a file for each process."""
    folder = tmp_path / "out" / "spend"
    child = start("import spending; spending.instrument(); spending.spend(5)", "", **{FILE: str(folder)})
    assert child.wait() == 0
    assert child.log == []
    assert total(lines(folder)) == pytest.approx(0.005, abs=1e-9)
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_written_is_otlp_as_the_file_format_has_it(tmp_path: Path) -> None:
    with pipeline({}, file=tmp_path / "out") as made:
        put(made, opened("c"), *call(origin("c")))
        assert made.flush(50)
        resource = dict(made.resource.attributes)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == f"{resource['service.instance.id']}.jsonl"
    for line in path.read_bytes().splitlines(keepends=True):
        document = json.loads(line)
        assert list(document) == ["resourceMetrics"]
        assert ParseDict(document, ExportMetricsServiceRequest()) == decode_line(line)
    for _, point, about in metrics(lines(tmp_path / "out"), COST):
        assert isinstance(point["timeUnixNano"], str)
        assert about["service.name"]["stringValue"]
    (kinds,) = {metric["sum"]["aggregationTemporality"] for metric in _all(lines(tmp_path / "out"), "sum")}
    assert kinds == 2


def _all(found: Iterable[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    for line in found:
        for resource in line["resourceMetrics"]:
            for scope in resource["scopeMetrics"]:
                yield from (metric for metric in scope["metrics"] if kind in metric)


def test_ids_of_spans_are_in_hex() -> None:
    request = ExportMetricsServiceRequest.FromString(Sender("a").spend(0.1).body())
    point = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    point.exemplars.add(trace_id=bytes(range(16)), span_id=bytes(range(8)), as_double=0.1)
    line = encode_line(request)
    assert b'"traceId":"000102030405060708090a0b0c0d0e0f"' in line
    assert b'"spanId":"0001020304050607"' in line
    assert decode_line(line) == request


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_has_written_what_it_spent(end: int, start: Start, tmp_path: Path) -> None:
    child = start(
        """
        import time
        import spending
        spending.instrument()
        spending.spend(7)
        spending.mark("spent")
        time.sleep(100)
        """,
        "",
        **{FILE: str(tmp_path / "out")},
    )
    child.wait_for("spent")
    if end == signal.SIGKILL:
        wait_for(lambda: total(lines(tmp_path / "out")) == pytest.approx(0.007, abs=1e-9), "what was spent")
    child.kill(end)
    child.wait()
    assert total(lines(tmp_path / "out")) == pytest.approx(0.007, abs=1e-9)


def test_a_forked_child_has_a_file_of_its_own(start: Start, tmp_path: Path) -> None:
    child = start(
        """
        import os
        import spending
        spending.instrument()
        spending.spend(2)
        if os.fork() == 0:
            spending.spend(3)
        else:
            os.wait()
            spending.spend(4)
        """,
        "",
        **{FILE: str(tmp_path / "out")},
    )
    assert child.wait() == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert total(lines(tmp_path / "out")) == pytest.approx(0.009, abs=1e-9)


def test_an_endpoint_that_is_named_gets_everything_too(receiver: Receiver, tmp_path: Path) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, file=tmp_path / "out") as made:
        put(made, *call(origin("c")))
        assert made.flush(50)
    assert receiver.total(COST) == pytest.approx(0.001, abs=1e-9)
    assert total(lines(tmp_path / "out")) == pytest.approx(0.001, abs=1e-9)


def test_a_file_is_complete_while_nobody_answers(tmp_path: Path) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, file=tmp_path / "out") as made:
        for _ in range(3):
            put(made, *call(origin("c")))
            made.flush(50)
        assert total(lines(tmp_path / "out")) == pytest.approx(0.003, abs=1e-9)


def test_no_exporter_and_a_file_is_a_file(tmp_path: Path) -> None:
    with pipeline({"OTEL_METRICS_EXPORTER": "none"}, file=tmp_path / "out") as made:
        put(made, *call(origin()))
        assert made.flush(50)
    assert total(lines(tmp_path / "out")) == pytest.approx(0.001, abs=1e-9)


@pytest.mark.parametrize("preferred", ["delta", "lowmemory"])
def test_what_is_written_is_cumulative_whatever_is_preferred(
    preferred: str, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody is told, and beside a collector that gets deltas: also of requests that fail and are made anew."""
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preferred}
    with pipeline(preference, file=tmp_path / "alone") as made:
        put(made, *call(origin("c")), *call(origin("c")))
        assert made.flush(50)
    assert total(lines(tmp_path / "alone")) == pytest.approx(0.002, abs=1e-9)
    with pipeline(preference | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, file=tmp_path / "both") as made:
        for number in range(6):
            answers = number % 3 == 2
            status = 200 if answers else 503
            receiver.answer = lambda status=status: (status, b"")
            put(made, *call(origin("c", model=f"m{number % 2}")))
            assert made.flush(50 if answers else 0.3) == answers
    assert not [record for record in caplog.records if "OPENHANDS_OTEL_FILE" in record.getMessage()]
    alone, both = lines(tmp_path / "alone"), lines(tmp_path / "both")
    assert set(_names(alone)) == set(_names(both)), "nothing is missing"
    for found in (alone, both):
        for kind in ("sum", "histogram"):
            assert all(metric[kind]["aggregationTemporality"] == 2 for metric in _all(found, kind))
    for name in (COST, semconv.CONVERSATION_COST.name):
        assert total(both, name) == pytest.approx(0.006, abs=1e-9)
    with running_viewer() as viewer:
        for _ in range(2):
            assert import_(str(tmp_path / "both"), "--endpoint", viewer.url) == 0
            the_bill_is(viewer, 0.006, 6)


def _names(found: Iterable[dict[str, Any]]) -> Iterable[str]:
    for kind in ("sum", "gauge", "histogram"):
        yield from (metric["name"] for metric in _all(found, kind))


OBSTACLES = ["a file in the way", "a folder that is a link to nowhere"]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_folder_that_cannot_be_written_is_one_line_and_made_up_for(
    obstacle: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    if obstacle == "a file in the way":
        folder.touch()
    else:
        folder.symlink_to("/proc/none/where")
    with pipeline({}, file=folder) as made:
        for _ in range(3):
            put(made, *call(origin("c")))
            assert not made.flush(0.3)
        (record,) = caplog.records
        assert "OPENHANDS_OTEL_FILE" in record.getMessage()
        assert "\n" not in record.getMessage()
        folder.unlink()
        assert made.flush(50)
    assert total(lines(folder)) == pytest.approx(0.003, abs=1e-9)


@pytest.mark.parametrize("loss", ["file", "folder", "its end"])
def test_what_somebody_else_takes_away_is_written_again(loss: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pipeline({}, file=folder) as made:
        put(made, *call(origin("c")))
        assert made.flush(50)
        (path,) = folder.iterdir()
        if loss == "its end":
            os.truncate(path, 10)
        elif loss == "file":
            path.unlink()
        else:
            shutil.rmtree(folder)
        put(made, *call(origin("c")))
        assert made.flush(50)
        assert total(lines(folder)) == pytest.approx(0.002, abs=1e-9)


# ---------------------------------------------------------------- small, however long it lives


def request(at: int, start: int, values: dict[str, float], ended: Iterable[str] = ()) -> ExportMetricsServiceRequest:
    sender = Sender("long", start=start)
    for name, value in values.items():
        about = {semconv.CONVERSATION_ID: name}
        if value == 0:
            sender.add(semconv.CONVERSATION_COST, 0.0, about, at=start)
        else:
            sender.add(semconv.CONVERSATION_COST, value, about, at=at)
    for name in ended:
        sender.add(semconv.CONVERSATION_COST, None, {semconv.CONVERSATION_ID: name}, at=at)
    return ExportMetricsServiceRequest.FromString(sender.body())


def test_a_long_life_makes_a_small_file_that_has_every_quarter_hour(tmp_path: Path) -> None:
    began = 1_790_000_000 * 10**9 // QUARTER_NS * QUARTER_NS
    transport = FileTransport(tmp_path, "long", loose_limit=20_000)
    transport.send(request(began, began, {"a": 0.0}), 1)
    written = 0
    for number in range(1, 4001):
        at = began + number * QUARTER_NS // 100
        sent = request(at, began, {"a": number * 0.01})
        written += len(encode_line(sent))
        assert transport.send(sent, 1).delivered
    transport.send(request(at + 1, began, {}, ended=["a"]), 1)
    size = (tmp_path / "long.jsonl").stat().st_size
    assert size < written / 20
    found = lines(tmp_path)
    assert total(found, semconv.CONVERSATION_COST.name) == pytest.approx(40.0, abs=1e-9)
    newest: dict[int, float] = {}
    for _, point, _ in metrics(found, semconv.CONVERSATION_COST.name):
        if not point.get("flags"):
            newest[int(point["timeUnixNano"]) // QUARTER_NS] = point["asDouble"]
    assert [newest[began // QUARTER_NS + number] for number in range(40)] == [
        pytest.approx((number * 100 + 99) * 0.01) for number in range(40)
    ]
    assert any(point.get("flags") for _, point, _ in metrics(found, semconv.CONVERSATION_COST.name))


def test_many_conversations_fit_and_no_money_of_the_fleet_is_lost(tmp_path: Path) -> None:
    began = 1_790_000_000 * 10**9 // QUARTER_NS * QUARTER_NS
    limit = 200_000
    transport = FileTransport(tmp_path, "long", limit=limit, loose_limit=20_000)
    for number in range(600):
        at = began + number * QUARTER_NS // 20
        sender = Sender("long", start=began)
        if number == 0:
            sender.add(semconv.COST, 0.0, at=began)
        sender.add(semconv.COST, (number + 1) * 0.5, at=at)
        about = {semconv.CONVERSATION_ID: f"conversation-{number}"}
        sender.add(semconv.CONVERSATION_COST, 0.0, about, at=at, start=at)
        sender.add(semconv.CONVERSATION_COST, 0.5, about, at=at + 1, start=at)
        assert transport.send(ExportMetricsServiceRequest.FromString(sender.body()), 1).delivered
        assert (tmp_path / "long.jsonl").stat().st_size < limit
    assert total(lines(tmp_path)) == pytest.approx(300.0)


def test_what_is_joined_keeps_the_last_value_before_the_end() -> None:
    began = 10**18
    merged = Merged()
    for number, value in enumerate((0.0, 1.0, 3.0)):
        merged.take(request(began + number, began, {"a": value, "b": value}))
    merged.take(request(began + 5, began, {}, ended=["a"]))
    (joined,) = merged.requests()
    found = [json.loads(encode_line(joined))]
    assert total(found, semconv.CONVERSATION_COST.name) == 6.0
    flags = [point.get("flags", 0) for _, point, _ in metrics(found, semconv.CONVERSATION_COST.name)]
    assert sorted(flags) == [0, 0, 0, 0, 1]


# ---------------------------------------------------------------- import


def the_bill_is(viewer: Viewer, cost: float, calls: int) -> None:
    totals = viewer.state().totals
    assert totals.accumulated_cost == pytest.approx(cost, abs=1e-9)
    assert totals.llm_calls == calls


def test_three_machines_any_order_twice(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "all" / f"machine-{number}" for number in range(3)]
    children = [
        start(
            f"import spending; spending.instrument(); spending.spend({number}, conversation='c-{number % 2}')",
            "",
            **{FILE: str(folder)},
        )
        for number, folder in zip((3, 5, 7), folders, strict=True)
    ]
    assert [child.wait() for child in children] == [0, 0, 0]
    with running_viewer() as viewer:
        order = random.Random(7)
        for _ in range(2):
            order.shuffle(folders)
            assert import_(*map(str, folders), "--endpoint", viewer.url) == 0
            the_bill_is(viewer, 0.015, 15)
        assert import_(str(tmp_path / "all"), "--endpoint", f"http://{viewer.grpc}", "--protocol", "grpc") == 0
        the_bill_is(viewer, 0.015, 15)
        state = viewer.state()
        assert {each.conversation_id: round(each.accumulated_cost, 9) for each in state.conversations} == {"c-1": 0.015}
    out = capsys.readouterr().out
    assert out.count("imported ") == 9
    assert "$0.0070 of 7 calls" in out


def test_a_file_of_a_process_that_was_live_changes_nothing(tmp_path: Path) -> None:
    with (
        running_viewer() as viewer,
        pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}, file=tmp_path / "out") as made,
    ):
        put(made, opened("c"), run_started("c"), *call(origin("c")))
        assert made.flush(50)
        assert import_(str(tmp_path / "out"), "--endpoint", viewer.url) == 0
        the_bill_is(viewer, 0.001, 1)
        put(made, *call(origin("c")), closed("c"))
        assert made.flush(50)
        the_bill_is(viewer, 0.002, 2)
        assert import_(str(tmp_path / "out"), "--endpoint", viewer.url) == 0
        the_bill_is(viewer, 0.002, 2)


def test_spools_are_taken_as_well(tmp_path: Path) -> None:
    parts = [
        SpooledRequest(kind, 1, Sender("s", start=5).spend(cost).body())
        for kind, cost in ((MARK, 0.25), (NEWEST, 0.75))
    ]
    there = Destination.of("grpc", "nowhere:4317", True)
    (tmp_path / "s.spool").write_bytes(encode(Spool("s", "bots", 7, there, "down", 1, 1, parts=parts)))
    with running_viewer() as viewer:
        for _ in range(2):
            assert import_(str(tmp_path), "--endpoint", viewer.url) == 0
            assert viewer.state().totals.accumulated_cost == pytest.approx(0.75)
    assert (tmp_path / "s.spool").exists()


def _whole(cost: float) -> bytes:
    return encode_line(ExportMetricsServiceRequest.FromString(Sender(f"good-{cost}").spend(cost).body()))


def _delta() -> bytes:
    found = ExportMetricsServiceRequest.FromString(Sender("delta").spend(9.0).body())
    for metric in found.resource_metrics[0].scope_metrics[0].metrics:
        metric.sum.aggregation_temporality = 1
    return encode_line(found)


BAD: dict[str, tuple[bytes, str]] = {
    "half": (_whole(9.0)[:-30] + b"\n", "line 2 is left out: it is no JSON"),
    "deep": (b"[" * 100_000 + b"\n", "nested too deeply"),
    "spans": (b'{"resourceSpans": []}\n', "it holds no metrics"),
    "text": (b"hello\x1b[31m\n", "it is no JSON"),
    "a wrong type": (b'{"resourceMetrics": [{"scopeMetrics": 5}]}\n', "not as OTLP has them"),
    "another": (b'{"resourceMetrics": {"a": 1}}\n', "not as OTLP has them"),
    "deltas": (_delta(), "deltas"),
    "binary": (bytes(range(256)).replace(b"\n", b"") + b"\n", "line 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_line_is_one_line_and_the_rest_goes_on(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, what = BAD[name]
    (tmp_path / "a.jsonl").write_bytes(_whole(0.25) + bad + _whole(0.5))
    (tmp_path / "b.jsonl").write_bytes(_whole(1.0))
    with http_receiver() as receiver:
        assert import_(str(tmp_path), "--endpoint", receiver.url) == 1
        assert receiver.total(COST) == pytest.approx(1.75)
        assert {headers.get(semconv.REPLAYED_HEADER) for headers in receiver.headers} == {"1"}
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line
    assert "\x1b" not in line


def test_a_file_without_its_end_is_taken_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(_whole(0.25) + _whole(0.5)[:-1])
    with http_receiver() as receiver:
        assert import_(str(tmp_path / "a.jsonl"), "--endpoint", receiver.url) == 1
        assert receiver.total(COST) == pytest.approx(0.25)
    assert "its end is missing" in capsys.readouterr().err


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_(str(tmp_path)) == 1
    assert "nothing to import" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert import_(str(tmp_path / "none.jsonl"), str(tmp_path)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "No such file" in first
    assert "no plain file" in second
    (tmp_path / "a.jsonl").write_bytes(_whole(0.25))
    assert import_(str(tmp_path / "a.jsonl"), "--endpoint", "http://127.0.0.1:9") == 1
    assert "import it again, it counts once" in capsys.readouterr().err


def test_the_command_is_a_module_like_the_others() -> None:
    assert importlib.import_module("openhands_otel._internal.cli.import").run
