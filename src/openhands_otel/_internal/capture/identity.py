"""Resolves whose an LLM call is (conversation, role, model, provider) where the call starts.

Two context variables carry what is known. ``Scope`` says in which conversation and in which part of its work this
thread or task is (set around the methods of a conversation, its condenser, its tools). ``Origin`` is the verdict on
the LLM call that runs now; the hooks on ``Metrics`` read it.

The conversation is taken, in this order, from: the ``call_context`` argument; the SDK's own scoped context; our scope;
the enclosing LLM call; ``llm._call_context`` (1.30 to 1.43, an object that conversations may share, so late); and, for
releases without any of these, the one open conversation that uses this LLM, if there is exactly one. Never from
``id()`` of an LLM or Metrics: conversations share them, and the interpreter uses ids again.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from openhands_otel._internal import labels
from openhands_otel._internal.capture import claude, compat
from openhands_otel._internal.capture.conversation_labels import ConversationLabels
from openhands_otel._internal.capture.provider import model_and_provider, named, server_of
from openhands_otel._internal.model_names import without_path
from openhands_otel._internal.scoped import set_until
from openhands_otel.events import NOBODY, Origin
from openhands_otel.semconv import Operation, Role


@dataclass(frozen=True, slots=True)
class Scope:
    """Where this thread or task is. ``role`` None means: the conversation's own."""

    conversation_id: str | None = None
    role: Role | None = None
    fallback: bool = False
    forking: bool = False
    tool: int | None = None
    """Number of the tool call that this is part of."""
    doing: str = ""
    """What of the conversation is being done, where that is told when it begins and ends."""


NOWHERE = Scope()

_scope: ContextVar[Scope] = ContextVar("openhands_otel_scope", default=NOWHERE)
_call: ContextVar[_Call | None] = ContextVar("openhands_otel_call", default=None)


class _Call:
    """An LLM call that runs."""

    __slots__ = ("attempts", "begun", "number", "origin")

    def __init__(self, origin: Origin, number: int | None, outer: _Call | None) -> None:
        self.origin = origin
        self.number = number
        self.attempts = 0
        self.begun = [0] if outer is None or outer.number != number else outer.begun
        """Attempts of the logical call, those of calls inside of it included."""


@contextlib.contextmanager
def inside(scope: Scope, call: Origin | None, number: int | None = None) -> Generator[None]:
    """Put this thread where another one was: context variables don't follow into executors."""
    leave_scope, leave_call = enter_scope(scope), enter_call(call, number)
    try:
        yield
    finally:
        leave_call()
        leave_scope()


def current_scope() -> Scope:
    """Where this thread or task is."""
    return _scope.get()


def current_call() -> Origin | None:
    """The LLM call that runs in this thread or task."""
    call = _call.get()
    return None if call is None else call.origin


def current_number() -> int | None:
    """Number of the logical LLM call that runs in this thread or task."""
    call = _call.get()
    return None if call is None else call.number


def attempts_begun() -> list[int]:
    """How many attempts the current logical call has begun: the one item, which goes on counting."""
    call = _call.get()
    return [0] if call is None else call.begun


def count_attempt() -> int:
    """Another attempt of the current call begins; how many that makes, 0 if there is no call."""
    call = _call.get()
    if call is None:
        return 0
    call.attempts += 1
    call.begun[0] += 1
    return call.attempts


def enter_scope(scope: Scope) -> Callable[[], None]:
    """Enter ``scope``; the returned function leaves it."""
    return set_until(_scope, scope)


def enter_scope_of(doing: str, scope: Scope) -> Callable[[], None] | None:
    """The same for the beginning of something; None where that has begun: a method calls the one that it overrides."""
    current = current_scope()
    if (current.conversation_id, current.doing) == (scope.conversation_id, doing):
        return None
    return enter_scope(replace(scope, doing=doing))


