"""What this release of the SDK has: features are looked for here, and nowhere are versions compared.

Everything is read from modules that are already imported; nothing here imports OpenHands.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from typing import Any, cast
from uuid import UUID

from openhands_otel.semconv import UNKNOWN, Status

REQUIREMENT = "openhands-sdk >= 1.0.0"
SDK = "openhands.sdk"
METRICS_MODULE = "openhands.sdk.llm.utils.metrics"
TELEMETRY = "openhands.sdk.llm.utils.telemetry"
LLM = "openhands.sdk.llm.llm"
FALLBACK = "openhands.sdk.llm.fallback_strategy"
CALL_CONTEXT = "openhands.sdk.llm.call_context"
CONVERSATION_MODULE = "openhands.sdk.conversation.impl.local_conversation"
TITLE_MODULE = "openhands.sdk.conversation.title_utils"
CONDENSER = "openhands.sdk.context.condenser.base"
EVENT_LOG = "openhands.sdk.conversation.event_store"
GOAL = "openhands.sdk.conversation.goal.controller"
AGENT = "openhands.sdk.agent.agent"
ACP_AGENT = "openhands.sdk.agent.acp_agent"
ROUTER = "openhands.sdk.llm.router.base"
EVENT_SERVICE = "openhands.agent_server.event_service"
STREAM_BUILDER = "litellm.litellm_core_utils.streaming_chunk_builder_utils"


NEEDED = (METRICS_MODULE, TELEMETRY, LLM, CONVERSATION_MODULE, CONDENSER, TITLE_MODULE, EVENT_LOG, AGENT)
"""Modules that every release from 1.0.0 on has."""


def missing_modules() -> list[str]:
    """Which of the needed modules this release does not have; for use when ``openhands.sdk`` is imported."""
    return [name for name in NEEDED if name not in sys.modules and not _exists(name)]


def _exists(name: str) -> bool:
    """Looked for where its package lies: ``importlib.util.find_spec`` would import the packages on the way."""
    path: Any = getattr(sys.modules.get(SDK), "__path__", None)
    found = SDK
    for part in name.removeprefix(f"{SDK}.").split("."):
        found = f"{found}.{part}"
        spec = PathFinder.find_spec(found, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def sdk_version() -> str:
    """Release of ``openhands-sdk``, or ``unknown``."""
    try:
        return importlib.metadata.version("openhands-sdk")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def has_call_context() -> bool:
    """Whether LLM calls carry a context that names their conversation (1.30 on)."""
    llm = getattr(sys.modules.get(LLM), "LLM", None)
    code = getattr(_unwrapped(getattr(llm, "completion", None)), "__code__", None)
    return code is not None and "call_context" in code.co_varnames


def is_router(llm: Any) -> bool:
    """Whether an LLM hands its calls to others."""
    router = getattr(sys.modules.get(ROUTER), "RouterLLM", None)
    return isinstance(router, type) and isinstance(llm, router)


def current_call_context() -> Any:
    """The SDK's own scoped call context (1.44 on), else None."""
    variable = getattr(sys.modules.get(CALL_CONTEXT), "_CURRENT_LLM_CALL_CONTEXT", None)
    return None if variable is None else variable.get()


def session_id(call_context: Any) -> str | None:
    """Conversation id that a call context names."""
    found = getattr(call_context, "session_id", None)
    return found if isinstance(found, str) and found else None


def text_of(value: object) -> str | None:
    """What people and programs put where an id or a name belongs; None where that is neither."""
    return str(value) if isinstance(value, str | int | UUID) and str(value) else None


def budget_of(conversation: Any) -> float | None:
    """US dollars that one run may spend; None without a limit, or with one that is no number."""
    limit = getattr(conversation, "max_budget_per_run", None)
    try:
        return None if limit is None else float(limit)
    except (TypeError, ValueError, OverflowError):
        return None


def state_of(conversation: Any) -> Any:
    """The state of a conversation; None where it has none (a stand-in for one)."""
    return getattr(conversation, "_state", None) or getattr(conversation, "state", None)


def tags_of(conversation: Any) -> Mapping[str, str]:
    """A conversation's own tags (1.21 on), those that it was resumed with included."""
    found = getattr(state_of(conversation), "tags", None)
    return cast(Mapping[str, str], found) if isinstance(found, Mapping) else {}


def workspace_folder(conversation: Any) -> str | None:
    """Name of the folder that a conversation works in, without the path to it."""
    found = getattr(getattr(conversation, "workspace", None), "working_dir", None)
    return os.path.basename(os.path.abspath(found)) if isinstance(found, str | os.PathLike) else None


def has_agent_server() -> bool:
    """Whether conversations here are an agent server's."""
    return EVENT_SERVICE in sys.modules


def has_event(conversation: Any, event: Any) -> bool:
    """Whether ``event`` is one of the conversation's own (told by its id, which is the event's alone)."""
    try:
        state_of(conversation).events.get_index(event.id)
    except (AttributeError, KeyError):
        return False
    return True


def status(conversation: Any) -> Status:
    """State of a conversation; ``idle`` where it is one that we don't know."""
    state = state_of(conversation)
    value = getattr(state, "execution_status", None) or getattr(state, "agent_status", None)
    try:
        return Status(str(getattr(value, "value", value)))
    except ValueError:
        return Status.IDLE


def _unwrapped(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function
