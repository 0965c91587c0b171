"""What cannot be delivered is kept on disk, told in one line, and counted once, whoever sends it and however often.

Each test stands for the kind "an end without a collector is silent" (issue 10, row 11).
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.sdk.metrics import MeterProvider
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.clock import SECOND_NS, process_clock
from openhands_otel._internal.collector.spools import ViewerAddress, take_spools
from openhands_otel._internal.export.spool import folder as spool_folders
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import MARK, NEWEST, Spool, SpooledRequest, decode, encode
from openhands_otel._internal.export.spool.folder import LockedFile, entries, spool_folder
from openhands_otel._internal.metrics.conversation_series import CONVERSATIONS_PER_REQUEST
from otlp_receiver import NO_RECORDED_VALUE, Receiver, grpc_receiver, http_receiver

from .conftest import Start, black_hole, silent, talking_nonsense
from .pipes import call, opened, origin, pipeline, put, run_started

COST = semconv.COST.name
REPLAYED = semconv.REPLAYED_HEADER
EACH = 0.001


def spools() -> list[Spool]:
    """All files, each of them 0600 in a folder of 0700 and free of whoever wrote it."""
    folder = spool_folder()
    # One that was sent may go while they are looked at.
    found = [entry for entry in entries(folder, whole=True) if entry.spool is not None or entry.path.exists()]
    for entry in found:
        assert entry.spool is not None, entry.problem
        with suppress(FileNotFoundError):
            assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    if found:
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    return [entry.spool for entry in found if entry.spool is not None]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def viewer_at(port: int) -> Iterator[Viewer]:
    with running_viewer(port=port) as viewer:
        yield viewer


def the_bill_is(viewer: Viewer, cost: float, calls: int) -> None:
    def right() -> bool:
        totals = viewer.state().totals
        return totals.accumulated_cost == pytest.approx(cost, abs=1e-9) and totals.llm_calls == calls

    wait_for(right, f"a bill of ${cost} ({viewer.state().totals})")


def increase(receiver: Receiver, metric: str = COST) -> float:
    """What the formula of docs/metrics.md comes to: of each series its greatest value less its first, added up."""
    found = 0.0
    for points in receiver.streams(metric).values():
        values = [point.value for point in points if not point.flags & NO_RECORDED_VALUE]
        assert values[0] == 0
        found += max(values)
    return found


SPEND = """
import os, signal, sys, time
import spending
spending.instrument()
spending.spend(20, conversation="c")
spending.mark("spent")
{end}
"""
ENDS = {
    "normal": ("", 0, ""),
    "exception": ("raise RuntimeError('x')", 1, ""),
    "sigint": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", -signal.SIGINT, ""),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", -signal.SIGTERM, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
}


def test_whatever_the_end_and_wherever_nobody_is_the_money_is_kept_and_told(start: Start) -> None:
    port = free_port()
    children = {
        end: start(SPEND.format(end=statement), f"http://127.0.0.1:{port}/v1/metrics")
        for end, (statement, _, _) in ENDS.items()
    }
    for end, child in children.items():
        assert child.wait() == ENDS[end][1], child.err
        (line,) = (line for line in child.log if "did not reach" in line)
        assert "$0.0200 of 20 calls" in line
        assert f"http://localhost:{port}/v1/metrics" in line
        assert "refused" in line
        assert str(spool_folder()) in line
    assert [(spool.owed.cost, spool.owed.calls) for spool in spools()] == [(pytest.approx(0.02), 20)] * len(ENDS)
    with viewer_at(port) as viewer:
        the_bill_is(viewer, 0.02 * len(ENDS), 20 * len(ENDS))
        wait_for(lambda: not spools(), "an empty folder", 60)
        (conversation,) = viewer.state().conversations
        assert conversation.accumulated_cost == pytest.approx(0.02 * len(ENDS))


def unauthorized(receiver: Receiver) -> None:
    receiver.answer = lambda: (401, b"")


@contextmanager
def asking_for_a_token() -> Iterator[int]:
    with http_receiver() as receiver:
        unauthorized(receiver)
        yield receiver.port


NOBODY: dict[str, tuple[str, Callable[[], Any]]] = {
    "silent": ("http", silent),
    "black hole": ("http", black_hole),
    "nonsense": ("http", talking_nonsense),
    "no token": ("http", asking_for_a_token),
    "no TLS there": ("https", asking_for_a_token),
}


def test_whatever_is_there_instead_a_killed_process_loses_a_second_at_most(start: Start) -> None:
    """Also where each try takes the whole time that it may take, and the flusher waits in it."""
    source = """
    import os, time
    import spending
    spending.instrument()
    with open("spent", "a", buffering=1) as file:
        for number in range(300):
            spending.spend()
            file.write(f"{time.time_ns()}\\n")
            time.sleep(0.01)
    os.kill(os.getpid(), 9)
    """
    with ExitStack() as stack:
        ports = {name: stack.enter_context(there()) for name, (_, there) in NOBODY.items()}
        children = {
            name: start(source, f"{NOBODY[name][0]}://127.0.0.1:{port}/v1/metrics", OTEL_EXPORTER_OTLP_TIMEOUT="8")
            for name, port in ports.items()
        }
        for child in children.values():
            assert child.wait(100) == -signal.SIGKILL, child.err
        kept = {spool.destination.port: spool for spool in spools()}
    for name, child in children.items():
        spent = [int(line) for line in (child.directory / "spent").read_text().splitlines()]
        spool = kept[ports[name]]
        # As of when it was written, nothing is missing, and that was a second before the end at most.
        assert round(spool.owed.cost / EACH) >= sum(at < spool.written - SECOND_NS // 20 for at in spent), name
        assert spent[-1] - spool.written < 1.5 * SECOND_NS, name
        assert spool.reason


def test_a_collector_that_comes_back_gets_quarter_hours_first_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    quarter = 900 * SECOND_NS
    # It begins in the middle of one.
    off = [900 + (quarter * 3 // 2 - time.time_ns() % quarter) / 1e9]
    monkeypatch.setattr(process_clock, "wall", lambda: time.time_ns() + round(off[0] * 1e9))
    process_clock.watch()
    receiver.answer = lambda: (503, b"")
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        for _ in range(4):
            put(pipe, *call(origin("c"), 0.25))
            assert not pipe.flush(10)
            off[0] += 900
            process_clock.watch()
        (spool,) = spools()
        assert [part.kind for part in spool.to_send] == [MARK, MARK, MARK, NEWEST]
        receiver.answer = lambda: (200, b"")
        put(pipe, *call(origin("c"), 0.25))
        wait_for(lambda: pipe.flush(10), "a delivery", 50)
        assert not spools()
        # Delivered, it is done with: the next outage begins a file of its own.
        put(pipe, *call(origin("c"), 0.25))
        assert pipe.flush(50)
        assert not spools()
    (points,) = receiver.streams(COST).values()
    assert [point.value for point in points] == [0, 0.25, 0.5, 0.75, 1.25, 1.5]
    quarters = [point.time // quarter for point in points[1:]]
    assert quarters[1:4] == [quarters[0] + 1, quarters[0] + 2, quarters[0] + 4]
    for metric in (semconv.CONVERSATION_COST.name, COST):
        (points,) = receiver.streams(metric).values()
        assert [point.time for point in points] == sorted({point.time for point in points})
    process_clock.start_over()


def test_children_keep_files_of_their_own(start: Start) -> None:
    """Forked, forked again by a child, and workers of a pool, which end without an exit."""
    port = free_port()
    child = start(
        """
        import multiprocessing, os
        import spending
        spending.instrument()
        spending.spend(10)
        instrumentor = spending.OpenHandsInstrumentor()
        instrumentor.flush(2)
        if os.fork() == 0:
            spending.spend(3)
            if os.fork() == 0:
                spending.spend(2)
            else:
                os.wait()
            raise SystemExit
        os.wait()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pool.map(spending.spend, [5])
            pool.close()
            pool.join()
        """,
        f"http://127.0.0.1:{port}/v1/metrics",
    )
    assert child.wait(100) == 0, child.err
    assert sorted(spool.owed.calls for spool in spools()) == [2, 3, 5, 10], child.err
    assert len({spool.instance for spool in spools()}) == 4
    assert sum("did not reach" in line for line in child.log) == 4
    with viewer_at(port) as viewer:
        the_bill_is(viewer, 0.02, 20)


def left_behind(port: int, cost: float, scheme: str = "http", **environ: str) -> Spool:
    """A spool, as a process leaves it that ends while nobody is there."""
    known = set(spool_folder().glob("*"))
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}://127.0.0.1:{port}"} | environ) as pipe:
        put(pipe, opened("c"), run_started("c"), *call(origin("c"), cost))
        assert not pipe.flush(5)
    (left,) = set(spool_folder().glob("*")) - known
    return decode(left.read_bytes())


def replays(receiver: Receiver) -> list[int]:
    """Which requests were sent after the event."""
    return [number for number, headers in enumerate(receiver.headers) if headers.get(REPLAYED) == "1"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_whoever_sends_there_next_takes_it_along_once(protocol: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with http_receiver() if protocol != "grpc" else grpc_receiver() as receiver:
        elsewhere = left_behind(free_port(), 4.0)
        receiver.answer = lambda: (503, b"") if protocol != "grpc" else 1 / 0  # type: ignore[return-value]
        left_behind(receiver.port, 0.25, **environ)
        left_behind(receiver.port, 0.5, **environ)
        receiver.answer = lambda: (200, b"")
        # However the machine is called; and two of them at the same time.
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{receiver.port}"} | environ
        with pipeline(endpoint) as one, pipeline(endpoint) as other:
            for pipe in (one, other):
                put(pipe, *call(origin("d"), 1.0))
                assert pipe.flush(50)
            wait_for(lambda: len(spools()) == 1, "an empty folder", 60)
    assert spools() == [elsewhere]
    assert increase(receiver) == pytest.approx(2.75)
    sent = replays(receiver)
    assert len(sent) == 2
    assert sent[0] > 0, "before anything of its own"
    first, second = (receiver.requests[number].resource_metrics[0].resource for number in sent)
    assert first != second


ALIVE = """
import pathlib, time
import spending
spending.instrument()
for number in range({conversations}):
    spending.spend(conversation=f"c{{number}}")
