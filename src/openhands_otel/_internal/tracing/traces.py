"""Where spans go, decided once and logged once, and the life of what sends them.

The application's provider (given, or the global one) is only used: its processors, its exit and its forks are its
own. Where there is none and the standard variables name a destination, spans go through a provider of our own, never
set as the global one. Which of these it is, is decided when the first span begins: applications import OpenHands first
and set their provider then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import ProxyTracerProvider, format_trace_id, get_tracer_provider
from opentelemetry.trace import TracerProvider as TracerProviderApi

from openhands_otel._internal.background_task import BackgroundTask, WaitForWork
from openhands_otel._internal.content import CapturedContent, TitleAllowed, TitleCaptured
from openhands_otel._internal.export.config_file import standard
from openhands_otel._internal.export.otlp_config import ENDPOINT, EXPORTERS, TRACES_ENDPOINT, exporter_names
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.labels import labels_of
from openhands_otel._internal.ledger.intake import Item, OfSpan
from openhands_otel._internal.log import logger
from openhands_otel._internal.tracing.content_limits import redacted_title
from openhands_otel._internal.tracing.redaction import Redaction
from openhands_otel.events import Event, RunStarted
from openhands_otel.semconv import GenAINames
from openhands_otel.settings import Settings

if TYPE_CHECKING:
    from openhands_otel._internal.export.span_sender import SpanSender
    from openhands_otel._internal.tracing.genai import GenAI
    from openhands_otel._internal.tracing.spans import Spans


class TracePipeline:
    """``given`` is the application's provider, if it insists; ``laminar_wanted`` says who keeps the spans."""

    def __init__(
        self,
        settings: Settings,
        given: TracerProviderApi | None,
        laminar_wanted: Callable[[], bool],
        names: GenAINames = GenAINames.TODAY,
    ) -> None:
        self._settings = settings
        self._names = names
        self._given = given
        self._laminar_wanted = laminar_wanted
        self._resource: Resource | None = None
        self._spans: Spans | None = None
        self._redaction: Redaction | None = None
        self._own: TracerProvider | None = None
        self._sender: SpanSender | None = None
        """What sends for it."""
        self._inherited: list[object] = []
        """A parent process's: to end them would send what is the parent's."""

    @guarded
    def start(self, resource: Resource) -> None:
        """Be ready for events; ``resource`` is that of the pipeline."""
        if self._given is None and self._settings.traces in ("off", "laminar"):
            logger.info("spans: none of ours (OPENHANDS_OTEL_TRACES=%s)", self._settings.traces)
            return
        self._resource = resource
        if _endpoint_is_named() or self._settings.traces == "own":
            # Imports take a fifth of a second: now, and not when the first span begins.
            import openhands_otel._internal.tracing.own_tracing  # noqa: F401 # pyright: ignore[reportUnusedImport]
        self._redaction = _redaction(self._settings)
        self._begin()

    def content_sink(self, put: Callable[[Item], None]) -> Callable[[CapturedContent], None] | None:
        """What the bus is to call with what is said; None where it is not to be captured.

        Spans take it, and ``put`` the titles of conversations, where spans may have content.
        """
        redaction = self._redaction
        if self._spans is None or redaction is None:
            return None
        from openhands_otel._internal.tracing.genai import captures_on_spans

        with_titles = captures_on_spans()

        @guarded
        def put_content(captured: CapturedContent) -> None:
            if not isinstance(captured, TitleCaptured):
                if self._spans is not None:
                    self._spans.put(captured)
            elif with_titles:
                put(TitleAllowed(captured.at, captured.conversation_id, redacted_title(captured, redaction)))

        return put_content

    def sink(self, put: Callable[[Item], None], wants_spans: bool) -> Callable[[Event], None]:
        """What the bus is to call in the place of ``put``: spans hear of an event too, and ``put`` of its span."""
        if self._spans is None:
            return put

        def put_with_span(event: Event) -> None:
            spans = self._spans
            if spans is None:
                put(event)
                return
            if isinstance(event, RunStarted):
                spans.put(event)
                span = spans.span_of(event)
                put(event if span is None else replace(event, trace_id=format_trace_id(span.trace_id)))
                return
            # Before the span ends, and before a processor of the application's can take its time over that.
            span = spans.span_of(event) if wants_spans else None
            put(event if span is None else OfSpan(event, span))
            spans.put(event)

        return put_with_span

    @guarded
    def around_call(self) -> Callable[[], None] | None:
        """For the time of an LLM call that has a span of ours there is to be no other one."""
        spans = self._spans
        if spans is None or not spans.begun or not is_instrumentation_enabled():
            return None
        from openhands_otel._internal.tracing.genai import suppress_inner_calls

        return guarded(suppress_inner_calls())

    def flush(self, timeout_s: float) -> WaitForWork:
        """Begin to send what has ended. The application's provider sends when it wants to."""
        sender = self._sender
        if sender is None:
            return _yes
        asked = sender.ask(timeout_s)
        return lambda: sender.answered(asked)

    def finish(self, timeout_s: float) -> WaitForWork:
        """End what is open, for nobody else will, and begin to send it."""
        until = time.monotonic() + timeout_s
        ended = _end_open(self._spans, here=self._sender is not None)
        sent = self.flush(timeout_s)
        return lambda: all((ended.wait_until(until), sent()))

    def stop(self, timeout_s: float) -> WaitForWork:
        """The same, and take no more."""
        until = time.monotonic() + timeout_s
        spans, self._spans = self._spans, None
        sender, self._sender, self._own = self._sender, None, None
        ended = _end_open(spans, here=sender is not None)
        if sender is None:
            return lambda: ended.wait_until(until)
        asked = sender.ask(timeout_s, stop=True)
        return lambda: all((ended.wait_until(until), sender.answered(asked)))

    def restart_after_fork(self, resource: Resource) -> None:
        """In a forked child: what is open is the parent's, and so are provider and connections."""
        if self._spans is None:
            return
        self._inherited += [self._spans, self._own, self._sender]
        self._own, self._sender, self._resource = None, None, resource
        self._begin()

    def _begin(self) -> None:
        try:
            from openhands_otel._internal.tracing.spans import Spans
        except ImportError as error:
            if find_spec("opentelemetry.util") is None or find_spec("opentelemetry.util.genai") is None:
                logger.info("no spans: opentelemetry-util-genai is not there; pip install 'openhands-otel[spans]'")
            else:
                logger.warning("no spans: the package of '%s' is missing or has changed", error.name)
            return
        self._spans = Spans(self._make, self._redaction, labels_of(self._settings.labels))

    def _make(self) -> GenAI | None:
        from openhands_otel._internal.tracing.genai import GenAI

        provider = self._provider()
        return None if provider is None else GenAI(provider, self._names)

    def _provider(self) -> TracerProviderApi | None:
        if self._given is not None:
            return _logged(self._given, "to the provider that was given")
        laminar, wanted = self._laminar_wanted(), self._settings.traces
        if laminar and wanted != "own":
            return _logged(None, "none of ours, Laminar has been asked for; OPENHANDS_OTEL_TRACES=own adds them")
        provider, exporters = get_tracer_provider(), _exporters()
        # Laminar makes its provider the global one where there is none.
        if not laminar and not isinstance(provider, ProxyTracerProvider) and not _is_idle(provider, exporters):
            return _logged(provider, "to the application's TracerProvider")
        otlp_wanted = wanted == "otlp" or not exporters.isdisjoint(EXPORTERS)
        # A default that nobody has named gives way to files, for spans as for metrics.
        into_files = self._settings.file is not None and self._settings.own_viewer_only
        if wanted == "own" or (otlp_wanted and _endpoint_is_named() and not into_files):
            from openhands_otel._internal.tracing.own_tracing import own_provider

            assert self._resource is not None
            self._own, self._sender = own_provider(
                self._resource, self._settings.token_file, self._settings.own_viewer_only
            )
            return _logged(self._own, "over OTLP, as the OTEL_* variables say")
        return _logged(None, "none, no TracerProvider is set and no OTLP endpoint is named for traces")


