"""Ends a Laminar that OpenHands started before we were there, because an OTLP endpoint was set and for nothing else.

``capture/laminar.py`` keeps it from starting; this is for a process in which OpenHands was imported first. A project
key, in the environment or given by the application, is a wish for Laminar, which then goes on.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from openhands_otel._internal.capture.laminar import ENDPOINTS, MODULE, PROJECT_KEY
from openhands_otel._internal.guard import guarded

logger = logging.getLogger("openhands_otel")


@guarded
def end_uninvited_laminar() -> None:
    """What it has patched stays patched, and leads nowhere; OpenHands no longer calls it."""
    laminar: Any = getattr(sys.modules.get("lmnr"), "Laminar", None)
    module = sys.modules.get(MODULE)
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
    return not asked and any(read(name) for name in ENDPOINTS)
