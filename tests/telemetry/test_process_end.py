"""However a process ends, what it spent arrives, and its end is what it would be without us."""

from __future__ import annotations

import os
import signal
import time

import pytest

from openhands_otel import semconv
from otlp_receiver import Receiver, grpc_receiver

from .conftest import COLLECTORS, Start

COST = semconv.COST.name
BURST = 50

ENDS = {
    "normal": ("", 0),
    "sys.exit": ("sys.exit(7)", 7),
    "exception": ("raise RuntimeError('secret-of-an-exception')", 1),
    "sigint": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", -signal.SIGINT),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", -signal.SIGTERM),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_burst_right_before_the_end_arrives_and_the_exit_status_is_what_it_was(
    end: str, start: Start, receiver: Receiver
) -> None:
    statement, status = ENDS[end]
    child = start(
        f"""
        import os, signal, sys, time
        import spending
        spending.instrument()
        spending.spend({BURST})
        {statement}
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == status
    assert receiver.total(COST) == pytest.approx(BURST * 0.001, abs=1e-9)
    assert receiver.total(semconv.INPUT_TOKENS.name) == BURST * 100
    assert sum(points[-1].count for points in receiver.streams(semconv.RESPONSE_LATENCY.name).values()) == BURST


EXECS = {
    "execv": "os.execv(sys.executable, [sys.executable, '-c', AFTER])",
    "execle": "os.execle(sys.executable, 'python', '-c', AFTER, {**os.environ, 'A': 'b'})",
    "execlp, on the way through PATH": "os.execlp('true', 'true')",
    "a child of its own": "os.fork() or (spending.spend(5), os.execv(sys.executable, [sys.executable, '-c', AFTER]))"
    "; os.wait(); os._exit(0)",
    "a thread": "threading.Thread(target=os.execv, args=(sys.executable, ['python', '-c', AFTER])).start()"
    "; time.sleep(60)",
    "none": "os.execv('/nothing/there', ['x'])",
}
EXEC = """
import os, sys, threading, time
import spending
AFTER = "import sys; sys.exit('spending' in sys.modules)"
spending.instrument()
spending.spend({burst})
try:
    {statement}
except OSError:
    spending.spend(5)
"""


@pytest.mark.parametrize("way", EXECS)
def test_what_was_spent_before_a_process_becomes_another_program_arrives(
    way: str, start: Start, receiver: Receiver
) -> None:
    child = start(EXEC.format(burst=BURST, statement=EXECS[way]), f"{receiver.url}/v1/metrics")
    assert child.wait() == 0, child.err
    more = 5 * (way in {"a child of its own", "none"})
    # A child that was forked is on its own way.
    receiver.wait_for(lambda each: each.total(COST) == pytest.approx((BURST + more) * 0.001, abs=1e-9))


def test_without_a_collector_it_lies_in_the_spool_then_and_the_next_program_is_waited_for_two_seconds_at_most(
    start: Start,
) -> None:
    with COLLECTORS["silent"]() as port:
        child = start(
            EXEC.format(burst=BURST, statement="spending.mark('end'); os.execlp('true', 'true')"),
            f"http://127.0.0.1:{port}/v1/metrics",
            PATH=os.pathsep.join([*(f"/nothing/{number}" for number in range(40)), os.environ["PATH"]]),
        )
        assert child.wait() == 0, child.err
        plain = start(
            EXEC.format(burst=BURST, statement="spending.mark('end'); os.execlp('true', 'true')"),
            f"http://127.0.0.1:{port}/v1/metrics",
            WITHOUT_US="1",
        )
        assert plain.wait() == 0, plain.err
        assert child.exit_time() < plain.exit_time() + 2.0
        (line,) = (line for line in child.log if "did not reach" in line)
        assert f"of {BURST} calls" in line
        assert "kept in" in line


MAY_LOSE_S = {
    "raise RuntimeError": 0,
    "os.kill(os.getpid(), signal.SIGINT)": 0,
    "os.kill(os.getpid(), signal.SIGTERM)": 0,
    "os._exit(9)": 1,
    "os.kill(os.getpid(), signal.SIGKILL)": 1,
}
"""Seconds whose spend may be lost, by the way in which a process ends."""


@pytest.mark.parametrize(("end", "seconds"), MAY_LOSE_S.items())
def test_what_an_end_in_the_middle_of_work_loses(end: str, seconds: float, start: Start, receiver: Receiver) -> None:
    """The interval of the standard's reader plays no part."""
    child = start(
        f"""
        import os, signal, time
        import spending
        spending.instrument()
        with open("spent", "a", buffering=1) as file:
            for number in range(4000):
                file.write(f"{{time.time_ns()}}\\n")
                spending.spend()
                if number == 2500:
                    {end}
                time.sleep(0.001)
        """,
        f"{receiver.url}/v1/metrics",
        OTEL_METRIC_EXPORT_INTERVAL="60000",
    )
    assert child.wait(100) != 0
    spent = [int(line) for line in (child.directory / "spent").read_text().splitlines()]
    must_arrive = sum(at <= spent[-1] - seconds * 1_000_000_000 for at in spent)
    arrived = round(receiver.total(COST) / 0.001)
    assert len(spent) >= 2501
    assert 0 < must_arrive <= arrived <= len(spent)


def test_the_applications_own_sigterm_handler_is_left_alone(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, signal, sys
        import spending
        def end(number, frame):
            spending.mark("theirs")
            sys.exit(3)
        signal.signal(signal.SIGTERM, end)
        spending.instrument()
        assert signal.getsignal(signal.SIGTERM) is end
        spending.spend()
        os.kill(os.getpid(), signal.SIGTERM)
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 3
    assert "theirs" in child.marks
    assert receiver.total(COST) == pytest.approx(0.001)


def test_uninstrument_gives_the_signal_back(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import signal
        import spending
        instrumentor = spending.instrument()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        instrumentor.uninstrument()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        spending.mark("end")
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert not receiver.requests


def test_a_second_sigterm_during_the_flush_loses_nothing(start: Start, receiver: Receiver) -> None:
    slow = time.monotonic() + 100

    def answer() -> tuple[int, bytes]:
        time.sleep(0.3 if time.monotonic() > slow else 0)
        return 200, b""

    receiver.answer = answer
    child = start(
        """
        import spending, time
        spending.instrument()
        spending.spend()
        spending.mark("spent")
        time.sleep(0.2)
        spending.mark("again")
        time.sleep(0.3)
        spending.spend(10)
        spending.mark("burst")
        time.sleep(10)
        """,
        f"{receiver.url}/v1/metrics",
    )
    child.wait_for("again")
    slow = 0
    child.wait_for("burst")
    child.kill(signal.SIGTERM)
    time.sleep(0.05)
    child.kill(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert receiver.total(COST) == pytest.approx(0.011)


@pytest.mark.parametrize("collector", COLLECTORS)
def test_without_a_working_collector_the_end_takes_two_seconds_longer_at_most(collector: str, start: Start) -> None:
    ways = {"http": {}, "grpc": {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, "without us": {"WITHOUT_US": "1"}}
    with COLLECTORS[collector]() as port:
        children = {
            (end, way): start(
                f"""
                import os, signal, sys, time
                import spending
                spending.instrument()
                spending.spend({BURST})
                spending.mark("end")
                {ENDS[end][0]}
                """,
                f"http://127.0.0.1:{port}",
                **environ,
            )
            for end in ("normal", "sigterm")
            for way, environ in ways.items()
        }
        for (end, _), child in children.items():
            assert child.wait() == ENDS[end][1], child.err
    for (end, way), child in children.items():
        assert child.exit_time() - children[end, "without us"].exit_time() < 2.0, (end, way)
        farewell = [line for line in child.log if "did not reach" in line]
        assert len(farewell) == (way != "without us"), child.err
        assert len(child.log) - len(farewell) <= 1, child.err


def test_a_process_that_only_imports_openhands_ends_at_once_without_a_collector(start: Start) -> None:
    with COLLECTORS["silent"]() as port:
        child = start("import spending; spending.instrument(); spending.mark('end')", f"http://127.0.0.1:{port}")
        assert child.wait() == 0
    assert child.exit_time() < 1.2
    assert child.log == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_over_grpc_nothing_is_lost_either(number: signal.Signals, start: Start) -> None:
    with grpc_receiver() as receiver:
        child = start(
            f"""
            import os, time
            import spending
            spending.instrument()
            spending.spend({BURST})
            os.kill(os.getpid(), {int(number)})
            time.sleep(5)
            """,
            receiver.url,
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        )
        assert child.wait() == -number
        assert receiver.total(COST) == pytest.approx(BURST * 0.001, abs=1e-9)