def _end_open(spans: Spans | None, here: bool) -> BackgroundTask:
    # A processor of the application's may take its time over the end of a span: not here then.
    work = spans.end_all if spans is not None and spans.open else None
    return BackgroundTask("Traces", work, here)


def _yes() -> bool:
    return True


def _redaction(settings: Settings) -> Redaction | None:
    """None where nothing is to be captured, or where a pattern that somebody counts on cannot be used."""
    try:
        from openhands_otel._internal.tracing.genai import captures_content
    except ImportError:
        return None
    try:
        return Redaction((settings.redact or "").split()) if captures_content() else None
    except (re.error, OverflowError, RecursionError) as error:
        logger.warning("no content is captured: OPENHANDS_OTEL_REDACT has a pattern that is none (%s)", error)
        return None


def _exporters() -> set[str]:
    """What OTEL_TRACES_EXPORTER names."""
    return set(exporter_names(standard().environ.get("OTEL_TRACES_EXPORTER", "")))


def _is_idle(provider: TracerProviderApi, exporters: set[str]) -> bool:
    """Whether nothing listens to it: a distribution's where no exporter is wanted, or a Laminar's that has ended."""
    processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
    if not processors:
        return exporters == {"none"} and processors == ()
    return all(type(processor).__module__.startswith("lmnr.") for processor in processors)


def _endpoint_is_named() -> bool:
    return any(standard().environ.get(name, "").strip() for name in (TRACES_ENDPOINT, ENDPOINT))


def _logged[P](provider: P, where: str) -> P:
    logger.info("spans: %s", where)
    return provider
