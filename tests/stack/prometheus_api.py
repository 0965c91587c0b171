"""What a person would ask Prometheus, over its HTTP API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

WAIT_S = 60.0
Labels = frozenset[tuple[str, str]]
Samples = list[tuple[float, float]]
"""Unix seconds and value."""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def close(self) -> None:
        self._client.close()

    def value(self, expression: str, at: float | None = None) -> float:
        """The one value of an expression; 0 where there is nothing."""
        found = self.ask("query", query=expression, **({} if at is None else {"time": f"{at:.3f}"}))["result"]
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else 0.0

    def samples(self, selector: str) -> dict[Labels, Samples]:
        """All stored samples of some series."""
        found = self.ask("query", query=f"{selector}[1h]")["result"]
        return {
            frozenset(series["metric"].items()): [(at, float(value)) for at, value in series["values"]]
            for series in found
        }

    def ask(self, what: str, **parameters: Any) -> Any:
        """``data`` of an answer of ``/api/v1/``."""
        answer = self._client.get(f"/api/v1/{what}", params=parameters).raise_for_status().json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def wait_for(self, expression: str, expected: float, tolerance: float = 1e-9) -> float:
        """Ask until the expected value is there; returns the last answer, right or not."""
        return wait(lambda: self.value(expression), lambda value: abs(value - expected) <= tolerance * abs(expected))


def wait[T](ask: Callable[[], T], good: Callable[[T], bool], timeout_s: float = WAIT_S) -> T:
    """Ask until the answer is good, for a minute at most; an API that is away has not answered yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = ask()
            if good(answer) or time.monotonic() > deadline:
                return answer
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
