"""What a forked or spawned child spends is counted from 0 under its own instance id; the parent's totals stay."""

from __future__ import annotations

import pytest

from openhands_otel import semconv
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_receiver import Receiver, grpc_receiver, http_receiver

from .conftest import COLLECTORS, Start

COST = semconv.COST.name


def costs(receiver: Receiver) -> list[float]:
    """Last cost of each process, in thousandths, smallest first."""
    last = {points[0].resource[semconv.SERVICE_INSTANCE_ID]: points[-1] for points in receiver.streams(COST).values()}
    return sorted(round(point.value * 1000, 6) for point in last.values())


@pytest.mark.parametrize("pinned", [False, True])
def test_a_forked_child_counts_from_0_under_its_own_instance_id(pinned: bool, start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, sys
        import spending
        spending.instrument()
        spending.spend(100)
        if os.fork() == 0:
            spending.spend(7)
            sys.exit(0)
        os.wait()
        spending.spend(1)
        """,
        f"{receiver.url}/v1/metrics",
        **({"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7"} if pinned else {}),
    )
    assert child.wait() == 0, child.err
    assert costs(receiver) == [7, 101]
    histograms = receiver.streams(semconv.RESPONSE_LATENCY.name).values()
    assert sorted(points[-1].count for points in histograms) == [7, 101]
    pins = {point.resource.get(semconv.PINNED_INSTANCE_ID) for point in receiver.points(COST)}
    assert pins == {"pod-7" if pinned else None}


def test_a_child_that_spends_while_it_already_ends_loses_nothing(start: Start, receiver: Receiver) -> None:
    """By then the interpreter refuses what needs a thread pool, and the child's pipeline is still to be built."""
    child = start(
        """
        import atexit, os, sys
        import spending
        spending.instrument()
        spending.spend(100)
        if os.fork() == 0:
            atexit.register(spending.spend, 7)
            sys.exit(0)
        os.wait()
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert costs(receiver) == [7, 100]


def test_a_child_of_a_child_counts_from_0_too(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, sys
        import spending
        spending.instrument()
        spending.spend(1)
        if os.fork() == 0:
            spending.spend(2)
            if os.fork() == 0:
                spending.spend(4)
                sys.exit(0)
            os.wait()
            sys.exit(0)
        os.wait()
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert costs(receiver) == [1, 2, 4]


@pytest.mark.parametrize("methods", [("fork",), ("spawn", "forkserver")], ids="-".join)
def test_a_multiprocessing_child_flushes_at_its_end(methods: tuple[str, ...], start: Start, receiver: Receiver) -> None:
    child = start(
        f"""
        import multiprocessing
        import spending, workers
        spending.instrument()
        spending.spend(100)
        children = [
            multiprocessing.get_context(method).Process(target=workers.burst, args=(7,)) for method in {methods!r}
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(150)
            assert child.exitcode == 0, child.exitcode
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(200) == 0, child.err
    assert costs(receiver) == [*(7 for _ in methods), 100]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_forked_child_that_is_asked_to_end_loses_nothing(number: str, start: Start, receiver: Receiver) -> None:
    child = start(
        f"""
        import os, signal, time
        import spending
        spending.instrument()
        pid = os.fork()
        if pid == 0:
            spending.spend(20)
            os.kill(os.getpid(), signal.{number})
            time.sleep(10)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.{number}
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert costs(receiver) == [20]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_twenty_forks_during_busy_exports_hang_nobody(protocol: str, start: Start) -> None:
    with http_receiver() if protocol == "http/protobuf" else grpc_receiver() as receiver:
        child = start(
            """
            import os, sys, threading, time
            import spending
            instrumentor = spending.instrument()
            stop = threading.Event()
            def busy():
                while not stop.is_set():
                    spending.spend(1, conversation="c")
                    time.sleep(0.0005)
            thread = threading.Thread(target=busy)
            thread.start()
            time.sleep(0.2)
            for _ in range(20):
                if os.fork() == 0:
                    spending.spend(3)
                    assert instrumentor.flush(50)
                    os._exit(0)
                assert os.wait()[1] == 0
            stop.set()
            thread.join()
            with open("spent", "w") as file:
                file.write(str(len(spending.metrics.costs)))
            spending.mark("end")
            """,
            receiver.url + ("/v1/metrics" if protocol == "http/protobuf" else ""),
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=protocol,
        )
        assert child.wait(100) == 0, child.err
        spent = int((child.directory / "spent").read_text())
        *of_children, of_parent = costs(receiver)
    assert of_children == [3] * 20
    assert of_parent == spent
    assert child.exit_time() < 5


def test_workers_are_ended_by_sigterm_as_they_are_without_us(start: Start, receiver: Receiver) -> None:
    """One that waits for a semaphore, with which another died, would never come to a handler written in Python."""
    child = start(
        """
        import multiprocessing, signal
        import spending, workers
        spending.instrument()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        for method, size in (("fork", 2), ("spawn", 1)):
            with multiprocessing.get_context(method).Pool(size) as pool:
                assert pool.map(workers.has_default_sigterm, range(4), chunksize=1) == [True] * 4, method
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(200) == 0, child.err


@pytest.mark.parametrize("collector", ["working", "silent"])
def test_terminating_a_pool_is_not_slowed(collector: str, start: Start, receiver: Receiver) -> None:
    """Its workers die of SIGTERM as they do without us, so they lose what a killed process does: a second at most."""
    source = f"""
        import multiprocessing, os, time
        import spending, workers
        from stopwatch import Stopwatch
        spending.instrument()
        pool = multiprocessing.get_context("fork").Pool(3)
        pool.map(workers.spend, range(6), chunksize=1)
        time.sleep({1.5 if collector == "working" else 0})
        watch = Stopwatch(os.getpid(), *(worker.pid for worker in pool._pool))
        pool.terminate()
        pool.join()
        print("took", watch.s(), flush=True)
        """
    with COLLECTORS["silent"]() as port:
        endpoint = f"{receiver.url}/v1/metrics" if collector == "working" else f"http://127.0.0.1:{port}"
        with_us, without_us = start(source, endpoint), start(source, endpoint, WITHOUT_US="1")
        assert with_us.wait() == without_us.wait() == 0, with_us.err
    assert with_us.marks["took"] - without_us.marks["took"] < 1
    if collector == "working":
        assert sum(costs(receiver)) == 6


def test_a_child_on_its_way_to_exec_starts_nothing(start: Start, receiver: Receiver) -> None:
    child = start(
        """
        import os, subprocess, time
        import spending
        from stopwatch import Stopwatch
        spending.instrument()
        def threads():
            os.write(1, f"threads {len(os.listdir('/proc/self/task'))}\\n".encode())
        subprocess.run(["true"], preexec_fn=threads, check=True)
        times = []
        for _ in range(20):
            watch = Stopwatch()
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            times.append(watch.s())
        print("fork", sorted(times)[10], flush=True)
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    assert child.marks["threads"] == 1
    assert child.marks["fork"] < 0.5


def test_a_fork_waits_for_an_import_that_a_hook_causes_on_another_thread(start: Start, receiver: Receiver) -> None:
    """Kind: what another thread holds at the fork is held in the child for good.

    litellm imports a provider when it is first asked for it, and a hook asks. A child that was forked meanwhile hung
    where it needed the same module.
    """
    child = start(
        """
        import os, pathlib, signal, sys, threading
        import litellm
        import spending
        pathlib.Path("lazy.py").write_text("import builtins, time; builtins.importing.set(); time.sleep(0.3)")
        sys.path.insert(0, ".")
        import builtins
        builtins.importing = threading.Event()
        asked = litellm.get_llm_provider
        def get_llm_provider(*args, **kwargs):
            import lazy
            return asked(*args, **kwargs)
        litellm.get_llm_provider = get_llm_provider
        instrumentor = spending.instrument()
        other = threading.Thread(target=spending.spend)
        other.start()
        assert builtins.importing.wait(100)
        if os.fork() == 0:
            signal.alarm(15)
            import lazy
            spending.spend(3)
            os._exit(0 if instrumentor.flush(50) else 1)
        assert os.wait()[1] == 0
        other.join()
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait(100) == 0, child.err
    assert costs(receiver) == [1, 3]


def test_a_forked_childs_numbers_lead_to_its_own_spans(start: Start, receiver: Receiver, llm_server: LLMServer) -> None:
    child = start(
        f"""
        import os
        from openhands.sdk import LLM, Message, TextContent
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        import spending

        spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(spans))
        instrumentor = spending.instrument(tracer_provider=provider)
        llm = LLM(model="openai/gpt-4o", base_url={llm_server.base_url()!r}, api_key="x", num_retries=0)

        def call():
            llm.completion([Message(role="user", content=[TextContent(text="hi")])])

        call()
        if os.fork() == 0:
            spans.clear()
            call()
            assert instrumentor.flush(50)
            print(f"child {{spans.get_finished_spans()[0].context.span_id}} ", flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
        print(f"parent {{spans.get_finished_spans()[0].context.span_id}} ", flush=True)
        """,
        f"{receiver.url}/v1/metrics",
    )
    assert child.wait() == 0, child.err
    spans = {name: int(number) for name, number in (line.split() for line in child.out.splitlines())}
    found: dict[str, set[int]] = {}
    for point in receiver.points():
        found.setdefault(point.resource[semconv.SERVICE_INSTANCE_ID], set()).update(
            one.span_id for one in point.exemplars
        )
    assert sorted(found.values(), key=str) == sorted(({number} for number in spans.values()), key=str)
