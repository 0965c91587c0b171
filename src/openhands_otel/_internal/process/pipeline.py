"""From events to a collector: intake, ledger, series, sender and flusher, put together.

*Managed* (the default): the fleet's series are read from the ledger, as those of conversations are. *Guest*: the
fleet's instruments stand on a MeterProvider that the application gave; its reader and its exit decide about them, and
only the conversations' series go through our own sender.

A pipeline is made empty and started then. The process's own is started at once and not at the first call: a burst
followed by the process's end would lose all. A forked child's is started by its first event.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable, Iterator

from opentelemetry.metrics import MeterProvider as MeterProviderApi
from opentelemetry.sdk.resources import Resource

from openhands_otel._internal.background_task import WaitForWork
from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.export.otlp_file.writer import FileBeside, FileTransport
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.transport import Transport
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.ledger.intake import URGENT, Intake, Item, OfSpan
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.conversation_series import ConversationSeries
from openhands_otel._internal.metrics.fleet_series import FleetSeries
from openhands_otel._internal.metrics.guest import FleetInstruments, guest_instruments
from openhands_otel._internal.metrics.points import SentSeries, SentValue
from openhands_otel._internal.metrics.readings import FleetReadings
from openhands_otel._internal.metrics.request_builder import RequestBuilder
from openhands_otel._internal.metrics.resource import base_resource, process_resource
from openhands_otel._internal.metrics.samples import Distributions, Sampler
from openhands_otel._internal.metrics.self_observation import SelfObservation
from openhands_otel._internal.metrics.vitals import Vitals
from openhands_otel._internal.once import Once
from openhands_otel._internal.process.flusher import Flusher
from openhands_otel._internal.process.replays import Replays
from openhands_otel._internal.process.schedule import Schedule
from openhands_otel._internal.process.spool_keeper import SpoolKeeper, Whose
from openhands_otel.semconv import SERVICE_INSTANCE_ID, SERVICE_NAME
from openhands_otel.settings import Settings
from openhands_otel.stats import ConversationStats

POLL_S = 0.002
FAREWELL_S = 0.3
"""What the end may take longer where something could not be sent, and is to be written down."""
ALONE_S = 1.0
"""How long one request may hold an agent up where there is no thread to send it: at the interpreter's end."""


