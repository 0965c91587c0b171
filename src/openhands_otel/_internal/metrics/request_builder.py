"""Makes one OTLP request of what changed, of the fleet and of conversations.

Both stand in one ResourceMetrics. If the request fails everything in it is still to be delivered: the values are
totals, so the next request simply says the newer ones.

All points of a request have one stamp, and stamps only grow. Where the wall clock has fallen so far that they could not
(``clock.py``), the process goes on as another instance, from 0. What was sent under the id before and not acknowledged
may have arrived, so it stays with that id: it is sent once more, and then the ends of its series, before anything else.

What is sent may be written into a file ``beside`` as well: as totals, which may be read twice, where deltas are sent.

While nothing is acknowledged, ``spool`` says what a file is to keep of it, and notes what stands at each full
quarter-hour (``backlog.py``). These marks are delivered first, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.export import ResourceMetrics as ResourceMetricsData
from opentelemetry.sdk.resources import Resource

from openhands_otel._internal.clock import MILLISECOND_NS, Clock, process_clock
from openhands_otel._internal.export.spool.file import ACKNOWLEDGED, FIRST, MARK, NEWEST, SpooledRequest
from openhands_otel._internal.export.transport import DELIVERED, Outcome, Transport
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.metrics import conversation_series, fleet_series
from openhands_otel._internal.metrics.backlog import Backlog, Mark
from openhands_otel._internal.metrics.conversation_series import ConversationSeries
from openhands_otel._internal.metrics.fleet_series import FleetSeries
from openhands_otel._internal.metrics.points import Selection
from openhands_otel._internal.metrics.resource import process_resource
from openhands_otel._internal.metrics.vitals import BEAT_TIMEOUT_S, Vitals
from openhands_otel.semconv import CORE_SCHEMA_URL, GENAI_SCHEMA_URL, GenAINames

Done = Callable[[Outcome], None]
"""What is to be done about something that was sent, whether it was taken or refused for good."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """Something to say under an id that is not this process's any more; ``parts`` are that for a spool."""

    request: ExportMetricsServiceRequest
    totals: ExportMetricsServiceRequest | None
    """The same for a file."""
    parts: list[SpooledRequest]


