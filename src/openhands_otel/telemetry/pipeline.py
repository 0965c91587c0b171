"""From events to a collector: intake, ledger, instruments, reader, series, sender and flusher, put together.

*Managed* (the default): a MeterProvider of our own, never set as the global one. *Guest*: the fleet's instruments
stand on a provider that the application gave; its reader and its exit decide about them, and only the conversations'
series go through our own sender. Everything is built at once and not at the first call: a burst followed by the
process's end would lose all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.metrics import MeterProvider as MeterProviderApi
from opentelemetry.sdk.metrics import MeterProvider

from openhands_otel import semconv
from openhands_otel.events import Event
from openhands_otel.ledger import ConversationSnapshot, Ledger
from openhands_otel.settings import Settings
from openhands_otel.telemetry.changed_points import ChangedPoints
from openhands_otel.telemetry.conversation_series import ConversationSeries
from openhands_otel.telemetry.flusher import Flusher
from openhands_otel.telemetry.instruments import FleetInstruments
from openhands_otel.telemetry.intake import Intake
from openhands_otel.telemetry.otlp_config import OtlpConfig
from openhands_otel.telemetry.resource import build_resource
from openhands_otel.telemetry.schedule import Schedule
from openhands_otel.telemetry.self_observation import SelfObservation
from openhands_otel.telemetry.sender import ChangeSender
from openhands_otel.telemetry.transport import open_transport
from openhands_otel.version import __version__


class Pipeline:
    """One process's pipeline; a forked child builds another."""

    def __init__(
        self,
        settings: Settings,
        config: OtlpConfig,
        dropped_callbacks: Callable[[], int],
        guest_of: MeterProviderApi | None = None,
    ) -> None:
        ledger = Ledger(settings.series_limit, settings.conversation_limit)
        self._intake = intake = Intake(ledger)
        observation = SelfObservation(ledger, dropped_callbacks)
        resource = build_resource()
        reader = None
        provider = guest_of
        if provider is None:
            reader = ChangedPoints(config.temporality, config.exponential_histograms)
            provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(semconv.SCOPE_FLEET, __version__)
        instruments = FleetInstruments(meter, intake, observation, settings.series_limit)
        series = ConversationSeries(ledger)
        self._transport = open_transport(config) if config.exporter == "otlp" else None
        sender = None
        if self._transport is not None:
            sender = ChangeSender(self._transport, resource, intake, series, reader)
        schedule = Schedule(
            settings.flush_window_ms / 1000, settings.flush_cpu_share, settings.heartbeat_s, time.monotonic()
        )
        self._flusher = Flusher(intake, sender, instruments.record_histograms, schedule, observation, config.timeout_s)

    def start(self) -> None:
        """Start the flusher."""
        self._flusher.start()

    def put(self, event: Event) -> None:
        """Take an event; for any thread."""
        self._intake.put(event)

    def flush(self, timeout_s: float) -> bool:
        """Send all that was put until now; False if that did not end in time. For any thread, also in a handler."""
        return self._flusher.flush(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Send all and end the flusher; False if that did not end in time (its thread is a daemon)."""
        done = self._flusher.flush(timeout_s, stop=True)
        if done and self._transport is not None:
            self._transport.close()
        return done

    def snapshot(self, conversation_id: str) -> ConversationSnapshot | None:
        """What this process knows of one conversation, everything until now included."""
        with self._intake.lock:
            self._intake.drain()
            return self._intake.ledger.snapshot(conversation_id)