class Pipeline:
    """One process's pipeline; a forked child makes another from its ``parent``'s."""

    def __init__(
        self,
        settings: Settings,
        config: OtlpConfig,
        dropped_callbacks: Callable[[], int],
        guest_of: MeterProviderApi | None = None,
        parent: Pipeline | None = None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._intake = Intake(
            Ledger(settings.series_limit, settings.conversation_limit, settings.fleet_labels, config.names)
        )
        self._observation = SelfObservation(self._intake.ledger, dropped_callbacks)
        self._guest: FleetInstruments | None = None
        if guest_of is not None:
            # At once in a forked child as well: the application's reader must not find the parent's totals there.
            self._guest = guest_instruments(guest_of, settings.series_limit, settings.budgets, config.names)
            self._guest.feed(self._intake, self._observation, start_over=parent is not None)
        self._base_resource: Resource | None = None if parent is None else parent._base_resource
        self._resource: Resource | None = None
        self._flusher: Flusher | None = None
        self._transport: Transport | None = None
        self._spool: SpoolKeeper | None = None
        self._first_use: Once | None = None
        """Of a pipeline that starts with its first event."""
        self._starting = False

    def start(self) -> None:
        """Build what sends, and begin to."""
        resource, names = self.resource, self._config.names
        if self._guest is not None:
            sampler, fleet = self._guest.sampler, FleetSeries(lambda: ())
        else:
            limit = self._settings.series_limit
            distributions = Distributions(
                limit,
                self._overflowed,
                self._config.exponential_histograms,
                self._intake.ledger.fleet_labels,
                names.has_newest,
            )
            sampler = Sampler(distributions, distributions.note, names)
            readings = FleetReadings(self._settings.budgets, for_flusher=True)
            readings.feed(self._intake, self._observation)

            def read() -> Iterator[tuple[SentSeries, SentValue]]:
                yield from readings.read()
                yield from distributions.read()

            # What may be read twice, from a file, cannot be deltas.
            temporality = self._config.temporality if self._sends else "cumulative"
            fleet = FleetSeries(read, temporality, distributions.exemplars)
        sender = None
        self._transport, beside = self._opened(resource)
        if self._transport is not None:
            series = ConversationSeries(self._intake.ledger)
            vitals = Vitals(self._settings.heartbeat_s, self._intake.ledger.has_open)
            sender = RequestBuilder(
                self._transport, resource, self._intake, series, fleet, vitals=vitals, beside=beside, names=names
            )
            self._spool = self._spool_of(sender, resource) if self._sends else None
        settings = self._settings
        schedule = Schedule(
            settings.flush_window_ms / 1000, settings.flush_cpu_share, settings.heartbeat_s, time.monotonic()
        )
        flusher = Flusher(
            self._intake,
            sender,
            self._settling(sampler),
            schedule,
            self._observation,
            self._config.timeout_s,
            self._spool,
        )
        flusher.start()
        self._flusher = flusher

    @property
    def put(self) -> Callable[[Item], None]:
        """Takes an event, with its span or without; for any thread. Ask for it once the pipeline is started.

        Every call between the agent's thread and the queue costs the agent a microsecond: mostly there is none.
        """
        alone = self._flusher is not None and self._flusher.alone
        return self._put_and_start if alone or self._first_use is not None else self._intake.put

    @property
    def wants_spans(self) -> bool:
        """Whether exemplars are made."""
        return self._config.exemplars

    @property
    def resource(self) -> Resource:
        """This process's Resource. Of the first pipeline it is made by ``start``, of a child's when it is asked for."""
        if self._resource is None:
            self._base_resource = self._base_resource or base_resource(self._settings.labels, self._settings.send)
            self._resource = process_resource(self._base_resource)
        return self._resource

    def start_when_used(self) -> None:
        """Start with the first event, on a thread of our own."""
        self._first_use = Once()

    def flush(self, timeout_s: float, last: bool = False) -> bool:
        """Send all that was put until now; False if that failed or took longer. For any thread, also in a handler.

        ``last``: the process may end behind it.
        """
        return self.begin_flush(timeout_s, last)()

    def begin_flush(self, timeout_s: float, last: bool = False) -> WaitForWork:
        """Begin to do so."""
        deadline = time.monotonic() + timeout_s
        flusher = self._started(deadline)
        if flusher is None:
            unused = self._never_used
            return lambda: unused
        wake = flusher.ask(deadline - time.monotonic(), last=last)
        return lambda: flusher.answered(wake)

    def stop(self, timeout_s: float) -> bool:
        """Send all and end the flusher; False if that failed or took longer (its thread is a daemon)."""
        deadline = time.monotonic() + timeout_s
        flusher = self._started(deadline)
        if flusher is None:
            return self._never_used
        done = flusher.stop(deadline - time.monotonic())
        self.say_farewell(deadline)
        if flusher.ended and self._transport is not None:
            self._transport.close()
        return done

    def say_farewell(self, deadline: float, for_good: bool = True) -> None:
        """Have on disk what could not be delivered, and say so; unless it is ``for_good``, more may come."""
        if self._spool is not None:
            self._spool.close(max(FAREWELL_S, deadline - time.monotonic()), for_good)

    def abandon(self) -> None:
        """In a forked child: what is on disk is the parent's."""
        if self._spool is not None:
            self._spool.abandon()

    def snapshot(self, conversation_id: str) -> ConversationStats | None:
        """What this process knows of one conversation, everything until now included."""
        with self._intake.lock:
            self._intake.drain()
            return self._intake.ledger.snapshot(conversation_id)

    def _settling(self, sampler: Sampler) -> Callable[[], bool]:
        waiting = self._intake.to_record
        if self._guest is not None:
            # The application's reader holds locks of its own when it asks for ours.
            return lambda: sampler.record_all(waiting) and False

        def settle() -> bool:
            # A spool is written on another thread, and is to find no histogram that is half recorded.
            with self._intake.lock:
                return sampler.record_all(waiting)

        return settle

    @property
    def _sends(self) -> bool:
        """Whether there is anybody to send to. Where metrics go into a file, that is who was named, and nobody else."""
        return self._config.exporter == "otlp" and not (self._settings.file is not None and self._config.own_only)

    def _opened(self, resource: Resource) -> tuple[Transport | None, FileBeside | None]:
        """Where requests go, and the file that has them as well."""
        transport = open_transport(self._config) if self._sends else None
        if self._settings.file is None:
            return transport, None
        file = FileTransport(self._settings.file, str(resource.attributes[SERVICE_INSTANCE_ID]))
        return (file, None) if transport is None else (transport, FileBeside(file))

    def _spool_of(self, sender: RequestBuilder, resource: Resource) -> SpoolKeeper | None:
        try:
            destination = Destination.of(self._config.protocol, self._config.endpoint, self._config.insecure)
        except ValueError:
            # No address, nobody to send it to.
            return None
        instance, service = (str(resource.attributes[name]) for name in (SERVICE_INSTANCE_ID, SERVICE_NAME))
        whose = Whose(instance, service, destination)
        return SpoolKeeper(sender, self._intake, whose, Replays(self._config, destination))

    def _overflowed(self) -> None:
        self._observation.overflowed += 1

    @property
    def _never_used(self) -> bool:
        return self._first_use is not None and not self._first_use.claimed

    def _started(self, deadline: float) -> Flusher | None:
        """The flusher; None if it waits for the first event, failed to start, or does not start in time."""
        while self._flusher is None and self._starting and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return self._flusher

    def _put_and_start(self, item: Item) -> None:
        self._intake.put(item)
        if self._first_use is not None and self._first_use.claim():
            self._start_beside()
        if self._flusher is not None and self._flusher.alone:
            self._send_here(item, self._flusher)

    def _send_here(self, item: Item, flusher: Flusher) -> None:
        """Where no thread can be had."""
        kind = type(item.event if isinstance(item, OfSpan) else item)
        if kind in URGENT and flusher.due:
            flusher.flush(ALONE_S)

    def _start_beside(self) -> None:
        self._starting = True
        try:
            # Not threading.Thread: it takes locks and waits, and this may be a finalizer or a signal handler.
            _thread.start_new_thread(self._start_guarded, ())
        except RuntimeError:
            # Python has begun to end: then here, and whoever puts something sends it.
            self._start_guarded()

    def _start_guarded(self) -> None:
        try:
            self.start()
        except Exception as error:
            note_error("Pipeline.start", error)
        finally:
            self._starting = False
