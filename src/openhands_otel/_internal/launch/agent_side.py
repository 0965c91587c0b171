"""Whether what is started at this moment is started for the agent: by a tool, a hook, MCP, an ACP agent, a shell.

Three things tell, and one of them is enough:

- The stack has a frame of such code (``STARTERS``).
- The current context was copied where a tool was being called. asyncio's tasks and callbacks, ``asyncio.to_thread`` and
  anyio's threads carry a context.
- The current thread, or the job that it runs for a pool, was started or submitted where one of the two was so.

In doubt it is the agent's: so is a thread that Python's ``threading`` knows nothing of. The application's own starts
inside a tool, say in a class that it has derived from OpenHands' tools, are the agent's too.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import thread as executors
from contextvars import ContextVar
from types import FrameType, ModuleType
from typing import Any, Final

from openhands_otel._internal.patching.patching import Leave, Patches
from openhands_otel._internal.scoped import set_until

STARTERS: Final = (
    "openhands.tools",
    "openhands.sdk.tool",
    "openhands.sdk.hooks",
    "openhands.sdk.mcp",
    "openhands.sdk.utils.command",
    "openhands.sdk.agent.acp_agent",
    "openhands.agent_server.bash_service",
    "mcp.client",
    "fastmcp.client",
    "acp.client",
    "acp.stdio",
    "acp.transports",
)
"""Packages and modules: what is started from inside them is started for the agent."""

_ROOTS: Final = tuple({name.partition(".")[0] + "." for name in STARTERS})
_POOLS: Final = ("concurrent.futures.thread", "multiprocessing.pool", "anyio._backends._asyncio")
"""Their threads outlive whoever made a pool grow; it is their jobs that are somebody's."""
_MARK: Final = "_openhands_otel_agents"

_in_tool: ContextVar[bool] = ContextVar("openhands_otel_in_tool", default=False)


Replace = Callable[[Any, str, Callable[[Any], Any]], bool]
"""Puts ``make(original)`` in the place of ``owner.name``, if there is one."""


def is_for_agent() -> bool:
    """Whether it is the agent for whom the caller starts something."""
    if _in_tool.get():
        return True
    thread = threading.current_thread()
    return _MARK in vars(thread) or isinstance(thread, _UNKNOWN_THREAD) or _has_starter(inspect.currentframe())


_UNKNOWN_THREAD: Final[Any] = vars(threading)["_DummyThread"]


def _has_starter(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if isinstance(module, str) and module.startswith(_ROOTS) and _is_starter(module):
            return True
        frame = frame.f_back
    return False


@functools.lru_cache(maxsize=1024)
def _is_starter(module: str) -> bool:
    return any(module == starter or module.startswith(f"{starter}.") for starter in STARTERS)


def mark_tools(patches: Patches, module: ModuleType) -> None:
    """``module`` is OpenHands' with the classes of tools: the context says so while one of them is called."""
    for kind in ("ToolBase", "ToolDefinition"):
        for method in ("__call__", "acall"):
            if method in vars(getattr(module, kind, object)):
                patches.around(getattr(module, kind), method, _enter)


def _enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
    put_back = set_until(_in_tool, True)
    return lambda result, error: put_back()


def bound(method: Any, self: Any) -> Any:
    """As attribute access binds it: where a function stood, another instrumentation's wrapper may stand."""
    return method.__get__(self, type(self))


def mark_threads(replace: Replace) -> None:
    """What is started or submitted for the agent keeps a mark."""
    # What ``Thread.start`` calls: a subclass may have a ``start`` that another instrumentation has put there.
    if not replace(threading, "_start_joinable_thread", _marking_start):
        replace(threading, "_start_new_thread", _marking_start)
    replace(executors.ThreadPoolExecutor, "submit", _marking_job)


def mark_pool(replace: Replace, module: ModuleType) -> None:
    """The same for ``multiprocessing.pool``, whose ``ThreadPool`` runs jobs in this process."""
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        replace(module.Pool, name, functools.partial(_marking_job, only=module.ThreadPool))


def _marking_start(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def start(bootstrap: Any, /, *args: Any, **kwargs: Any) -> Any:
        thread = getattr(bootstrap, "__self__", None)
        if isinstance(thread, threading.Thread) and is_for_agent() and not _serves_a_pool(thread):
            vars(thread)[_MARK] = True
        return original(bootstrap, *args, **kwargs)

    return start


def _serves_a_pool(thread: threading.Thread) -> bool:
    target = vars(thread).get("_target")
    return type(thread).__module__ in _POOLS or getattr(target, "__module__", None) in _POOLS


def _marking_job(original: Callable[..., Any], only: type = object) -> Callable[..., Any]:
    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, only) and callable(fn) and is_for_agent():
            fn = functools.partial(_run_for_agent, fn)
        return bound(original, self)(fn, *args, **kwargs)

    return submit


def _run_for_agent(job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = _in_tool.set(True)
    try:
        return job(*args, **kwargs)
    finally:
        _in_tool.reset(token)