spending.mark("spent")
seen = 0
while not pathlib.Path("end").exists():
    asked = len(list(pathlib.Path().glob("more*")))
    spending.spend(asked - seen, conversation="c0")
    seen = asked
    time.sleep(0.01)
"""
"""A process that lives on after it was delivered, and spends again when it is asked to."""


@pytest.mark.parametrize(("conversations", "spends"), [(1, True), (1, False), (CONVERSATIONS_PER_REQUEST + 1, False)])
def test_a_living_process_takes_along_what_others_leave_in_each_outage(
    conversations: int, spends: bool, start: Start, receiver: Receiver
) -> None:
    """With its own first delivery after the outage, or, where it slept through that, with its heartbeat, in however
    many requests that is said."""
    endpoint = f"{receiver.url}/v1/metrics"
    living = start(
        ALIVE.format(conversations=conversations), endpoint, OPENHANDS_OTEL_HEARTBEAT_S="3600" if spends else "0.5"
    )
    living.wait_for("spent")
    receiver.wait_for(lambda each: COST in {point.metric for point in each.points()})
    for outage in (1, 2):
        if not spends:
            living.kill(signal.SIGSTOP)
        receiver.answer = lambda: (503, b"")
        other = start(SPEND.format(end=""), endpoint)
        assert other.wait() == 0, other.err
        if spends:
            (living.directory / f"more{outage}").touch()
            wait_for(lambda: len(spools()) == 2, "a spool of the living one's own", 30)
        receiver.answer = lambda: (200, b"")
        living.kill(signal.SIGCONT)
        wait_for(lambda: not spools(), "an empty folder", 30)
    (living.directory / "end").touch()
    assert living.wait() == 0, living.err
    assert increase(receiver) == pytest.approx(2 * 20 * EACH + EACH * (conversations + 2 * spends))


def test_what_is_sent_twice_counts_once(tmp_path: Path) -> None:
    """By the process itself, from its spool, from copies of that, in any order, to a viewer that was away meanwhile."""
    with http_receiver() as receiver:
        receiver.answer = lambda: (503, b"")
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
            put(pipe, opened("c"), *call(origin("c"), 0.25), *call(origin("c"), 0.25))
            assert not pipe.flush(5)
            (path,) = spool_folder().glob("*.spool")
            first = path.read_bytes()
            put(pipe, *call(origin("c"), 0.5))
            assert not pipe.flush(5)
            second = path.read_bytes()
            receiver.answer = lambda: (200, b"")
            put(pipe, *call(origin("c"), 0.125))
            wait_for(lambda: pipe.flush(10), "a delivery", 50)
    bodies = list(receiver.bodies)
    copies = [[part.body for part in decode(data).to_send] for data in (first, second)]
    orders = ([copies[0], bodies, copies[1]], [copies[1], copies[0], bodies, list(reversed(bodies))])
    for order in orders:
        with running_viewer(database=tmp_path / "history.sqlite3") as viewer:
            for body in (body for each in order for body in each):
                assert viewer.post(body, **{REPLAYED: "1"}).content == b""
            the_bill_is(viewer, 1.125, 4)
            (conversation,) = viewer.state().conversations
            assert (conversation.accumulated_cost, conversation.llm_calls) == (pytest.approx(1.125), 4)


def test_the_spool_of_a_living_process_is_its_own(receiver: Receiver) -> None:
    receiver.answer = lambda: (503, b"")
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("c"), 0.25))
        assert not pipe.flush(5)
        (entry,) = entries(spool_folder(), whole=True)
        assert entry.living
        assert take_spools(ViewerAddress(receiver.url, 0)).calls == 0
    assert [spool.owed.calls for spool in spools()] == [1]


@pytest.mark.parametrize("answer", ["refused", "refused in part"])
def test_what_is_refused_for_good_stays_and_is_not_tried_again(answer: str, receiver: Receiver) -> None:
    receiver.answer = lambda: (503, b"")
    left_behind(receiver.port, 0.25)
    partly = ExportMetricsServiceResponse()
    partly.partial_success.rejected_data_points = 3
    partly.partial_success.error_message = "too old"
    taken: list[int] = []

    def refuse_replays() -> tuple[int, bytes]:
        if receiver.asking.headers.get(REPLAYED) != "1" or taken:
            return 200, b""
        taken.append(1)
        return (400, b"too old") if answer == "refused" else (200, partly.SerializeToString())

    receiver.answer = refuse_replays
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("d"), 1.0))
        assert pipe.flush(50)
        wait_for(lambda: [spool for spool in spools() if spool.refused], "a mark of refusal")
    (spool,) = spools()
    assert "too old" in spool.refused
    assert spool.owed.cost == pytest.approx(0.25)
    requests = replays(receiver)
    receiver.answer = lambda: (200, b"")
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("d"), 1.0))
        assert pipe.flush(50)
    assert spools() == [spool]
    assert replays(receiver) == requests
    # Another takes it: nothing is missing in it.
    with running_viewer() as viewer:
        for part in spool.to_send:
            assert viewer.post(part.body).content == b""
        the_bill_is(viewer, 0.25, 1)


def test_what_a_living_process_is_refused_in_part_stays_when_it_ends(receiver: Receiver) -> None:
    partly = ExportMetricsServiceResponse()
    partly.partial_success.rejected_data_points = 1
    partly.partial_success.error_message = "no such thing here"
    receiver.answer = lambda: (200, partly.SerializeToString())
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("c"), 0.25))
        pipe.flush(5)
    (spool,) = spools()
    assert "no such thing here" in spool.refused
    assert (spool.owed.cost, spool.owed.calls) == (0.25, 1)


def test_deltas_are_spooled_as_totals_and_come_to_the_same(receiver: Receiver) -> None:
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    with running_viewer() as viewer:
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url} | preference) as pipe:
            for cost in (0.25, 0.5):
                put(pipe, *call(origin("c"), cost))
                assert pipe.flush(50)
            receiver.answer = lambda: (503, b"")
            put(pipe, *call(origin("c"), 1.0))
            assert not pipe.flush(5)
        (spool,) = spools()
        assert (spool.owed.cost, spool.owed.calls) == (pytest.approx(1.0), 1)
        for body in (*receiver.bodies, *(part.body for part in spool.to_send)):
            assert viewer.post(body).content == b""
        the_bill_is(viewer, 1.75, 3)


def test_guests_keep_what_is_theirs(receiver: Receiver) -> None:
    receiver.answer = lambda: (503, b"")
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, MeterProvider(shutdown_on_exit=False)) as pipe:
        put(pipe, *call(origin("c"), 0.25))
        assert not pipe.flush(5)
    (spool,) = spools()
    assert (spool.owed.cost, spool.owed.calls) == (0.25, 1)


def test_a_clock_that_fell_meanwhile_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    off = [0.0]
    monkeypatch.setattr(process_clock, "wall", lambda: time.time_ns() + round(off[0] * 1e9))
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("c"), 0.25))
        assert pipe.flush(50)
        receiver.answer = lambda: (503, b"")
        for step in (0, -1800, 900, -1800):
            off[0] += step
            put(pipe, *call(origin("c"), 0.25))
            assert not pipe.flush(5)
    process_clock.start_over()
    (spool,) = spools()
    assert spool.owed.cost == pytest.approx(1.0)
    with running_viewer() as viewer:
        for _ in range(2):
            for body in (*receiver.bodies, *(part.body for part in spool.to_send)):
                assert viewer.post(body).content == b""
        the_bill_is(viewer, 1.25, 5)


def test_a_folder_that_cannot_be_written_is_told(start: Start, tmp_path: Path) -> None:
    """A container's read-only file system, a full disk, a home that is none."""
    (tmp_path / "file").touch()
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    url = f"http://127.0.0.1:{free_port()}/v1/metrics"
    children = {
        "Not a directory": start(SPEND.format(end=""), url, XDG_STATE_HOME=str(tmp_path / "file")),
        "File too large": start(full + SPEND.format(end="").lstrip(), url),
    }
    for reason, child in children.items():
        assert child.wait() == 0, child.err
        (line,) = (line for line in child.log if "did not reach" in line)
        assert "$0.0200 of 20 calls" in line
        assert "is lost" in line
        assert reason in line
    assert not list(spool_folder().glob("*.spool"))


