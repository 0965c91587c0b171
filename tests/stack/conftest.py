"""A real stack for each test, since it starts in less than a second, and agents' processes that send to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.native.stack import Stack
from forked import Child, Prepared

from . import sending
from .jaeger_api import Jaeger
from .prometheus_api import Prometheus


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as closing:
        numbers = itertools.count(1)

        def make(**options: Any) -> Stack:
            return closing.enter_context(Stack(tmp_path / f"stack{next(numbers)}", **options))

        yield make


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """Collector, Prometheus and Jaeger, empty, on free ports of loopback."""
    return make_stack()


@pytest.fixture
def prometheus(stack: Stack) -> Iterator[Prometheus]:
    found = Prometheus(stack.prometheus_url)
    yield found
    found.close()


@pytest.fixture
def jaeger(stack: Stack) -> Iterator[Jaeger]:
    found = Jaeger(stack.jaeger_url)
    yield found
    # A server waits for open connections when it stops.
    found.close()


Start = Callable[..., Child]


@pytest.fixture
def start(prepared: Prepared, stack: Stack, tmp_path: Path) -> Start:
    """Start an agent's process, ``start(source, service, OTEL_...=...)``; OpenHands is imported already."""
    return lambda source, service, **environ: sending.start(prepared, stack, source, tmp_path / service, **environ)
