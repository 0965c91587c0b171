"""What Jaeger's own pages ask it, over its HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    tags: dict[str, Any]


class Jaeger:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def close(self) -> None:
        self._client.close()

    def text(self, service: str) -> str:
        """All that it has of a service, as it says it."""
        found = self._client.get("/api/traces", params={"service": service, "limit": 5000, "lookback": "1h"})
        return found.raise_for_status().text

    def spans(self, service: str) -> list[Span]:
        found = self._client.get("/api/traces", params={"service": service, "limit": 5000, "lookback": "1h"})
        return [_span(span) for trace in found.raise_for_status().json()["data"] or [] for span in trace["spans"]]

    def trace(self, trace_id: str) -> list[Span]:
        found = self._client.get(f"/api/traces/{trace_id}")
        if found.status_code == httpx.codes.NOT_FOUND:
            return []
        return [_span(span) for trace in found.raise_for_status().json()["data"] for span in trace["spans"]]

    def calls(self, service: str) -> list[Any]:
        """What the Monitor tab shows as requests of a service."""
        asked = {"service": service, "lookback": 600_000, "step": 5_000, "ratePer": 60_000, "spanKind": "client"}
        found = self._client.get("/api/metrics/calls", params=asked).raise_for_status().json()
        return [point for series in found.get("metrics") or [] for point in series["metricPoints"]]


def _span(span: dict[str, Any]) -> Span:
    parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    return Span(span["traceID"], span["spanID"], parents[0] if parents else None, span["operationName"], tags)