def test_a_folder_that_depends_on_where_a_process_stands_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert spool_folder() == Path.home() / ".local" / "state" / "openhands-otel" / "spool"


def test_what_is_no_spool_is_named_and_left_alone(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer = lambda: (503, b"")
    for number in range(5):
        left_behind(receiver.port, 0.25 * (number + 1))
    whole, cut, newer, foreign, link = sorted(spool_folder().glob("*.spool"), key=lambda path: path.stat().st_mtime)
    cut.write_bytes(cut.read_bytes()[:-10])
    newer.write_bytes(newer.read_bytes().replace(b"spool 1", b"spool 7", 1))
    foreign.write_bytes(os.urandom(5000))
    link.unlink()
    link.symlink_to(whole)
    receiver.answer = lambda: (200, b"")
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, *call(origin("d"), 1.0))
        assert pipe.flush(50)
        wait_for(lambda: not whole.exists(), "a delivery")
    assert increase(receiver) == pytest.approx(1.25)
    for path in (newer, foreign, link):
        assert path.name in caplog.text
    for path in (cut, newer, foreign):
        assert path.exists()


def test_the_folder_is_bounded_and_totals_are_the_last_to_go(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda: (503, b"")
    folder = spool_folder()
    spool = left_behind(receiver.port, 0.25)
    (path,) = folder.glob("*.spool")
    newest = next(part for part in spool.parts if part.kind == NEWEST)
    for number in range(3):
        fat = [*(SpooledRequest(MARK, each, newest.body) for each in range(10)), *spool.parts]
        file = LockedFile(path.with_name(f"{number}{path.name}"))
        file.write(Spool(**{name: getattr(spool, name) for name in Spool.__slots__} | {"parts": fat}))
        file.release()
        os.utime(file.path, (number, number))
    size = sum(each.stat().st_size for each in folder.iterdir())
    # Room for some quarter-hours less: the oldest gives its own up, and no other.
    monkeypatch.setattr(spool_folders, "SPOOL_LIMIT", size - 3000)
    left_behind(receiver.port, 0.5)
    marks = [sum(part.kind == MARK for part in each.parts) for each in spools()]
    assert sorted(marks) == [0, 0, 0, 10, 10]
    assert [round(each.owed.cost, 2) for each in spools()].count(0.25) == 4
    # Room for hardly anything: one file after the other, each with a line.
    monkeypatch.setattr(spool_folders, "SPOOL_LIMIT", 12_000)
    left_behind(receiver.port, 1.0)
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 12_000
    assert caplog.text.count("dropped") == 6 - len(spools())
    assert 1.0 in [each.owed.cost for each in spools()]


def test_no_credential_is_written() -> None:
    port = free_port()
    secrets = ("user-a", "secret-b", "secret-c", "secret-d")
    environ = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{secrets[0]}:{secrets[1]}@127.0.0.1:{port}/v1/metrics?key={secrets[2]}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {secrets[3]}",
    }
    left_behind(port, 0.25, **environ)
    (path,) = spool_folder().glob("*.spool")
    for secret in secrets:
        assert secret.encode() not in path.read_bytes()


