"""Lets ``RemoteConversation`` show a viewer's numbers as its own: its ``stats``, and so its visualizer, during a run.

Everything that a remote conversation says of itself comes through ``RemoteState._get_conversation_info`` in all
releases: a dictionary that the server's events fill. Ours hands out the same dictionary with other stats in it. What
the SDK has cached stays as it is, so the server's numbers are back when this is undone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from weakref import WeakKeyDictionary

from openhands_otel._internal.guard import guarded
from openhands_otel._internal.log import logger
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.patching.patching import Patches
from openhands_otel._internal.remote.follower import Follower
from openhands_otel._internal.remote.overlay import Usages, overlaid, spent_before

REMOTE_MODULE: Final = "openhands.sdk.conversation.impl.remote_conversation"
_STATS, _USAGES = "stats", "usage_to_metrics"

Info = dict[str, Any]


class Bridge:
    """``attach`` at any time; ``detach`` puts the identical method back."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._follower = Follower(url, token_file)
        self._patches = Patches()
        self._forget: Callable[[], None] | None = None
        self._before: WeakKeyDictionary[Any, Usages] = WeakKeyDictionary()
        """What each remote conversation had spent that the viewer has not seen."""

    def attach(self) -> None:
        self._forget = when_imported(REMOTE_MODULE, self._patch)

    def detach(self) -> None:
        if self._forget is not None:
            self._forget()
            self._forget = None
        self._patches.undo()
        self._follower.stop()

    def _patch(self, module: ModuleType) -> None:
        state = getattr(module, "RemoteState", None)
        if state is None or not self._patches.replace(state, "_get_conversation_info", self._make):
            logger.warning("the stats of remote conversations stay the server's: this release of OpenHands differs")

    def _make(self, original: Callable[..., Info]) -> Callable[..., Info]:
        with_stats = guarded(self._with_stats)

        @functools.wraps(original)
        def _get_conversation_info(state: Any) -> Info:
            info = original(state)
            return (self._patches.active and with_stats(state, info)) or info

        return _get_conversation_info

    def _with_stats(self, state: Any, info: Info) -> Info | None:
        seen = self._follower.newest(str(state.id))
        if seen is None:
            return None
        stats: Info = info.get(_STATS) or {}
        own: Usages = stats.get(_USAGES) or {}
        if seen.restored_cost and own and state not in self._before:
            self._before[state] = spent_before(own, seen)
        return {**info, _STATS: {**stats, _USAGES: overlaid(own, self._before.get(state, {}), seen)}}
