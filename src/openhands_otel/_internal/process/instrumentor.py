"""Builds the parts, puts them together, takes them apart.

Nothing happens to a process that does not use OpenHands: the hooks wait for its import, and so does the pipeline,
which is then built at once (OpenHands' own import takes seconds, this takes a tenth of one).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from types import ModuleType
from typing import Any, Self

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.laminar import Laminar
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.launch.tool_environment import ToolEnvironment
from openhands_otel._internal.ledger.account import ConversationSnapshot
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.process.subscriptions import bus, listen
from openhands_otel.settings import Settings, SettingsError, load

logger = logging.getLogger("openhands_otel")

_changing = threading.RLock()
"""Held while the process is being instrumented, or the opposite."""


class OpenHandsInstrumentor(BaseInstrumentor):
    """OpenTelemetry instrumentation of the OpenHands SDK.

    ``instrument()`` exports metrics through a pipeline of its own (managed), to where the standard ``OTEL_*`` variables
    say. ``instrument(meter_provider=provider)`` puts the fleet's instruments on a provider of the application (guest);
    the README says which promise holds where. ``instrument(tracer_provider=provider)`` sends spans there, whatever
    ``OPENHANDS_OTEL_TRACES`` says. ``uninstrument()`` sends what is left and leaves OpenHands as it was.
    Neither ever raises: what cannot be done is logged in one line. Called by several threads at once they take turns.
    """

    _undo: ExitStack | None = None
    """Takes apart what stands, also while not all does yet."""
    _runtime: Any = None

    def __new__(cls) -> Self:
        """There is one, whoever asks first."""
        with _changing:
            return super().__new__(cls)  # pyright: ignore[reportUnknownMemberType]

    def instrument(self, **kwargs: Any) -> None:
        """Instrument this process; where it is already, only say so."""
        with _changing:
            super().instrument(**kwargs)

    def uninstrument(self, **kwargs: Any) -> None:
        """The opposite."""
        with _changing:
            super().uninstrument(**kwargs)

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed for this to make sense."""
        return (compat.REQUIREMENT,)

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Send all that happened until now; False if that failed or took longer."""
        return self._runtime is None or self._runtime.flush(timeout_s)

    def snapshot(self, conversation_id: str) -> ConversationSnapshot | None:
        """What this process knows of one conversation; None if it knows nothing or isn't instrumented."""
        return None if self._runtime is None else self._runtime.snapshot(conversation_id)

    @guarded
    def _instrument(self, **kwargs: Any) -> None:
        settings = kwargs.get("settings") or _settings()
        if settings is None or not settings.enabled or _sdk_disabled() or self._undo is not None:
            return
        undo = self._undo = ExitStack()
        laminar, tools = Laminar(), ToolEnvironment()
        self._runtime = runtime = _runtime(
            settings, kwargs.get("meter_provider"), kwargs.get("tracer_provider"), laminar.is_wanted
        )
        if runtime is not None:
            undo.callback(runtime.stop)
        undo.callback(laminar.detach)
        if settings.traces != "laminar":
            laminar.attach()
        undo.callback(tools.detach)
        tools.attach()
        undo.callback(listen())
        if runtime is not None:
            undo.callback(when_imported(compat.METRICS, _starting(runtime)))
        undo.callback(_bridge(settings))

    @guarded
    def _uninstrument(self, **kwargs: Any) -> None:
        undo, self._undo, self._runtime = self._undo, None, None
        if undo is not None:
            undo.close()


def _renew_lock() -> None:
    """In a forked child: a thread that is gone may have held it."""
    global _changing
    _changing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _settings() -> Settings | None:
    try:
        return load(Settings)
    except SettingsError as error:
        logger.warning("openhands-otel is off: %s", error)
        return None


def _sdk_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _runtime(settings: Settings, meter_provider: Any, tracer_provider: Any, laminar_wanted: Callable[[], bool]) -> Any:
    try:
        from openhands_otel._internal.export.otlp_config import read_otlp_config
        from openhands_otel._internal.process.pipeline import Pipeline
        from openhands_otel._internal.process.runtime import Runtime
        from openhands_otel._internal.tracing.traces import Traces
    except ImportError as error:
        logger.warning(
            "nothing is exported: the package of '%s' is missing; pip install 'openhands-otel[otlp]'", error.name
        )
        return None

    config = read_otlp_config(token_file=settings.token_file, own_only=settings.own_viewer_only)
    return Runtime(
        bus,
        lambda parent: Pipeline(settings, config, lambda: bus.dropped, meter_provider, parent),
        settings,
        Traces(settings, tracer_provider, laminar_wanted),
    )


def _bridge(settings: Settings) -> Callable[[], None]:
    if settings.remote_stats is None:
        return _nothing
    try:
        from openhands_otel._internal.remote.bridge import Bridge
    except ImportError as error:
        logger.warning("the stats of remote conversations stay the server's: %s", error)
        return _nothing
    bridge = Bridge(settings.remote_stats, settings.token_file)
    bridge.attach()
    return bridge.detach


def _starting(runtime: Any) -> Callable[[ModuleType], None]:
    def start(module: ModuleType) -> None:
        runtime.start()

    return start


def _nothing() -> None:
    return