def enter_call(origin: Origin | None, number: int | None) -> Callable[[], None]:
    """Make ``origin`` the current call, part of the logical call ``number``; the returned function ends that."""
    return set_until(_call, None if origin is None else _Call(origin, number, _call.get()))


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays true of a conversation for its life in this process."""

    conversation_id: str
    parent_id: str | None
    role: Role
    label: str | None
    """Name of a sub-agent's kind where the SDK tells it, else None."""
    reference: weakref.ref[Any]
    labels: ConversationLabels

    @property
    def agent(self) -> str | None:
        """Name of the agent: the sub-agent's kind, or its class (``switch_llm`` and plugins replace the object)."""
        if self.label is not None:
            return self.label
        agent = getattr(self.reference(), "agent", None)
        return None if agent is None else type(agent).__name__


class OpenConversations:
    """The conversations that exist in this process, by id, held weakly."""

    def __init__(self, on_death: Callable[[str], None]) -> None:
        self._facts: dict[str, Facts] = {}
        self._on_death = on_death

    def add(
        self,
        conversation: Any,
        conversation_id: str,
        parent_id: str | None,
        role: Role,
        label: str | None,
        labels: ConversationLabels,
    ) -> None:
        """Know a conversation until it is collected."""

        def died(reference: weakref.ref[Any]) -> None:
            known = self._facts.get(conversation_id)
            # A conversation resumed under the same id has taken its place.
            if known is not None and known.reference is reference:
                del self._facts[conversation_id]
                self._on_death(conversation_id)

        reference = weakref.ref(conversation, died)
        self._facts[conversation_id] = Facts(conversation_id, parent_id, role, label, reference, labels)

    def get(self, conversation_id: str | None) -> Facts | None:
        """What is known of a conversation."""
        return None if conversation_id is None else self._facts.get(conversation_id)

    def is_current(self, conversation: Any, conversation_id: str) -> bool:
        """Whether this object is the one that lives under the id now."""
        facts = self._facts.get(conversation_id)
        return facts is not None and facts.reference() is conversation

    def only_one_with(self, has: Callable[[Any], bool]) -> str | None:
        """Id of the conversation for which ``has(conversation)`` is true, if it is exactly one."""
        found = [facts.conversation_id for facts in tuple(self._facts.values()) if _true_of(facts, has)]
        return found[0] if len(found) == 1 else None

    def some(self, most: int) -> list[Any]:
        """The newest conversations, at most ``most``."""
        newest = itertools.islice(reversed(tuple(self._facts.values())), most)
        return [conversation for facts in newest if (conversation := facts.reference()) is not None]


def _true_of(facts: Facts, has: Callable[[Any], bool]) -> bool:
    conversation = facts.reference()
    return conversation is not None and has(conversation)


def origin_of_call(conversations: OpenConversations, llm: Any, call_context: Any) -> Origin:
    """Decide whose call ``llm`` is about to make; ``call_context`` is the argument of that name, or None."""
    scope, outer = _scope.get(), current_call()
    scoped = compat.session_id(compat.current_call_context())
    conversation_id = (
        compat.session_id(call_context)
        or scoped
        or scope.conversation_id
        or (outer.conversation_id if outer else None)
        or compat.session_id(getattr(llm, "_call_context", None))
        or (None if compat.has_call_context() else conversations.only_one_with(lambda each: _uses(each, llm)))
    )
    usage_id = _text(getattr(llm, "usage_id", None))
    model, provider = model_and_provider(llm)
    facts = conversations.get(conversation_id)
    at_home = conversation_id is not None and conversation_id in (scope.conversation_id, scoped)
    return Origin(
        conversation_id=conversation_id,
        role=_role(scope, outer, facts, usage_id, at_home),
        model=model,
        provider=provider,
        usage_id=usage_id,
        agent=facts.agent if facts else None,
        parent_id=facts.parent_id if facts else None,
        fallback=scope.fallback,
        operation=Operation.CHAT,
        labels=_labels_here(facts) if outer is None else labels.merged(outer.labels, labels.current()),
        server=server_of(llm),
    )


