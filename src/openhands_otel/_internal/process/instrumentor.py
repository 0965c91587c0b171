"""Builds the parts, puts them together, takes them apart.

Nothing happens to a process that does not use OpenHands: the hooks wait for its import, and so does the pipeline,
which is then built at once (OpenHands' own import takes seconds, this takes a tenth of one).
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any, Never, Self

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.laminar import Laminar
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.launch.tool_environment import ToolEnvironment
from openhands_otel._internal.log import logger
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.process.subscriptions import bus, listen, tell_in_detail, tell_of_people
from openhands_otel.settings import Settings, SettingsError, load
from openhands_otel.stats import ConversationStats

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from openhands_otel._internal.process.runtime import Runtime


_changing = threading.RLock()
"""Held while the process is being instrumented, or the opposite."""


class OpenHandsInstrumentor(BaseInstrumentor):
    """OpenTelemetry instrumentation of the OpenHands SDK: one for the process, whoever makes it first.

    It sends metrics to where the standard ``OTEL_*`` variables say. ``instrument`` and ``uninstrument`` take turns
    where several threads call them, and never raise what goes wrong inside: it is logged in one line.
    """

    _undo: ExitStack | None = None
    """Takes apart what stands, also while not all does yet."""
    _runtime: Runtime | None = None

    def __new__(cls) -> Self:
        """There is one, whoever asks first."""
        with _changing:
            return super().__new__(cls)  # pyright: ignore[reportUnknownMemberType]

    def instrument(
        self,
        *,
        settings: Settings | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        skip_dep_check: bool = False,
        raise_exception_on_conflict: bool = False,
        **unknown: Never,
    ) -> None:
        """Instrument this process; where it is instrumented already, log a warning.

        Args:
            settings: What the ``OPENHANDS_OTEL_*`` variables say unless given.
            meter_provider: The application's own, which then carries the fleet's metrics; conversations' series take
                their own way (docs/pipelines.md says which promise holds where). Unless given, a pipeline of the
                plugin's own sends both.
            tracer_provider: Gets the spans, whatever ``OPENHANDS_OTEL_TRACES`` says.
            skip_dep_check: Do not look whether a release of ``openhands-sdk`` that fits is installed;
                ``opentelemetry-instrument`` has looked before.
            raise_exception_on_conflict: Raise where none is installed, rather than log it.

        Raises:
            TypeError: A keyword is none of these; the message names the one that is nearest.
            DependencyConflictError: OpenTelemetry's; only where ``raise_exception_on_conflict`` asks for it.
        """
        for name in unknown:
            raise TypeError(_unknown_keyword(name))
        with _changing:
            super().instrument(
                settings=settings,
                meter_provider=meter_provider,
                tracer_provider=tracer_provider,
                skip_dep_check=skip_dep_check,
                raise_exception_on_conflict=raise_exception_on_conflict,
            )

    def uninstrument(self, **kwargs: Any) -> None:
        """Send what is left, within ``OPENHANDS_OTEL_EXIT_TIMEOUT_S``, and leave OpenHands as it was."""
        with _changing:
            super().uninstrument(**kwargs)

    def instrumentation_dependencies(self) -> Collection[str]:
        """Requirements of which one must be installed for this to make sense.

        Returns:
            Specifiers as in pyproject.toml.
        """
        return (compat.REQUIREMENT,)

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Send all that happened until now.

        Args:
            timeout_s: How long this may take, seconds.

        Returns:
            False if that failed or took longer. True where the process is not instrumented: there is nothing to send.
        """
        return self._runtime is None or self._runtime.flush(timeout_s)

    def snapshot(self, conversation_id: str) -> ConversationStats | None:
        """What this process knows of one conversation, everything until now included.

        Args:
            conversation_id: ``str(conversation.id)``.

        Returns:
            Of constant size, however many calls were made; None if this process knows nothing of the conversation or
            is not instrumented.
        """
        return None if self._runtime is None else self._runtime.snapshot(conversation_id)

    @guarded
    def _instrument(
        self,
        *,
        settings: Settings | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        **kwargs: Any,
    ) -> None:
        settings = settings or _settings()
        if settings is None or not settings.enabled or self._undo is not None or _sdk_disabled():
            return
        undo = self._undo = ExitStack()
        laminar, tools = Laminar(), ToolEnvironment()
        self._runtime = runtime = _runtime(settings, meter_provider, tracer_provider, laminar.is_wanted)
        if runtime is not None:
            undo.callback(runtime.stop)
        undo.callback(laminar.detach)
        if settings.traces != "laminar":
            laminar.attach()
        undo.callback(tools.detach)
        tools.attach()
        undo.callback(tell_of_people(settings.send))
        if runtime is not None and runtime.tells_in_detail:
            undo.callback(tell_in_detail())
        undo.callback(listen())
        if runtime is not None:
            undo.callback(when_imported(compat.METRICS_MODULE, _starting(runtime)))
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
    environ: Mapping[str, str] = os.environ
    if environ.get("OTEL_CONFIG_FILE", "").strip():
        from openhands_otel._internal.export.config_file import standard

        environ = standard().environ
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _unknown_keyword(name: str) -> str:
    known = [*inspect.signature(OpenHandsInstrumentor.instrument).parameters][1:-1]
    nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"instrument() does not know '{name}', did you mean '{nearest}'? It takes {', '.join(known)}"


def _runtime(
    settings: Settings,
    meter_provider: MeterProvider | None,
    tracer_provider: TracerProvider | None,
    laminar_wanted: Callable[[], bool],
) -> Runtime | None:
    try:
        from openhands_otel._internal.export.otlp_config import read_otlp_config
        from openhands_otel._internal.process.pipeline import Pipeline
        from openhands_otel._internal.process.runtime import Runtime
        from openhands_otel._internal.tracing.traces import TracePipeline
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
        TracePipeline(settings, tracer_provider, laminar_wanted, config.names),
        tells_in_detail=config.names.has_newest,
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


def _starting(runtime: Runtime) -> Callable[[ModuleType], None]:
    def start(module: ModuleType) -> None:
        runtime.start()

    return start


def _nothing() -> None:
    return