SPELLINGS = {
    "http://localhost:4318/v1/metrics": True,
    "http://LOCALHOST.:4318/v1/metrics/": True,
    "http://[::1]:4318/v1/metrics": True,
    "http://127.1:4318/v1/metrics": True,
    "http://u:p@127.0.0.1:4318/v1/metrics?x=y": True,
    "http://[::ffff:127.0.0.1]:4318/v1/metrics": True,
    "http://127.0.0.1:4319/v1/metrics": False,
    "http://127.0.0.1:4318/otlp/v1/metrics": False,
    "http://10.0.0.1:4318/v1/metrics": False,
    "https://127.0.0.1:4318/v1/metrics": False,
}


def test_a_viewer_knows_its_own_address_however_it_is_spelled() -> None:
    viewer = ViewerAddress("http://127.0.0.1:4318", 4317)
    for url, own in SPELLINGS.items():
        assert viewer.is_meant_by(Destination.of("http/protobuf", url, url.startswith("http:"))) is own, url
    for target, own in {
        "localhost:4317": True,
        "[::1]:4317": True,
        "localhost:4318": False,
        "dns:///x:4317": False,
    }.items():
        assert viewer.is_meant_by(Destination.of("grpc", target, True)) is own, target


def test_a_spool_is_read_as_it_was_written() -> None:
    spool = Spool(
        "i",
        "s",
        1,
        Destination("grpc", "http", "h", 4317),
        "why",
        1,
        2,
        parts=[SpooledRequest(MARK, 3, b"abc"), SpooledRequest(NEWEST, 4, b"")],
    )
    assert decode(encode(spool)) == spool
