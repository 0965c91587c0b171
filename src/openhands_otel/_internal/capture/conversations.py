"""Surrounds the methods of a conversation, its condenser, its title and its tools.

That is where a thread enters a conversation's work, so that is where our scope is set; and where a conversation is
opened, runs and ends, so that is where those events come from.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from types import ModuleType
from typing import Any

from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.content import ContentHooks
from openhands_otel._internal.capture.conversation_labels import ConversationLabels, labels_at_opening
from openhands_otel._internal.capture.identity import (
    OpenConversations,
    Scope,
    current_scope,
    enter_scope,
    enter_scope_of,
)
from openhands_otel._internal.capture.outcomes import outcome_of_run, outcome_of_tool
from openhands_otel._internal.capture.reconciliation import COMPARED_LIMIT, meters_of, own_total, restored_cost
from openhands_otel._internal.capture.subclasses import follow
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.patching.patching import Enter, Leave, Patches
from openhands_otel.events import (
    Condensed,
    ConversationClosed,
    ConversationOpened,
    Event,
    OwnTotal,
    RunEnded,
    RunStarted,
    ToolEnded,
    ToolStarted,
)
from openhands_otel.semconv import Role, ToolOutcome

_numbers = itertools.count(1)
"""Of runs and tool calls; one series for the process, so that numbers stay apart over ``uninstrument``."""


class ConversationHooks:
    """The hooks on ``LocalConversation``, condensers, titles and ``Agent._execute_action_event``."""

    def __init__(
        self,
        publish: Callable[[Event], None],
        conversations: OpenConversations,
        suppressed: Callable[[], bool],
        content: ContentHooks,
        send: Callable[[], Collection[str]],
    ) -> None:
        self._send = send
        """What of people may be sent."""
        self._publish = publish
        self._conversations = conversations
        self._suppressed = suppressed
        self._content = content
        self._error_codes: dict[str, str] = {}
        """Code of the last error event of a conversation that runs."""

    def patch_conversation(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``LocalConversation``; returns the names without which identity or runs would be missing."""
        conversation = module.LocalConversation
        roles = {
            "ask_agent": Role.ASK_AGENT,
            "execute_tool": Role.OTHER,
            "rerun_actions": Role.OTHER,
            "reject_pending_actions": None,
            "condense": None,
            "send_message": None,
        }
        enters: dict[str, Enter] = {name: self._in_conversation(role) for name, role in roles.items()}
        enters |= {"run": self._enter_run, "arun": self._enter_run}
        enters |= {"fork": self._enter_fork, "close": self._enter_close, "generate_title": self._enter_title}
        follow(patches, conversation, enters)
        enters["__init__"] = self._enter_init
        missing = {name for name, enter in enters.items() if not patches.around(conversation, name, enter)}
        return [f"LocalConversation.{name}" for name in ("__init__", "run") if name in missing]

    def patch_condenser(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``condense`` and ``acondense`` of every condenser."""
        follow(patches, module.CondenserBase, dict.fromkeys(("condense", "acondense"), self._with_role(Role.CONDENSER)))
        return [] if hasattr(module.RollingCondenser, "condense") else ["RollingCondenser.condense"]

    def patch_title(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``title_utils.generate_title_with_llm``, which the agent server calls in an executor."""
        found = patches.around(module, "generate_title_with_llm", self._with_role(Role.TITLE))
        return [] if found else ["title_utils.generate_title_with_llm"]

    def patch_event_service(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook where an agent server begins with a conversation, and where it saves what that is called."""
        for name in ("start", "save_meta"):
            patches.around(module.EventService, name, self._enter_service)
        return []

    def patch_goal(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``GoalController.on_run_finished``, which asks a judge; the server calls it in an executor."""
        follow(patches, module.GoalController, {"on_run_finished": self._enter_judge})
        patches.around(module.GoalController, "on_run_finished", self._enter_judge)
        return []

    def patch_agent(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``Agent._execute_action_event``, which runs on the tool's own thread in every release.

        And where the agent calls its condenser (1.5 on): one of the user's own need not be a ``RollingCondenser``.
        """
        for name in ("prepare_llm_messages", "aprepare_llm_messages"):
            patches.around(module, name, self._with_role(Role.CONDENSER))
        follow(patches, module.Agent, {"_execute_action_event": self._enter_tool})
        found = patches.around(module.Agent, "_execute_action_event", self._enter_tool)
        return [] if found else ["Agent._execute_action_event"]

    def patch_event_log(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``EventLog.append``, by which every event of a conversation goes, in every release."""
        found = patches.after(module.EventLog, "append", self._appended)
        return [] if found else ["EventLog.append"]

    def _appended(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scope = current_scope()
        if scope.forking:
            # A fork takes over what happened to its source.
            return
        conversation_id = scope.conversation_id
        event = args[1] if len(args) > 1 else kwargs["event"]
        kind = type(event).__name__
        if kind == "Condensation":
            self._publish(Condensed(now_ns(), conversation_id, self._agent_of(conversation_id)))
        elif kind == "UserRejectObservation":
            rejected, agent = ToolOutcome.REJECTED, self._agent_of(conversation_id)
            tool = str(event.tool_name)
            self._publish(ToolEnded(now_ns(), conversation_id, tool, 0, None, rejected, 0.0, agent))
        elif kind == "ConversationErrorEvent" and conversation_id is not None:
            self._error_codes[conversation_id] = str(event.code)

    def _enter_judge(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        events = args[1] if len(args) > 1 else kwargs["events"]
        conversation_id = current_scope().conversation_id
        if conversation_id is None and events:
            conversation_id = self._conversations.only_one_with(lambda each: compat.has_event(each, events[-1]))
        leave_scope = enter_scope(Scope(conversation_id=conversation_id, role=Role.OTHER))
        return lambda result, error: leave_scope()

    def _with_role(self, role: Role) -> Enter:
        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
            leave_scope = enter_scope(replace(current_scope(), role=role))
            return lambda result, error: leave_scope()

        return enter

    def _in_conversation(self, role: Role | None) -> Enter:
        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
            leave_scope = enter_scope(Scope(conversation_id=str(args[0].id), role=role))
            return lambda result, error: leave_scope()

        return enter

    def _enter_title(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        conversation_id = str(args[0].id)
        leave_scope = enter_scope(Scope(conversation_id=conversation_id, role=Role.TITLE))

        def leave(result: Any, error: BaseException | None) -> None:
            leave_scope()
            # Elsewhere it is the conversation's, for nobody keeps another one; a server's client may not take it.
            if not compat.has_agent_server():
                self._content.titled(conversation_id, result)

        return leave

    def _enter_service(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        def leave(result: Any, error: BaseException | None) -> None:
            stored = args[0].stored
            self._content.titled(str(stored.id), getattr(stored, "title", None))

        return leave

    def _enter_init(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        scope = current_scope()
        _, *rest = args
        given = meters_of(rest[0] if rest else kwargs.get("agent"))

        def leave(result: Any, error: BaseException | None) -> None:
            if error is None:
                self._open(args[0], scope, kwargs, given)

        return leave

    def _open(self, conversation: Any, scope: Scope, kwargs: dict[str, Any], meters: tuple[Any, ...]) -> None:
        conversation_id = str(conversation.id)
        metadata: dict[str, Any] = kwargs.get("observability_metadata") or {}
        parent_id = (
            compat.session_id(kwargs.get("_parent_llm_call_context"))
            or compat.text_of(metadata.get("parent_session_id"))
            or scope.conversation_id
        )
        usage_id = str(getattr(getattr(getattr(conversation, "agent", None), "llm", None), "usage_id", ""))
        if "-hook:" in usage_id:
            role = Role.HOOK
        elif parent_id is not None and not scope.forking:
            role = Role.SUBAGENT
        else:
            role = Role.AGENT
        label = compat.text_of(metadata.get("subagent_type"))
        parent = self._conversations.get(parent_id)
        opened = labels_at_opening(conversation, kwargs, self._send(), parent.labels if parent else None)
        self._conversations.add(conversation, conversation_id, parent_id, role, label, ConversationLabels(opened))
        self._announce(conversation, conversation_id, meters)

    def _announce(self, conversation: Any, conversation_id: str, meters: tuple[Any, ...] = ()) -> None:
        facts = self._conversations.get(conversation_id)
        self._publish(
            ConversationOpened(
                at=now_ns(),
                conversation_id=conversation_id,
                parent_id=facts.parent_id if facts else None,
                agent=(facts.agent if facts else None) or "",
                sdk_version=compat.sdk_version(),
                restored_cost=restored_cost(conversation, meters),
                budget=compat.budget_of(conversation),
            )
        )

    @guarded
    def _own_total(self, conversation: Any) -> OwnTotal | None:
        return own_total(conversation, self._conversations.some(COMPARED_LIMIT))

    def _enter_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        conversation = args[0]
        conversation_id, tool = str(conversation.id), current_scope().tool
        leave_scope = enter_scope_of("run", Scope(conversation_id=conversation_id))
        if leave_scope is None:
            return None
        number = next(_numbers)
        timed, began = not self._suppressed(), time.perf_counter()
        self._error_codes.pop(conversation_id, None)
        agent, parent_id = self._agent_of(conversation_id), self._started_by(conversation_id)
        facts = self._conversations.get(conversation_id)
        leave_labels = facts.labels.enter_run() if facts else None
        labels = facts.labels.here() if facts else ()
        self._publish(RunStarted(now_ns(), conversation_id, number, agent, parent_id, tool, labels=labels))

        def leave(result: Any, error: BaseException | None) -> None:
            seconds = time.perf_counter() - began if timed else None
            leave_scope()
            if leave_labels is not None:
                leave_labels()
            status, own = compat.status(conversation), self._own_total(conversation)
            code = self._error_codes.pop(conversation_id, None)
            if error is not None:
                code = code or type(error.__cause__ or error).__name__
            outcome = outcome_of_run(status, code)
            agent = self._agent_of(conversation_id)
            self._content.run_ended(number, conversation_id, error)
            self._publish(RunEnded(now_ns(), conversation_id, status, own, outcome, code, seconds, agent, number))

        return leave

    def _started_by(self, conversation_id: str) -> str | None:
        """The conversation whose sub-agent or hook this one is; a fork goes its own way."""
        facts = self._conversations.get(conversation_id)
        return facts.parent_id if facts and facts.role in (Role.SUBAGENT, Role.HOOK) else None

    def _agent_of(self, conversation_id: str | None) -> str | None:
        facts = self._conversations.get(conversation_id)
        return facts.agent if facts else None

    def _enter_fork(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        leave_scope = enter_scope_of("fork", Scope(conversation_id=str(args[0].id), forking=True))
        if leave_scope is None:
            return None

        def leave(result: Any, error: BaseException | None) -> None:
            leave_scope()
            if result is not None:
                # Only now does the fork have the stats that it was given.
                self._announce(result, str(result.id))

        return leave

    def _enter_close(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        conversation = args[0]
        conversation_id = str(conversation.id)
        leave_scope = enter_scope_of("close", Scope(conversation_id=conversation_id))
        if leave_scope is None:
            return None

        def leave(result: Any, error: BaseException | None) -> None:
            leave_scope()
            # An old object closed after another was resumed under its id says nothing about that one.
            if self._conversations.is_current(conversation, conversation_id):
                own = self._own_total(conversation)
                self._publish(ConversationClosed(now_ns(), conversation_id, own))

        return leave

    def _enter_tool(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        conversation = args[1] if len(args) > 1 else kwargs["conversation"]
        action_event = args[2] if len(args) > 2 else kwargs["action_event"]
        conversation_id, tool = str(conversation.id), str(action_event.tool_name)
        number, agent = next(_numbers), self._agent_of(conversation_id)
        facts = self._conversations.get(conversation_id)
        scope = Scope(conversation_id=conversation_id, role=Role.OTHER, tool=number)
        leave_scope = enter_scope_of(f"tool call {action_event.id}", scope)
        if leave_scope is None:
            return None
        timed, began = not self._suppressed(), time.perf_counter()
        labels = facts.labels.here() if facts else ()
        self._publish(ToolStarted(now_ns(), conversation_id, tool, number, agent, labels))
        self._content.tool_started(number, conversation_id, action_event)

        def leave(result: Any, error: BaseException | None) -> None:
            seconds = time.perf_counter() - began if timed else None
            leave_scope()
            self._content.tool_ended(number, conversation_id, result, error)
            name = None if error is None else type(error).__name__
            outcome = outcome_of_tool(result, error)
            self._publish(ToolEnded(now_ns(), conversation_id, tool, number, name, outcome, seconds, agent))

        return leave
