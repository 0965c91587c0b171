"""What events are values of by the newest GenAI conventions: histograms of one inference operation, a call of ours.

A call's tokens are one value, those of all its attempts together, and 0 where none were reported: so they wait until it
ends. What an ACP agent reports is no call that anybody sees, and its tokens are a value at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.ledger.fleet import MoreAttributes, fleet_key
from openhands_otel._internal.ledger.fleet_tokens import detail_of
from openhands_otel._internal.ledger.intake import Measurement
from openhands_otel._internal.metrics.histogram_labels import HistogramLabels, Histograms, failed
from openhands_otel.events import FirstChunk, LLMCallEnded, Origin, TokensUsed


@dataclass(slots=True)
class _Used:
    """What a call that runs has used, and whose answer said so last."""

    origin: Origin
    model: str | None = None
    input: int = 0
    output: int = 0


class NewestSampler:
    """Records by the newest names what ``Sampler`` does by today's. Used by one thread at a time."""

    def __init__(self, histograms: Histograms) -> None:
        self._record = histograms.record
        self._running: dict[int, _Used] = {}

    def record(self, sample: Measurement, span: SpanContext | None) -> None:
        """Record what ``sample`` is a value of; ``span`` is the one that it came from."""
        match sample:
            case TokensUsed():
                self._tokens(sample, span)
            case FirstChunk():
                labels = _labels(sample.origin, sample.response_model)
                self._record(semconv.INFERENCE_TIME_TO_FIRST_CHUNK, labels, sample.seconds, span)
            case LLMCallEnded():
                self._ended(sample, span)
            case _:
                pass

    def _tokens(self, used: TokensUsed, span: SpanContext | None) -> None:
        if used.call is None:
            self._record_tokens(_Used(used.origin, used.response_model, used.input, used.output), (), span)
            return
        running = self._running.setdefault(used.call, _Used(used.origin))
        running.origin, running.model = used.origin, used.response_model
        running.input += used.input
        running.output += used.output

    def _ended(self, ended: LLMCallEnded, span: SpanContext | None) -> None:
        model = None if ended.response is None else ended.response.model
        error = failed(ended.error)
        self._record_tokens(self._running.pop(ended.call, None) or _Used(ended.origin, model), error, span)
        if ended.seconds is not None:
            self._record(semconv.INFERENCE_DURATION, _labels(ended.origin, model, error), ended.seconds, span)
        for seconds in ended.chunk_seconds:
            self._record(semconv.TIME_PER_OUTPUT_CHUNK, _labels(ended.origin, model), seconds, span)

    def _record_tokens(self, used: _Used, error: MoreAttributes, span: SpanContext | None) -> None:
        labels = _labels(used.origin, used.model, error)
        self._record(semconv.OPERATION_INPUT_TOKENS, labels, used.input, span)
        self._record(semconv.OPERATION_OUTPUT_TOKENS, labels, used.output, span)


def _labels(origin: Origin, model: str | None, more: MoreAttributes = ()) -> HistogramLabels:
    return HistogramLabels(fleet_key(origin), (*detail_of(origin, model), *more))
