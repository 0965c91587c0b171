"""What events are values of: histogram, attribute set and amount; and exemplars, of histograms and of counters.

An exemplar is the newest call that a series grew by, with the span of that call. It waits for the next request that has
a point of its series, so there is one for each series at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.exact import SECONDS_LIMIT
from openhands_otel._internal.ledger.account import RunRecord
from openhands_otel._internal.ledger.fleet import OVERFLOW_KEY, FleetKey, FleetLabels, agent_key, fleet_key
from openhands_otel._internal.ledger.fleet_tokens import token_amounts
from openhands_otel._internal.ledger.intake import Measurement
from openhands_otel._internal.metrics.histogram_labels import OVERFLOW_LABELS, HistogramLabels, Histograms, failed
from openhands_otel._internal.metrics.histograms import BucketCounts, ExplicitBuckets, ExponentialBuckets
from openhands_otel._internal.metrics.newest_samples import NewestSampler
from openhands_otel._internal.metrics.points import CACHED, SentExemplar, SentSeries, fleet_labels
from openhands_otel.events import CostAdded, FirstChunk, LatencyRecorded, LLMCallEnded, Origin, TokensUsed, ToolEnded
from openhands_otel.semconv import GenAINames, Metric, TokenType

HISTOGRAMS = (
    semconv.TOKEN_USAGE,
    semconv.RESPONSE_LATENCY,
    semconv.OPERATION_DURATION,
    semconv.TIME_TO_FIRST_CHUNK,
    semconv.TOOL_DURATION,
    semconv.RUN_DURATION,
    semconv.RUN_CALLS,
    semconv.RUN_TOOL_CALLS,
    semconv.RUN_COST,
    semconv.CONTEXT_UTILIZATION,
    *sorted(semconv.NEWEST_ONLY, key=lambda metric: metric.name),
)


def histograms_of(names: GenAINames) -> tuple[Metric, ...]:
    """Those that are sent where ``names`` are."""
    left_out = frozenset[Metric]().union(
        () if names.has_today else semconv.TODAY_ONLY, () if names.has_newest else semconv.NEWEST_ONLY
    )
    return tuple(metric for metric in HISTOGRAMS if metric not in left_out)


class _LabelsOfCalls:
    """Of what belongs to the LLM calls of one attribute set."""

    def __init__(self, key: FleetKey) -> None:
        self.plain = HistogramLabels(key)
        self.input, self.output = (
            HistogramLabels(key, ((semconv.TOKEN_TYPE, kind.value),)) for kind in (TokenType.INPUT, TokenType.OUTPUT)
        )


_labels_of_calls = lru_cache(CACHED)(_LabelsOfCalls)


class Sampler:
    """Records everything that events are values of. Used by one thread at a time.

    ``note`` is told what counters may have an exemplar of.
    """

    def __init__(
        self,
        histograms: Histograms,
        note: Callable[[Measurement, SpanContext], None] | None = None,
        names: GenAINames = GenAINames.TODAY,
    ) -> None:
        self._record = histograms.record
        self._note = note
        self._today = names.has_today
        self._newest = NewestSampler(histograms) if names.has_newest else None
        self._origin: Origin | None = None
        self._labels = _LabelsOfCalls(OVERFLOW_KEY)
        """Of ``_origin``: the events of one call share theirs and mostly come together."""

    def record_all(self, waiting: deque[tuple[Measurement, SpanContext | None]]) -> bool:
        """Record all that waits; whether there was anything."""
        any_waits = bool(waiting)
        while waiting:
            sample, span = waiting.popleft()
            self.record(sample, span)
            if span is not None and self._note is not None:
                self._note(sample, span)
        return any_waits

    def record(self, sample: Measurement, span: SpanContext | None) -> None:
        """Record what ``sample`` is a value of; ``span`` is the one that it came from."""
        if self._newest is not None:
            self._newest.record(sample, span)
        match sample:
            case TokensUsed():
                self._tokens(sample, span)
            case LatencyRecorded():
                # It comes from outside, and a sum that is no number would have the series refused from then on.
                if 0 <= sample.seconds <= SECONDS_LIMIT:
                    self._record(semconv.RESPONSE_LATENCY, self._of(sample.origin).plain, sample.seconds, span)
            case LLMCallEnded():
                if sample.seconds is not None and self._today:
                    labels = self._of(sample.origin).plain._replace(more=failed(sample.error))
                    self._record(semconv.OPERATION_DURATION, labels, sample.seconds, span)
            case FirstChunk():
                if self._today:
                    self._record(semconv.TIME_TO_FIRST_CHUNK, self._of(sample.origin).plain, sample.seconds, span)
            case ToolEnded():
                self._tool(sample, span)
            case RunRecord():
                self._run(sample, span)
            case CostAdded():
                # Of counters alone; an exemplar may come of it.
                pass

    def _of(self, origin: Origin) -> _LabelsOfCalls:
        if origin is not self._origin:
            self._origin, self._labels = origin, _labels_of_calls(fleet_key(origin))
        return self._labels

    def _tokens(self, used: TokensUsed, span: SpanContext | None) -> None:
        labels = self._of(used.origin)
        if self._today:
            self._record(semconv.TOKEN_USAGE, labels.input, used.input, span)
            self._record(semconv.TOKEN_USAGE, labels.output, used.output, span)
        if used.context_window and used.origin.role in semconv.AGENT_ROLES:
            share = (used.input + used.output) / used.context_window
            self._record(semconv.CONTEXT_UTILIZATION, labels.plain, share, span)

    def _tool(self, ended: ToolEnded, span: SpanContext | None) -> None:
        if ended.seconds is None:
            return
        named = ((semconv.TOOL_NAME, ended.tool), (semconv.TOOL_OUTCOME, ended.outcome.value))
        labels = HistogramLabels(agent_key(ended.agent), (*named, *failed(ended.error)))
        self._record(semconv.TOOL_DURATION, labels, ended.seconds, span)

    def _run(self, run: RunRecord, span: SpanContext | None) -> None:
        ended = run.ended
        if ended.seconds is None:
            return
        labels = HistogramLabels(
            agent_key(ended.agent), ((semconv.RUN_OUTCOME, ended.outcome.value), *failed(ended.error))
        )
        self._record(semconv.RUN_DURATION, labels, ended.seconds, span)
        self._record(semconv.RUN_CALLS, labels, run.calls, span)
        self._record(semconv.RUN_TOOL_CALLS, labels, run.tool_calls, span)
        self._record(semconv.RUN_COST, labels, run.cost, span)


class CappedSeries[S]:
    """What stands for each attribute set of each histogram. Past the cap they share one, as the ledger's do."""

    def __init__(
        self, limit: int, on_overflow: Callable[[], None], make: Callable[[Metric, HistogramLabels], S]
    ) -> None:
        self.of: dict[Metric, dict[HistogramLabels, S]] = {metric: {} for metric in HISTOGRAMS}
        self._limit = limit
        self._on_overflow = on_overflow
        self._make = make

    def find(self, metric: Metric, labels: HistogramLabels) -> S:
        """What stands for ``labels``, or for all that the cap keeps out."""
        known = self.of[metric]
        found = known.get(labels)
        if found is None:
            if len(known) >= self._limit and labels != OVERFLOW_LABELS:
                self._on_overflow()
                return self.find(metric, OVERFLOW_LABELS)
            found = known[labels] = self._make(metric, labels)
        return found


