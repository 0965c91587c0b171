"""Waits for modules of OpenHands to be imported, and never imports them itself.

``wrapt`` cannot take a post-import hook back, so one hook per module is registered for the life of the process; it
hands the module to whoever is interested at that moment. A process that never imports OpenHands pays a dictionary
lookup per import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import wrapt  # pyright: ignore[reportMissingTypeStubs]

OnImport = Callable[[ModuleType], None]

_register = cast(Callable[[OnImport, str], Any], wrapt.register_post_import_hook)  # pyright: ignore[reportUnknownMemberType]
_interested: dict[str, list[OnImport]] = {}


def when_imported(name: str, on_import: OnImport) -> Callable[[], None]:
    """Call ``on_import(module)`` now if ``name`` is imported, else when it is; the returned function forgets it."""
    waiting = _interested.get(name)
    if waiting is None:
        waiting = _interested[name] = []
        _register(_announce, name)
    waiting.append(on_import)
    if name in sys.modules:
        # Returns at once, or waits for the thread that is importing it at this moment.
        on_import(importlib.import_module(name))

    def forget() -> None:
        if on_import in waiting:
            waiting.remove(on_import)

    return forget


def _announce(module: ModuleType) -> None:
    for on_import in tuple(_interested.get(module.__name__, ())):
        on_import(module)