def _labels_here(facts: Facts | None) -> labels.Labels:
    return labels.current() if facts is None else facts.labels.here()


def _role(scope: Scope, outer: Origin | None, facts: Facts | None, usage_id: str | None, at_home: bool) -> Role:
    if usage_id is not None and "-hook:" in usage_id:
        return Role.HOOK
    if scope.role is not None:
        return scope.role
    if outer is not None:
        return outer.role
    if not at_home:
        return Role.OTHER
    return facts.role if facts else Role.AGENT


def origin_outside_calls(conversations: OpenConversations, metrics: Any) -> Origin:
    """Origin of an update that comes from no LLM call we know of (an LLM class that records by itself)."""
    call = current_call()
    if call is not None:
        return call
    scope = _scope.get()
    conversation_id = scope.conversation_id or compat.session_id(compat.current_call_context())
    facts = conversations.get(conversation_id)
    llm = None if facts is None else _llm_with(facts.reference(), metrics)
    if llm is not None:
        return origin_of_call(conversations, llm, None)
    name = _text(getattr(metrics, "model_name", None))
    if conversation_id is None and name is None and not labels.current():
        return NOBODY
    model, provider = (NOBODY.model, NOBODY.provider) if name is None else named(name)
    return Origin(
        conversation_id=conversation_id,
        role=scope.role or (facts.role if facts else Role.OTHER),
        model=model,
        provider=provider,
        agent=facts.agent if facts else None,
        parent_id=facts.parent_id if facts else None,
        fallback=scope.fallback,
        labels=_labels_here(facts),
    )


def acp_origin(conversations: OpenConversations, agent: Any, session_id: str) -> Origin:
    """Origin of a turn of an ACP agent, whose model calls happen inside a program of its own."""
    scope = _scope.get()
    conversation_id = (
        scope.conversation_id
        or compat.session_id(compat.current_call_context())
        or conversations.only_one_with(lambda each: getattr(each, "agent", None) is agent)
    )
    facts = conversations.get(conversation_id)
    llm = getattr(agent, "llm", None)
    return replace(
        NOBODY,
        conversation_id=conversation_id,
        role=scope.role or Role.ACP,
        model=claude.model_of(agent, session_id) or _acp_model(agent, llm),
        provider=_text(getattr(agent, "_agent_name", None)) or NOBODY.provider,
        usage_id=_text(getattr(llm, "usage_id", None)),
        agent=facts.agent if facts else type(agent).__name__,
        parent_id=facts.parent_id if facts else None,
        operation=Operation.INVOKE_AGENT,
        labels=_labels_here(facts),
    )


def _acp_model(agent: Any, llm: Any) -> str:
    """The session's own model, or the one that it was asked for; never that of an LLM which no ACP agent uses."""
    own = _text(getattr(agent, "current_model_id", None)) or _text(getattr(agent, "acp_model", None))
    return without_path(own) if own else (NOBODY.model if hasattr(agent, "acp_model") else model_and_provider(llm)[0])


def _uses(conversation: Any, llm: Any) -> bool:
    return any(each is llm for each in _llms(conversation))


def _llm_with(conversation: Any, metrics: Any) -> Any:
    """The LLM of a conversation that writes to this meter."""
    return next((llm for llm in _llms(conversation) if getattr(llm, "_metrics", None) is metrics), None)


def _llms(conversation: Any) -> list[Any]:
    registry = getattr(conversation, "llm_registry", None)
    known: dict[str, Any] = getattr(registry, "usage_to_llm", None) or getattr(registry, "_usage_to_llm", None) or {}
    agent_llm = getattr(getattr(conversation, "agent", None), "llm", None)
    return [*([] if agent_llm is None else [agent_llm]), *known.values()]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