_NO_LABELS = FleetLabels(())


class Distributions:
    """The managed pipeline's histograms, and the exemplars of all its metrics."""

    def __init__(
        self,
        limit: int,
        on_overflow: Callable[[], None],
        exponential: bool = False,
        fleet_labels: FleetLabels = _NO_LABELS,
        detailed: bool = False,
    ) -> None:
        self._detailed = detailed
        self._fleet_labels = fleet_labels
        self._exponential = exponential
        self._known = CappedSeries(limit, on_overflow, self._make)
        self.exemplars: dict[SentSeries, SentExemplar] = {}

    def record(self, metric: Metric, labels: HistogramLabels, amount: float, span: SpanContext | None) -> None:
        """Take one value."""
        self._known.find(metric, labels).add(amount)
        if span is not None:
            self.exemplars[metric, labels.spelled] = amount, now_ns(), span

    def read(self) -> Iterator[tuple[SentSeries, BucketCounts]]:
        """All of them, as they are now; they go on growing."""
        for metric, known in self._known.of.items():
            for labels, distribution in known.items():
                yield (metric, labels.spelled), distribution

    def note(self, sample: Measurement, span: SpanContext) -> None:
        """The counters that ``sample`` makes grow have an exemplar."""
        match sample:
            case CostAdded(origin=origin):
                labels, _ = self._fleet_labels.of(origin.labels)
                grown = [(semconv.COST, fleet_key(origin, sample.source, labels), sample.amount)]
            case TokensUsed(origin=origin):
                labels, _ = self._fleet_labels.of(origin.labels)
                if self._detailed:
                    amounts = token_amounts(sample, labels)
                else:
                    key = fleet_key(origin, labels=labels)
                    counts = zip(semconv.TOKEN_COUNTERS.values(), sample.counts, strict=True)
                    amounts = ((metric, key, count) for metric, count in counts)
                grown = [(metric, key, count) for metric, key, count in amounts if count]
            case _:
                return
        for metric, key, amount in grown:
            self.exemplars[metric, fleet_labels(key)] = amount, sample.at, span

    def _make(self, metric: Metric, labels: HistogramLabels) -> BucketCounts:
        return ExponentialBuckets() if self._exponential else ExplicitBuckets(metric.buckets or ())
