"""Reads what processes wrote into files: lines of OTLP, and spools. Nothing is taken for granted about either."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel._internal.export.otlp_file.json_lines import NotMetrics, decode_line
from openhands_otel._internal.export.otlp_file.writer import FILE_SUFFIX, flags, is_delta
from openhands_otel._internal.export.spool import folder as spools
from openhands_otel._internal.export.spool.file import MAGIC, NotASpool, decode

LINE_LIMIT: Final = 64 * 1024 * 1024


class NotTaken(Exception):
    """A file, or a part of it, is not read; the message says why, in an English clause."""


def files_below(path: Path) -> list[Path]:
    """The files that a path means: itself, or all of a folder's that are lines of OTLP or spools, at any depth."""
    if not path.is_dir():
        return [path]
    endings = (FILE_SUFFIX, spools.SPOOL_SUFFIX)
    return sorted(found for found in path.rglob("*") if found.name.endswith(endings) and not found.name.startswith("."))


def requests_in(path: Path) -> Iterator[ExportMetricsServiceRequest | NotTaken]:
    """What a file says, in its order; what of it cannot be taken is said between the rest."""
    try:
        descriptor = os.open(path, os.O_RDONLY | flags("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                yield NotTaken("it is no plain file")
            elif file.peek(len(MAGIC)).startswith(MAGIC):
                yield from _of_spool(file)
            else:
                yield from _of_lines(file)
    except OSError as error:
        yield NotTaken(f"it cannot be read ({error.strerror})")


def _of_spool(file: IO[bytes]) -> Iterator[ExportMetricsServiceRequest | NotTaken]:
    try:
        spool = decode(file.read(spools.SPOOL_LIMIT + 1))
    except NotASpool as error:
        yield NotTaken(str(error))
        return
    for part in spool.to_send:
        yield ExportMetricsServiceRequest.FromString(part.body)


def _of_lines(file: IO[bytes]) -> Iterator[ExportMetricsServiceRequest | NotTaken]:
    number = 0
    while line := file.readline(LINE_LIMIT):
        number += 1
        if not line.strip():
            continue
        try:
            if not line.endswith(b"\n"):
                raise NotMetrics("it is not whole: its end is missing")
            yield from _cumulative(decode_line(line), number)
        except NotMetrics as error:
            yield NotTaken(f"line {number} is left out: {error}")
            if len(line) == LINE_LIMIT:
                return


def _cumulative(request: ExportMetricsServiceRequest, number: int) -> Iterable[ExportMetricsServiceRequest | NotTaken]:
    deltas = 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            kept = [metric for metric in scope.metrics if not is_delta(metric)]
            if len(kept) < len(scope.metrics):
                deltas += len(scope.metrics) - len(kept)
                del scope.metrics[:]
                scope.metrics.extend(kept)
    if deltas:
        yield NotTaken(f"line {number}: {deltas} metrics are deltas, which would count twice when they come twice")
    yield request
