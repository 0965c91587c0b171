"""Keeps traces of instrumentation out of what the agent's tools see; the application keeps the environment it has.

Three ways were tried. Cleaning ``os.environ`` once instrumentation has started makes every child clean, also the
application's own: a worker that it starts with ``subprocess``, a server that executes itself again and every exporter
built later lose instrumentation or their credentials, and to give it back to them one has to know tools from workers
all the same. Wrapping ``sanitized_env`` leaves the application alone, but releases before 1.10 do not have it, an ACP
agent gets ``os.environ`` as it is in all releases, and so do a tmux server and a tool that the application wrote.
Putting nothing into the environment, and giving instrumentation to the application's children one by one, loses those
that are started in a way that was not thought of.

So ``os.environ`` stays, and OpenHands sees it cleaned where it makes the environment of a child:

- The modules that read the whole of ``os.environ`` for one (``READERS``) get an ``os`` whose ``environ`` lacks the
  footprint (``os_view.py``). ``sanitized_env`` stays the same object, whoever imported it by name. It must be done
  there and not later, since the tmux terminal hands the values to tmux as arguments.
- All ways of starting a process (``doors.py``) clean the environment of what is started for the agent, which the
  calling frames tell, and marks on contexts, threads and jobs (``agent_side.py``). Cost: 5 us under 60 frames, 0.1 ms
  where there is something to clean; the process itself takes 1 ms to start.

A process has one of it, however many want it: what ``openhands-otel run`` started needs it also where instrumentation
is switched off.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

from openhands_otel._internal.guard import guarded
from openhands_otel._internal.launch import agent_side, doors, footprint, forkserver
from openhands_otel._internal.launch.footprint import Footprint
from openhands_otel._internal.launch.os_view import OsView
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.patching.patching import Patches

READERS: Final = (
    "openhands.sdk.utils.command",
    "openhands.sdk.agent.acp_agent",
    "openhands.tools.terminal.terminal.tmux_terminal",
    "openhands.tools.terminal.terminal.subprocess_terminal",
    "openhands.tools.terminal.terminal.windows_terminal",
)
TOOLS: Final = "openhands.sdk.tool"
"""Doors are left alone in a process that has no use for OpenHands."""


class ToolEnvironment:
    """``attach`` puts it in force for what OpenHands starts from then on; ``detach`` puts the same objects back."""

    def __init__(self) -> None:
        self._attached = False

    def attach(self) -> None:
        if not self._attached:
            self._attached = True
            _this_process.hold()

    def detach(self) -> None:
        if self._attached:
            self._attached = False
            _this_process.release()


class _ThisProcess:
    def __init__(self) -> None:
        self._holders = 0
        self._changing = threading.RLock()
        self._footprint: Footprint | None = None
        self._patches = Patches()
        self._forget: list[Callable[[], None]] = []
        self._viewing: list[tuple[ModuleType, OsView]] = []

    def hold(self) -> None:
        with self._changing:
            self._holders += 1
            if self._holders == 1:
                self._footprint = footprint.leave()
                self._patches = Patches()
                for name in READERS:
                    self._when(name, self._give_view)
                self._when(TOOLS, self._close_doors)

    def release(self) -> None:
        with self._changing:
            self._holders -= 1
            if self._holders == 0:
                self._take_back()

    def renew_lock(self) -> None:
        """In a forked child: a thread that is gone may have held it."""
        self._changing = threading.RLock()

    def _take_back(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()
        self._patches.undo()
        for module, view in self._viewing:
            if vars(module)["os"] is view:
                vars(module)["os"] = os
        self._viewing.clear()
        footprint.forget()
        self._footprint = None

    def _when(self, name: str, act: Callable[[ModuleType], None]) -> None:
        self._forget.append(when_imported(name, guarded(act)))

    def _give_view(self, module: ModuleType) -> None:
        if vars(module).get("os") is os:
            view = OsView(self._clean)
            vars(module)["os"] = view
            self._viewing.append((module, view))

    def _close_doors(self, _module: ModuleType) -> None:
        doors.close(self._patches.replace, self._clean)
        agent_side.mark_threads(self._patches.replace)
        self._when("openhands.sdk.tool.tool", self._mark_tools)
        self._when("multiprocessing.pool", self._mark_pool)
        self._when("multiprocessing.spawn", self._prepare)
        self._when("uvloop", self._close_uvloop)

    def _mark_tools(self, module: ModuleType) -> None:
        agent_side.mark_tools(self._patches, module)

    def _mark_pool(self, module: ModuleType) -> None:
        agent_side.mark_pool(self._patches.replace, module)

    def _prepare(self, module: ModuleType) -> None:
        self._patches.replace(module, "get_preparation_data", forkserver.preparing)

    def _close_uvloop(self, module: ModuleType) -> None:
        doors.close_uvloop(self._patches.replace, self._clean, module)

    def _clean(self, environment: Mapping[str, str]) -> dict[str, str]:
        """A copy of ``environment`` as it would be without us."""
        if self._footprint is None:
            return dict(environment)
        return self._footprint.removed_from(environment, os.environ)


_this_process = _ThisProcess()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_this_process.renew_lock)
