"""A process's own file: each request becomes a line at once, and what is superseded goes.

Lines of full quarter-hours stand in front, joined, one or a few for each; those of the current one follow as they come.
When they take too much room, and when the quarter-hour is over, they are joined as well: the file is written anew and
put in place of the old one, so that whoever kills the process finds one or the other. What cannot be written now is
kept and written with what comes next.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel._internal.clock import SECOND_NS
from openhands_otel._internal.export.delivery_log import DeliveryLog
from openhands_otel._internal.export.otlp_file.json_lines import NotMetrics, decode_line, encode_line
from openhands_otel._internal.export.otlp_file.merging import Merged
from openhands_otel._internal.export.spool.thinning import keep_counters
from openhands_otel._internal.export.transport import DELIVERED, Outcome
from openhands_otel.semconv import SCOPE_FLEET, SCOPE_PROCESS

FILE_SUFFIX: Final = ".jsonl"
FILE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one process's file."""
LOOSE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of lines that are not joined yet."""
_QUARTER_NS: Final = 900 * SECOND_NS


def flags(*names: str) -> int:
    """Those for opening a file that this system has."""
    return sum(getattr(os, name, 0) for name in names)


_OWN: Final = flags("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY")


class FileTransport:
    """Writes requests into ``folder``, under the name of the process's instance. For one thread at a time."""

    def __init__(self, folder: Path, instance: str, limit: int = FILE_LIMIT, loose_limit: int = LOOSE_LIMIT) -> None:
        self._folder = folder
        self._path = folder / f"{instance}{FILE_SUFFIX}"
        self._limit = limit
        self._loose_limit = loose_limit
        self._quarter = 0
        self._current = Merged()
        """What the lines of the current quarter-hour say, joined."""
        self._joined = 0
        """Bytes of the file that are joined already."""
        self._size = 0
        self._rewritten = 0
        """Bytes that it had when it was written anew last."""
        self._behind = True
        """Whether the file lacks something, or is not there yet."""

    def send(self, request: Message, timeout_s: float) -> Outcome:
        """Write a request of metrics. Of it stays what is worth importing."""
        assert isinstance(request, ExportMetricsServiceRequest)
        try:
            kept = _worth_keeping(request)
            if kept is not None:
                self._write(kept)
        except OSError as error:
            self._behind = True
            what = f"{self._folder} cannot be written ({error.strerror})"
            return Outcome(False, f"{what}: OPENHANDS_OTEL_FILE is to name a folder that can")
        return DELIVERED

    def close(self) -> None:
        """Nothing is open between two requests."""

    def _write(self, request: ExportMetricsServiceRequest) -> None:
        quarter = _stamp(request) // _QUARTER_NS
        if quarter != self._quarter and self._current:
            self._end_quarter()
        self._quarter = quarter
        self._current.take(request)
        # Written anew when it has doubled, so that a line costs no more than twice its bytes.
        room = max(self._loose_limit, self._rewritten - self._joined)
        if self._behind or self._size - self._rewritten > room or not self._append(encode_line(request)):
            self._rewrite(self._current.requests())
        if self._size > self._limit:
            self._end_quarter()

    def _end_quarter(self) -> None:
        try:
            self._rewrite(self._current.requests())
        except OSError:
            # Then it is joined with the next: the money stays, its time gets coarser.
            self._behind = True
            return
        self._joined = self._size
        self._current = Merged()
        if self._size > self._limit // 2:
            self._thin()

    def _append(self, line: bytes) -> bool:
        """False where somebody else has been at the file."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | _OWN)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size != self._size:
                return False
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        self._size += len(line)
        return True

    def _rewrite(self, loose: Iterable[ExportMetricsServiceRequest]) -> None:
        """Put a file in place that has what is joined, and ``loose``."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OWN, 0o600), "wb") as file:
                joined = self._copy_joined(file)
                for request in loose:
                    file.write(encode_line(request))
                size = file.tell()
            os.replace(new, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        self._joined, self._size, self._rewritten, self._behind = joined, size, size, False

    def _copy_joined(self, file: IO[bytes]) -> int:
        left = self._joined
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as old:
            while left and (data := old.read(min(left, 1 << 20))):
                file.write(data)
                left -= len(data)
        return file.tell()

    def _thin(self) -> None:
        """Make room: full quarter-hours become one, of counters; if that is not enough, of the fleet's alone."""
        for only_fleet in (False, True):
            if self._size > self._limit // 2:
                thinned = Merged()
                for request in self._lines():
                    keep_counters(request)
                    thinned.take(_of_fleet(request) if only_fleet else request)
                self._joined = 0
                self._rewrite(thinned.requests())
                self._joined = self._size

    def _lines(self) -> Iterator[ExportMetricsServiceRequest]:
        with self._path.open("rb") as file:
            for line in file:
                # Somebody may have written into it.
                with contextlib.suppress(NotMetrics):
                    yield decode_line(line)


class FileBeside:
    """Writes what is sent elsewhere into a file as well, and says when that fails."""

    def __init__(self, file: FileTransport) -> None:
        self._file = file
        self._log = DeliveryLog("metrics for OPENHANDS_OTEL_FILE", "they are kept, trying again quietly")

    def __call__(self, request: ExportMetricsServiceRequest) -> None:
        """Write it."""
        self._log.note(self._file.send(request, 0.0))


def _worth_keeping(request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest | None:
    """Less what a process promises of itself, and deltas: they would count twice where they are imported twice."""
    kept = ExportMetricsServiceRequest()
    for resource in request.resource_metrics:
        scopes = [each for each in map(_cumulative, resource.scope_metrics) if each.metrics]
        if scopes:
            kept.resource_metrics.add(resource=resource.resource).scope_metrics.extend(scopes)
    return kept if kept.resource_metrics else None


def _cumulative(scope: pb.ScopeMetrics) -> pb.ScopeMetrics:
    metrics = () if scope.scope.name == SCOPE_PROCESS else scope.metrics
    return pb.ScopeMetrics(scope=scope.scope, metrics=[metric for metric in metrics if not is_delta(metric)])


def is_delta(metric: pb.Metric) -> bool:
    """Whether a metric says what came since, not what there is."""
    data = getattr(metric, metric.WhichOneof("data") or "gauge")
    return getattr(data, "aggregation_temporality", 0) == pb.AGGREGATION_TEMPORALITY_DELTA


def _of_fleet(request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest:
    for resource in request.resource_metrics:
        kept = [scope for scope in resource.scope_metrics if scope.scope.name == SCOPE_FLEET]
        del resource.scope_metrics[:]
        resource.scope_metrics.extend(kept)
    return request


def _stamp(request: ExportMetricsServiceRequest) -> int:
    """Of its last point: all but zeros have one."""
    stamps = (
        point.time_unix_nano
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data") or "gauge").data_points
    )
    return max(stamps, default=0)
