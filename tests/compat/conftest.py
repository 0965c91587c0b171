from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("compat.scenario", "compat.traced")

from openhands_otel._internal.demo.llm_server import LLMServer  # noqa: E402
from otlp_receiver import http_receiver  # noqa: E402

from .scenario import Scenario  # noqa: E402
from .traced import Traced, instrument_again  # noqa: E402


@pytest.fixture
def scenario(without_us: Scenario) -> Scenario:
    """An instrumented scenario for each test."""
    without_us.instrument()
    return without_us


@pytest.fixture
def without_us(llm_server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """A scenario that nobody has instrumented yet."""
    from openhands.sdk.llm.utils.metrics import Metrics

    with http_receiver() as receiver, ExitStack() as closing:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/v1/metrics")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        scenario = Scenario(llm_server, receiver, tmp_path, closing)
        monkeypatch.setattr(Metrics, "add_cost", _recording(Metrics.add_cost, scenario.recorded))
        closing.enter_context(_logging_as_it_was())
        yield scenario


@pytest.fixture
def traced(scenario: Scenario) -> Iterator[Traced]:
    """The scenario with spans."""
    traced = Traced()
    instrument_again(traced)
    yield traced
    traced.provider.shutdown()


def _recording(original: Callable[..., None], recorded: list[float]) -> Callable[..., None]:
    @functools.wraps(original)
    def add_cost(self: Any, value: float) -> None:
        original(self, value)
        recorded.append(value)

    return add_cost


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """The delegate tool of 1.0.0 silences every logger of the process, and does not undo it."""
    ours, root = logging.getLogger("openhands_otel"), logging.getLogger()
    before = ours.level, ours.propagate, root.level, root.manager.disable
    yield
    ours.level, ours.propagate, root.level, root.manager.disable = before
    root.manager._clear_cache()
