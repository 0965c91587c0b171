"""The thread that sends spans goes on whatever its exporter does, and whoever asks is told the truth.

The kind: a task that lives long dies unseen (issue 10, row 9).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openhands_otel._internal.export.span_sender import SpanSender


class Moody(SpanExporter):
    """Does what it is told to, once, and is well again."""

    def __init__(self) -> None:
        self.sent = InMemorySpanExporter()
        self.mood: BaseException | SpanExportResult = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        mood, self.mood = self.mood, SpanExportResult.SUCCESS
        if isinstance(mood, BaseException):
            raise mood
        return self.sent.export(spans) if mood is SpanExportResult.SUCCESS else mood

    def shutdown(self) -> None:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "mood", [RuntimeError("no"), SystemExit(1), KeyboardInterrupt(), MemoryError(), SpanExportResult.FAILURE]
)
def test_no_failure_of_the_exporter_ends_the_thread(mood: BaseException | SpanExportResult) -> None:
    exporter = Moody()
    sender = SpanSender(exporter)
    assert sender.start()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(sender)
    tracer = provider.get_tracer("test")
    for name, fails in (("a", False), ("b", True), ("c", False), ("d", True), ("e", False)):
        if fails:
            exporter.mood = mood
        tracer.start_span(name).end()
        assert provider.force_flush() is not fails, "what is lost is told, to whoever asks first"
    assert [span.name for span in exporter.sent.get_finished_spans()] == ["a", "c", "e"]
    sender.shutdown()
    sender._thread.join(10)  # pyright: ignore[reportPrivateUsage]
    assert not sender._thread.is_alive()  # pyright: ignore[reportPrivateUsage]
