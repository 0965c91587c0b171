"""The scenario with spans: what was exported to a real provider of the application, and its tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openhands_otel import OpenHandsInstrumentor


class Opened(SpanProcessor):
    """Counts spans that have begun and not ended."""

    def __init__(self) -> None:
        self.now = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.now += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.now -= 1


class Traced:
    """See the module's docstring; ``options`` are the provider's."""

    def __init__(self, *processors: SpanProcessor, **options: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.exporter = InMemorySpanExporter()
        self.opened = Opened()
        for processor in (self.opened, *processors, SimpleSpanProcessor(self.exporter)):
            self.provider.add_span_processor(processor)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    def one(self, start: str) -> ReadableSpan:
        (found,) = self.named(start)
        return found

    def tree(self) -> dict[str, Any]:
        """Names under names, in the order of their beginnings; each span must be there once, and so must its parent."""
        by_id = {span.context.span_id: span for span in self.spans}
        assert len(by_id) == len(self.spans)
        assert self.opened.now == 0
        children: dict[int | None, list[ReadableSpan]] = {}
        for span in sorted(self.spans, key=lambda each: each.start_time or 0):
            parent = span.parent.span_id if span.parent else None
            assert parent is None or parent in by_id, f"{span.name} is an orphan"
            assert parent is None or by_id[parent].context.trace_id == span.context.trace_id
            children.setdefault(parent, []).append(span)

        def under(parent: int | None) -> list[Any]:
            return [{span.name: under(span.context.span_id)} for span in children.get(parent, [])]

        return under(None)


def instrument_again(traced: Traced) -> None:
    OpenHandsInstrumentor().uninstrument()
    OpenHandsInstrumentor().instrument(tracer_provider=traced.provider)


def leaf(*names: str) -> list[Any]:
    return [{name: []} for name in names]
