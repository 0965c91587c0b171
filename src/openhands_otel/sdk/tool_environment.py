"""Keeps traces of instrumentation out of what the agent's tools see; the application keeps the environment it has.

Two ways were tried. Cleaning ``os.environ`` once instrumentation has started makes every child clean, also the
application's own: a worker that it starts with ``subprocess``, a server that executes itself again and every exporter
built later lose instrumentation or their credentials, and to give it back to them one has to know tools from workers
all the same. Wrapping ``sanitized_env`` leaves the application alone, but releases before 1.10 do not have it, an ACP
agent gets ``os.environ`` as it is in all releases, and so do a tmux server and a tool that the application wrote.

So ``os.environ`` stays, and OpenHands sees it cleaned where it makes the environment of a child:

- The modules that read the whole of ``os.environ`` for one (``READERS``) get an ``os`` whose ``environ`` lacks the
  footprint. ``sanitized_env`` stays the same object, whoever imported it by name. It must be done there and not later,
  since the tmux terminal hands the values to tmux as arguments.
- ``subprocess.Popen`` cleans the environment of what is started from inside a tool, a hook or an ACP agent, which the
  calling frames tell: the tmux server, grep and glob of old releases, tools of the application. asyncio's own
  subprocesses pass here too. Cost: 5 us under 60 frames, 0.1 ms where there is something to clean; the process itself
  takes 1 ms to start.

Not reached: processes that a tool of the application starts without ``Popen`` (``os.system``, ``os.posix_spawn``,
uvloop) or from a thread of its own in which no frame of OpenHands stands.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import FrameType, ModuleType
from typing import Any, Final

from openhands_otel.guard import guarded
from openhands_otel.launch import footprint
from openhands_otel.launch.footprint import Footprint
from openhands_otel.sdk.import_hooks import when_imported

READERS: Final = (
    "openhands.sdk.utils.command",
    "openhands.sdk.agent.acp_agent",
    "openhands.tools.terminal.terminal.tmux_terminal",
    "openhands.tools.terminal.terminal.subprocess_terminal",
    "openhands.tools.terminal.terminal.windows_terminal",
)
STARTERS: Final = (
    "openhands.tools",
    "openhands.sdk.tool",
    "openhands.sdk.hooks",
    "openhands.sdk.mcp",
    "openhands.sdk.utils.command",
    "openhands.sdk.agent.acp_agent",
    "openhands.agent_server.bash_service",
)
"""Packages and modules: what is started from inside them is started for the agent."""

_ENV_POSITION: Final = 10
"""Where ``env`` stands among Popen's positional arguments, ``self`` apart."""


class ToolEnvironment:
    """``attach`` puts it in force for what OpenHands starts from then on; ``detach`` puts the same objects back."""

    def __init__(self) -> None:
        self._footprint: Footprint | None = None
        self._forget: list[Callable[[], None]] = []
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        """Owner, name, original, replacement."""

    def attach(self) -> None:
        if self._footprint is not None:
            return
        self._footprint = footprint.leave()
        self._forget = [when_imported(name, guarded(self._give_view)) for name in READERS]
        # Popen is left alone in a process that has no use for OpenHands.
        self._forget.append(when_imported("openhands.sdk.tool", guarded(self._watch_popen)))

    def detach(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()
        for owner, name, original, replacement in reversed(self._replaced):
            if getattr(owner, name, None) is replacement:
                setattr(owner, name, original)
        self._replaced.clear()
        if self._footprint is not None:
            footprint.forget()
        self._footprint = None

    def _give_view(self, module: ModuleType) -> None:
        if vars(module).get("os") is os:
            self._replace(module, "os", _OsView(self))

    def _watch_popen(self, _module: ModuleType) -> None:
        original: Callable[..., None] = vars(subprocess.Popen)["__init__"]

        @functools.wraps(original)
        def start(popen: Any, *args: Any, **kwargs: Any) -> None:
            given = _given(args, kwargs)
            clean = self._clean_if_for_agent(given)
            if clean is None:
                original(popen, *args, **kwargs)
            elif len(args) > _ENV_POSITION:
                original(popen, *args[:_ENV_POSITION], clean, *args[_ENV_POSITION + 1 :], **kwargs)
            else:
                original(popen, *args, **{**kwargs, "env": clean})

        self._replace(subprocess.Popen, "__init__", start)

    def _replace(self, owner: Any, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name), replacement))
        setattr(owner, name, replacement)

    def _clean_if_for_agent(self, given: Any) -> dict[str, str] | None:
        try:
            if self._footprint is None or not _is_for_agent(inspect.currentframe()):
                return None
            environment = os.environ if given is None else given
            clean = self.clean(environment)
            return None if clean == environment else clean
        except Exception:
            # An env that Popen itself will refuse, with its own words.
            return None

    def clean(self, environment: Mapping[str, str]) -> dict[str, str]:
        """A copy of ``environment`` as it would be without us."""
        if self._footprint is None:
            return dict(environment)
        return self._footprint.removed_from(environment, os.environ)


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[_ENV_POSITION] if len(args) > _ENV_POSITION else kwargs.get("env")


def _is_for_agent(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if isinstance(module, str) and module.startswith("openhands.") and _is_starter(module):
            return True
        frame = frame.f_back
    return False


def _is_starter(module: str) -> bool:
    return any(module == starter or module.startswith(f"{starter}.") for starter in STARTERS)


class _CleanEnviron(MutableMapping[str, str]):
    """``os.environ`` at this moment without the footprint; what is written goes through."""

    def __init__(self, clean: dict[str, str]) -> None:
        self._clean = clean

    def __getitem__(self, name: str) -> str:
        return self._clean[name]

    def __setitem__(self, name: str, value: str) -> None:
        os.environ[name] = self._clean[name] = value

    def __delitem__(self, name: str) -> None:
        del self._clean[name]
        del os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clean)

    def __len__(self) -> int:
        return len(self._clean)

    def copy(self) -> dict[str, str]:
        return dict(self._clean)


class _OsView(ModuleType):
    """The module ``os`` with another ``environ``."""

    def __init__(self, tools: ToolEnvironment) -> None:
        super().__init__("os", os.__doc__)
        self._tools = tools

    def __getattr__(self, name: str) -> Any:
        return _CleanEnviron(self._tools.clean(os.environ)) if name == "environ" else getattr(os, name)