class RequestBuilder:
    """``fleet`` has nothing to say in guest mode: the application's provider exports the fleet's metrics itself."""

    def __init__(
        self,
        transport: Transport,
        resource: Resource,
        intake: Intake,
        series: ConversationSeries,
        fleet: FleetSeries,
        clock: Clock = process_clock,
        vitals: Vitals | None = None,
        beside: Callable[[ExportMetricsServiceRequest], None] | None = None,
        names: GenAINames = GenAINames.TODAY,
    ) -> None:
        self._says_schema = names.has_newest
        self._vitals = vitals or Vitals(0.0)
        self._transport = transport
        self._beside = beside
        self._filed: fleet_series.StampedValues = {}
        """What the file has of the fleet's series, where they are sent as deltas."""
        self._resource = resource
        self._encoded_resource = _encoded(resource)
        self._intake = intake
        self._series = series
        self._fleet = fleet
        self._clock = clock
        self._epoch = clock.epoch
        self._stamped = 0
        self._first: deque[LastWords] = deque()
        """What is to be delivered before anything newer."""
        self._refused: list[LastWords] = []
        """What was not wanted, and is said nowhere else."""
        self._backlog = Backlog()
        self._unacknowledged = False
        """Whether the last request may or may not have arrived."""
        self._put_off = (False, False, False)
        """What was asked for (everything, the last, distributions) while something else went first."""

    @property
    def has_more(self) -> bool:
        """Whether something is to be said after what was just delivered."""
        return bool(self._first or self._backlog.marks or any(self._put_off) or self._series.has_more)

    @property
    def refused(self) -> list[SpooledRequest]:
        """What a receiver will never take, and what would be lost without a spool."""
        return [part for words in self._refused for part in words.parts]

    @property
    def beat_in_s(self) -> float | None:
        """In how long something is to be said whether or not anything has changed."""
        return self._vitals.beat_in_s

    def prepare(self, everything: bool, last: bool, complete: bool) -> Callable[[float], Outcome]:
        """Choose the points; the returned function sends them. Unless it is ``complete``, distributions wait."""
        self._clock.watch()
        if self._epoch != self._clock.epoch:
            self._start_over()
        asked = everything, last, complete = (
            everything or self._put_off[0],
            last or self._put_off[1],
            complete or self._put_off[2],
        )
        older = self._older()
        if older is not None:
            self._put_off = asked
            return older
        self._put_off = (False, False, False)
        self._vitals.prepare(everything, last)
        now = self._stamp()
        fleet = self._fleet.select(everything, last, complete, now)
        conversations = self._series.select(everything, now)
        totals = self._totals(fleet, now)

        def send(timeout_s: float) -> Outcome:
            self._file(self._request(totals, conversations.scope))
            outcome = self._send(fleet.scope, conversations.scope, timeout_s)
            with self._intake.lock:
                self._unacknowledged = not outcome.delivered
                if outcome.delivered:
                    fleet.commit()
                    conversations.commit()
                    self._backlog.clear()
                else:
                    conversations.put_back()
            return outcome

        return send

    def spool(self, everything: bool = False) -> list[SpooledRequest]:
        """What is not acknowledged, ``everything`` even what is, for a file. Under the ledger's lock."""
        now = self._stamp()
        fleet = self._fleet.held(now, everything)
        newest = Mark(now, fleet, self._series.held(everything))
        self._backlog.note(newest)
        parts = [part for words in (*self._refused, *self._first) for part in words.parts]
        return parts + self._parts(self._backlog.marks, newest)

    def _parts(self, marks: Iterable[Mark], newest: Mark) -> list[SpooledRequest]:
        fleet: fleet_series.StampedValues = {}
        conversations: conversation_series.ConversationValues = {}
        parts: list[SpooledRequest] = []
        for mark in marks:
            # All of it each time, for what it tells the next one; most bodies are there already.
            bodies = self._bodies(mark, fleet, conversations)
            mark.body = mark.body or next(iter(bodies), b"")
            parts.append(SpooledRequest(MARK, mark.at, mark.body))
        parts += [SpooledRequest(NEWEST, newest.at, body) for body in self._bodies(newest, fleet, conversations)]
        known = self._fleet.acknowledged(newest.fleet, newest.at)
        known_of = self._series.acknowledged(newest.conversations, newest.at)
        return parts + [SpooledRequest(ACKNOWLEDGED, newest.at, body) for body in self._requests(known, known_of)]

    def _bodies(
        self, mark: Mark, fleet: fleet_series.StampedValues, conversations: conversation_series.ConversationValues
    ) -> list[bytes]:
        scope = self._fleet.spooled(mark.fleet, mark.at, fleet)
        return self._requests(scope, self._series.spooled(mark.conversations, mark.at, conversations))

    def _requests(self, fleet: ScopeMetrics | None, scopes: Iterable[ScopeMetrics]) -> list[bytes]:
        first, *rest = (*scopes,) or (None,)
        requests = [self._request(fleet, first), *(self._request(None, scope) for scope in rest)]
        return [request.SerializeToString() for request in requests if request is not None]

    def _older(self) -> Callable[[float], Outcome] | None:
        """What sends the oldest of what goes first, if there is any."""
        if self._first:
            words = self._first[0]
            return partial(self._send_older, words.request, words.totals, self._note_delivery(words))
        while self._backlog.marks:
            mark = self._backlog.marks[0]
            request, totals, commit = self._request_of(mark)
            if request is not None:
                return partial(self._send_older, request, totals, commit)
            self._backlog.done(mark)
        return None

    def _stamp(self) -> int:
        self._stamped = max(self._clock.now_ns(), self._stamped + MILLISECOND_NS)
        return self._stamped

    def _start_over(self) -> None:
        """Become another instance. Under the ledger's lock."""
        self._epoch = self._clock.epoch
        if not self._stamped:
            return
        if self._unacknowledged or self._backlog.marks:
            self._say_what_is_left()
        ends = self._request(None, self._series.start_over(self._stamped + MILLISECOND_NS))
        if ends is not None:
            self._first.append(LastWords(ends, ends, []))
        self._fleet.start_over()
        self._filed = {}
        self._resource = process_resource(self._resource)
        self._encoded_resource = _encoded(self._resource)
        self._stamped = 0
        self._unacknowledged = False

    def _say_what_is_left(self) -> None:
        for mark in tuple(self._backlog.marks):
            parts = self._parts((mark,), Mark(mark.at, {}, {}))
            request, totals, commit = self._request_of(mark)
            self._say_first(request, totals, parts)
            commit(DELIVERED)
        more = True
        while more:
            # The clock is behind already, and what was said last is later.
            self._stamped += MILLISECOND_NS
            now = self._stamped
            fleet = self._fleet.select(False, True, True, now)
            held = self._fleet.held(now, False)
            newest = Mark(now, held, self._series.held(False))
            conversations = self._series.select(False, now)
            totals = self._request(self._totals(fleet, now), conversations.scope)
            request = self._request(fleet.scope, conversations.scope)
            self._say_first(request, totals, self._parts((), newest))
            fleet.commit()
            conversations.commit()
            more = self._series.has_more
        self._backlog.clear()

    def _say_first(
        self,
        request: ExportMetricsServiceRequest | None,
        totals: ExportMetricsServiceRequest | None,
        parts: list[SpooledRequest],
    ) -> None:
        if request is not None:
            words = [
                SpooledRequest(FIRST if part.kind != ACKNOWLEDGED else part.kind, part.at, part.body) for part in parts
            ]
            self._first.append(LastWords(request, totals, words))

    def _request_of(
        self, mark: Mark
    ) -> tuple[ExportMetricsServiceRequest | None, ExportMetricsServiceRequest | None, Done]:
        """What sends it, the same for a file, and what is to be done then."""
        fleet = self._fleet.selection(mark.fleet, mark.at)
        conversations = self._series.select_held(mark.conversations, mark.at)

        def commit(_: Outcome) -> None:
            fleet.commit()
            conversations.commit()
            self._backlog.done(mark)

        totals = self._request(self._totals(fleet, mark.at), conversations.scope)
        return self._request(fleet.scope, conversations.scope), totals, commit

    def _totals(self, fleet: Selection, now: int) -> ScopeMetrics | None:
        """What is selected of the fleet, for a file."""
        if self._beside is None or not self._fleet.sends_deltas:
            return fleet.scope
        return self._fleet.totals(fleet.held, now, self._filed)

    def _file(self, request: ExportMetricsServiceRequest | None) -> None:
        """Before it is sent: an answer may never come."""
        if self._beside is not None and request is not None:
            self._beside(request)

    def _send_older(
        self,
        request: ExportMetricsServiceRequest,
        totals: ExportMetricsServiceRequest | None,
        done: Done,
        timeout_s: float,
    ) -> Outcome:
        self._file(totals)
        outcome = self._transport.send(request, timeout_s)
        if not (outcome.delivered or outcome.refused):
            return outcome
        with self._intake.lock:
            done(outcome)
        return Outcome(True, outcome.reason)

    def _note_delivery(self, words: LastWords) -> Done:
        def done(outcome: Outcome) -> None:
            self._first.remove(words)
            if outcome.reason and words.parts:
                self._refused.append(words)

        return done

    def _send(self, fleet: ScopeMetrics | None, conversations: ScopeMetrics | None, timeout_s: float) -> Outcome:
        try:
            news = self._request(fleet, conversations)
            request = self._vitals.complete(news, self._encoded_resource)
            if request is None:
                return DELIVERED
            outcome = self._transport.send(request, timeout_s if news is not None else min(timeout_s, BEAT_TIMEOUT_S))
            return self._vitals.settle(outcome, alone=news is None)
        except Exception as error:
            return Outcome(False, f"{type(error).__name__} while sending")

    def _request(
        self, fleet: ScopeMetrics | None, conversations: ScopeMetrics | None
    ) -> ExportMetricsServiceRequest | None:
        scopes = [scope for scope in (fleet, conversations) if scope is not None]
        if not scopes:
            return None
        request = ExportMetricsServiceRequest()
        metrics = request.resource_metrics.add(resource=self._encoded_resource)
        metrics.scope_metrics.extend(scopes)
        if self._says_schema:
            metrics.schema_url = self._resource.schema_url or CORE_SCHEMA_URL
            for scope in metrics.scope_metrics:
                scope.schema_url = GENAI_SCHEMA_URL
        return request


def _encoded(resource: Resource) -> ResourceMessage:
    empty = ResourceMetricsData(resource=resource, scope_metrics=[], schema_url="")
    return encode_metrics(MetricsData([empty])).resource_metrics[0].resource
