"""Sends the spools that other processes have left for the destination that this one sends to.

It does so once something of this process was delivered, since then a receiver is there: the first time, after each
outage and after each heartbeat. A thread of its own sends them, one request after the other, so that neither the agent
nor the live data waits for them.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.export.spool.delivery import Delivery, waiting_for
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import NotASpool
from openhands_otel._internal.export.spool.folder import Busy, Unusable, spool_folder
from openhands_otel._internal.export.transport import Outcome, Transport
from openhands_otel._internal.guard import note_error
from openhands_otel.semconv import REPLAYED_HEADER

BETWEEN_S = 0.005
"""Pause between two requests of a spool."""


class Replays:
    """Sends spools that others have left for ``destination``."""

    def __init__(self, config: OtlpConfig, destination: Destination) -> None:
        self._config = replace(config, headers={**config.headers, REPLAYED_HEADER: "1"})
        self._destination = destination
        self._running = False
        self._complained: set[Path] = set()

    def look(self) -> None:
        """Begin to send what there is. For one thread at a time."""
        try:
            folder = spool_folder()
            if self._running or not os.listdir(folder):
                return
            self._running = True
            threading.Thread(target=self._run, args=(folder,), name="openhands-otel-replays", daemon=True).start()
        except (OSError, Unusable):
            return
        except RuntimeError:
            # The interpreter is ending: whoever comes next sends them.
            self._running = False

    def _run(self, folder: Path) -> None:
        try:
            with suppress_instrumentation():
                found = waiting_for(folder, lambda destination: destination == self._destination, self._complained)
                transport = open_transport(self._config) if found else None
                for path in found:
                    if transport is None or not self._send(path, transport):
                        break
                if transport is not None:
                    transport.close()
        except Exception as error:
            note_error("Replays", error)
        finally:
            self._running = False

    def _send(self, path: Path, transport: Transport) -> bool:
        """Whether somebody is there to take more."""
        try:
            delivery = Delivery(path, lambda body: send_body(transport, body, self._config.timeout_s))
        except (Busy, NotASpool, OSError):
            return True
        for _ in delivery.steps():
            time.sleep(BETWEEN_S)
        return not delivery.outcome.left or delivery.outcome.refused


def send_body(transport: Transport, body: bytes, timeout_s: float) -> Outcome:
    """Send one request of a spool."""
    return transport.send(ExportMetricsServiceRequest.FromString(body), timeout_s)
