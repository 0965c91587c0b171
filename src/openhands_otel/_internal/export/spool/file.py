"""What stands in a spool: a line that says what it is, a line of JSON about it, and requests ready to be sent.

Requests are serialized ExportMetricsServiceRequests, each of a kind:

* ``first``: last words of an instance that this process was before (``clock.py``);
* ``mark``: values at a full quarter-hour, of what had changed since the one before;
* ``newest``: the newest value of every series that is not acknowledged;
* ``acknowledged``: what was acknowledged last of these. Never sent: it says how much is missing.

Sent in this order they are what the process itself would have sent. All are cumulative, so that sent twice counts once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel import semconv
from openhands_otel._internal.export.spool.destination import Destination

MAGIC: Final = b"openhands-otel spool "
SPOOL_VERSION: Final = 1
HEADER_LIMIT: Final = 4 * 1024 * 1024

FIRST, MARK, NEWEST, ACKNOWLEDGED = "first", "mark", "newest", "acknowledged"
KINDS: Final = (FIRST, MARK, NEWEST, ACKNOWLEDGED)


class NotASpool(ValueError):
    """The file is none, or is damaged; the message says how."""


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """One request. ``at`` is the stamp of its points, unix nanoseconds."""

    kind: str
    at: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Owed:
    """What was spent and is not acknowledged."""

    cost: float = 0.0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Spool:
    """One file. ``reason`` is why it was not delivered; ``refused`` why it never will be, to where it was meant."""

    instance: str
    service: str
    pid: int
    destination: Destination
    reason: str
    started: int
    written: int
    owed: Owed = Owed()
    refused: str = ""
    parts: Sequence[SpooledRequest] = field(default=())

    @property
    def to_send(self) -> list[SpooledRequest]:
        """In the order in which they are to be sent."""
        return [part for part in self.parts if part.kind != ACKNOWLEDGED]

    def without(self, *kinds: str) -> Spool:
        """This, less what can be done without."""
        return replace(self, parts=[part for part in self.parts if part.kind not in kinds])


def encode(spool: Spool) -> bytes:
    """The bytes of a file."""
    body = b"".join(part.body for part in spool.parts)
    about = {
        "instance": spool.instance,
        "service": spool.service,
        "pid": spool.pid,
        "destination": spool.destination.record(),
        "reason": spool.reason,
        "refused": spool.refused,
        "started": spool.started,
        "written": spool.written,
        "cost": spool.owed.cost,
        "calls": spool.owed.calls,
        "parts": [[part.kind, part.at, len(part.body)] for part in spool.parts],
        "crc32": zlib.crc32(body),
    }
    return b"%s%d\n%s\n%s" % (MAGIC, SPOOL_VERSION, json.dumps(about).encode(), body)


def decode(data: bytes, whole: bool = True) -> Spool:
    """Read a file, or only what it says of itself; raises NotASpool."""
    first, _, rest = data.partition(b"\n")
    if not first.startswith(MAGIC) or not first[len(MAGIC) :].isdigit():
        raise NotASpool("it is no spool")
    if int(first[len(MAGIC) :]) != SPOOL_VERSION:
        raise NotASpool("it was written by another release")
    header, _, body = rest.partition(b"\n")
    try:
        if len(header) > HEADER_LIMIT:
            raise ValueError
        about: dict[str, Any] = json.loads(header)
        if whole and zlib.crc32(body) != about["crc32"]:
            raise ValueError
        return Spool(
            instance=str(about["instance"]),
            service=str(about["service"]),
            pid=int(about["pid"]),
            destination=Destination.from_record(about["destination"]),
            reason=str(about["reason"]),
            refused=str(about["refused"]),
            started=int(about["started"]),
            written=int(about["written"]),
            owed=Owed(float(about["cost"]), int(about["calls"])),
            parts=list(_parts(about["parts"], body)) if whole else (),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NotASpool("it is damaged") from None


def _parts(listed: Any, body: bytes) -> Iterable[SpooledRequest]:
    at = 0
    for kind, stamp, size in cast("list[tuple[str, int, int]]", listed):
        if kind not in KINDS or size < 0 or at + size > len(body):
            raise ValueError
        yield SpooledRequest(kind, int(stamp), body[at : at + size])
        at += size
    if at != len(body):
        raise ValueError


def owed(parts: Iterable[SpooledRequest]) -> Owed:
    """What ``parts`` say was spent beyond what they say is acknowledged."""
    newest: dict[str, dict[Any, float]] = {}
    acknowledged: dict[str, dict[Any, float]] = {}
    for part in parts:
        into = acknowledged if part.kind == ACKNOWLEDGED else newest
        try:
            request = ExportMetricsServiceRequest.FromString(part.body)
        except DecodeError:
            raise NotASpool("it is damaged") from None
        for name, key, value in _counted(request):
            values = into.setdefault(name, {})
            values[key] = max(value, values.get(key, value))

    def missing(*names: str) -> float:
        for name in names:
            if name in newest:
                known = acknowledged.get(name, {})
                return sum(max(0.0, value - known.get(key, 0)) for key, value in newest[name].items())
        return 0.0

    return Owed(
        missing(semconv.COST.name, semconv.CONVERSATION_COST.name),
        round(missing(semconv.CALLS.name, semconv.RESPONSE_LATENCY.name, semconv.CONVERSATION_CALLS.name)),
    )


_OWED: Final = frozenset(
    (
        semconv.COST.name,
        semconv.CONVERSATION_COST.name,
        semconv.CALLS.name,
        semconv.RESPONSE_LATENCY.name,
        semconv.CONVERSATION_CALLS.name,
    )
)


def _counted(request: ExportMetricsServiceRequest) -> Iterable[tuple[str, Any, float]]:
    for resource in request.resource_metrics:
        instance = next(
            (each.value.string_value for each in resource.resource.attributes if each.key == "service.instance.id"), ""
        )
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name not in _OWED:
                    continue
                data: Any = getattr(metric, metric.WhichOneof("data") or "sum")
                for point in data.data_points:
                    labels = tuple(sorted((each.key, each.value.SerializeToString()) for each in point.attributes))
                    value = point.count if hasattr(point, "count") else point.as_double or point.as_int
                    yield metric.name, (instance, labels, point.start_time_unix_nano), value
