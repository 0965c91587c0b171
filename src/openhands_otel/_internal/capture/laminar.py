"""Keeps Laminar, the tracing built into the OpenHands SDK, off where only an OTLP endpoint would start it.

OpenHands starts Laminar where the environment names an OTLP endpoint, and Laminar then sends prompts and tool output
there. With this plugin on, such an endpoint is meant for the plugin. A Laminar project key still starts Laminar, and a
Laminar that the application started itself goes on.

Every release of the SDK asks for the endpoint through one name, ``get_env`` in ``openhands.sdk.observability.laminar``
(up to 1.43.1 it reads ``.env`` files as well), also from ``should_enable_observability``, which other modules import by
name. So that name is replaced there, and nothing else: the list of variables is a module attribute only from 1.20 on.

``end_uninvited_laminar`` is for a process in which OpenHands was imported first.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from openhands_otel._internal.export.otlp_config import ENDPOINT, TRACES_ENDPOINT
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.log import logger
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.patching.patching import Patches

LAMINAR_MODULE: Final = "openhands.sdk.observability.laminar"
PROJECT_KEY: Final = "LMNR_PROJECT_API_KEY"
ENDPOINT_VARIABLES: Final = frozenset({"OTEL_ENDPOINT", TRACES_ENDPOINT, ENDPOINT})

_LATE = (
    "OpenHands' Laminar tracing runs already, and an OTLP endpoint may have started it: it keeps the spans and sends "
    "what is said; instrument before OpenHands is imported, or name OTEL_EXPORTER_OTLP_METRICS_ENDPOINT instead"
)
_KEPT_OFF = "An OTLP endpoint alone does not start OpenHands' Laminar tracing; set LMNR_PROJECT_API_KEY to have it"


class Laminar:
    """``attach`` before OpenHands is imported, else Laminar may run already; ``detach`` puts the same object back."""

    def __init__(self) -> None:
        self._forget: Callable[[], None] | None = None
        self._patches = Patches()
        self._logged = False

    def attach(self) -> None:
        if self._forget is None:
            if LAMINAR_MODULE in sys.modules:
                self._complain()
            self._patches = Patches()
            self._forget = when_imported(LAMINAR_MODULE, self._close)

    def detach(self) -> None:
        if self._forget is not None:
            self._forget()
            self._forget = None
        self._patches.undo()

    def is_wanted(self) -> bool:
        """Whether Laminar keeps the spans: a project key asks for it, or the application has started it."""
        if os.environ.get(PROJECT_KEY, "").strip():
            return True
        laminar = getattr(sys.modules.get("lmnr"), "Laminar", None)
        return laminar is not None and bool(laminar.is_initialized())

    @guarded
    def _complain(self) -> None:
        """Only where nobody asked for it by its key: a Laminar of the application's own has been told one in code."""
        key = os.environ.get(PROJECT_KEY, "").strip()
        if not key and self.is_wanted() and any(os.environ.get(name, "").strip() for name in ENDPOINT_VARIABLES):
            logger.warning(_LATE)

    def _close(self, module: ModuleType) -> None:
        self._patches.replace(module, "get_env", lambda original: self._withholding(self._patches, original))

    def _withholding(self, patches: Patches, original: Callable[[str], str | None]) -> Callable[[str], str | None]:
        @functools.wraps(original)
        def get_env(key: str) -> str | None:
            value = original(key)
            if key in ENDPOINT_VARIABLES and value and patches.active:
                self._log_once()
                return None
            return value

        return get_env

    def _log_once(self) -> None:
        if not self._logged:
            self._logged = True
            logger.info(_KEPT_OFF)


@guarded
def end_uninvited_laminar() -> None:
    """End a Laminar that OpenHands has started for want of anything but an OTLP endpoint.

    What it has patched stays patched, and leads nowhere; OpenHands no longer calls it.
    """
    laminar: Any = getattr(sys.modules.get("lmnr"), "Laminar", None)
    module = sys.modules.get(LAMINAR_MODULE)
    if laminar is None or not laminar.is_initialized() or not _is_uninvited(laminar, module):
        return
    laminar.shutdown()
    if module is not None and vars(module).get("_observability_enabled"):
        vars(module)["_observability_enabled"] = False
    logger.info("Laminar tracing, started by an OTLP endpoint alone, is ended; set %s to have it", PROJECT_KEY)


def _is_uninvited(laminar: Any, module: ModuleType | None) -> bool:
    # Some releases read .env files as well.
    read: Callable[[str], str | None] = getattr(module, "get_env", os.environ.get)
    asked = read(PROJECT_KEY) or laminar.get_project_api_key()
    return not asked and any(read(name) for name in ENDPOINT_VARIABLES)
