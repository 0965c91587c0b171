"""All hooks on OpenHands, put in place and removed together.

``attach`` waits for each module of OpenHands to be imported and patches it then; ``detach`` leaves OpenHands byte for
byte as it was. Both are called by one thread at a time, in turn (see ``subscriptions.py``). Modules may be imported
at any moment meanwhile, in other threads; that is what ``import_hooks.py`` and ``patching.py`` are made for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import ModuleType

from openhands_otel._internal.bus.dispatch import Bus
from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.calls import CallHooks
from openhands_otel._internal.capture.content import ContentHooks
from openhands_otel._internal.capture.conversations import ConversationHooks
from openhands_otel._internal.capture.identity import OpenConversations
from openhands_otel._internal.capture.recording import Recording
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.log import logger
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.patching.patching import Patches
from openhands_otel.events import ConversationClosed

Patch = Callable[[Patches, ModuleType], list[str]]
"""Patches a module and returns the names that it lacks."""


class Hooks:
    """Puts the hooks in place and takes them away; their events go to ``bus``.

    ``suppressed`` says whether the current thread or task wants no durations.
    """

    def __init__(self, bus: Bus, suppressed: Callable[[], bool]) -> None:
        self._bus = bus
        self._suppressed = suppressed
        self.attached = False
        """Whether all of them are in place."""
        self.send: Collection[str] = ()
        """What of people may be sent, as OPENHANDS_OTEL_SEND has it."""
        self.detailed = False
        """Whether events say what only the newest GenAI names tell."""
        self._patches: Patches | None = None
        self._forget: list[Callable[[], None]] = []
        self._missing: list[str] = []
        # Kept over detach and attach: it knows whose sub-agent a conversation is, and holds them weakly.
        self._conversations = OpenConversations(on_death=self._announce_death)

    def attach(self) -> None:
        """Patch what is imported and wait for the rest."""
        # In a forked child there may be half of them, of a thread that is gone.
        self.detach()
        patches = self._patches = Patches()
        try:
            for module, patch in self._table().items():
                self._forget.append(when_imported(module, self._apply(patches, patch)))
            self._forget.append(when_imported(compat.SDK, self._complainer(patches)))
            self.attached = True
        except BaseException:
            # Ctrl-C, say: all of them or none.
            self.detach()
            raise

    def detach(self) -> None:
        """Put everything back."""
        self.attached = False
        patches, self._patches = self._patches, None
        while self._forget:
            self._forget.pop()()
        if patches is not None:
            patches.undo()

    def _table(self) -> dict[str, Patch]:
        publish = self._bus.publish
        conversations = self._conversations
        content = ContentHooks(self._bus.publish_content, conversations, lambda: self._bus.captures_content)

        def detailed() -> bool:
            return self.detailed

        calls = CallHooks(publish, conversations, self._suppressed, content, self._bus.enter_call, detailed)
        recording = Recording(publish, conversations, calls, detailed)
        hooks = ConversationHooks(publish, conversations, self._suppressed, content, lambda: self.send)
        return {
            compat.METRICS_MODULE: recording.patch_metrics,
            compat.TELEMETRY: lambda patches, module: [
                *recording.patch_telemetry(patches, module),
                *calls.patch_telemetry(patches, module),
            ],
            compat.STREAM_BUILDER: recording.patch_stream_builder,
            compat.ACP_AGENT: recording.patch_acp,
            compat.LLM: calls.patch_llm,
            compat.FALLBACK: calls.patch_fallback,
            compat.CONVERSATION_MODULE: hooks.patch_conversation,
            compat.CONDENSER: hooks.patch_condenser,
            compat.TITLE_MODULE: hooks.patch_title,
            compat.EVENT_LOG: hooks.patch_event_log,
            compat.GOAL: hooks.patch_goal,
            compat.AGENT: hooks.patch_agent,
            compat.EVENT_SERVICE: hooks.patch_event_service,
        }

    def _announce_death(self, conversation_id: str) -> None:
        self._bus.publish_from_finalizer(ConversationClosed(now_ns(), conversation_id))

    def _apply(self, patches: Patches, patch: Patch) -> Callable[[ModuleType], None]:
        def apply(module: ModuleType) -> None:
            if not patches.active:
                return
            try:
                self._missing += patch(patches, module)
            except AttributeError as error:
                # A class that is not where it was.
                self._missing.append(f"{module.__name__}.{error.name}")

        return apply

    def _complainer(self, patches: Patches) -> Callable[[ModuleType], None]:
        """One warning when the SDK is imported and lacks what we look for."""

        def complain(module: ModuleType) -> None:
            missing = [*self._missing, *compat.missing_modules()]
            self._missing.clear()
            if missing and patches.active:
                logger.warning(
                    "openhands-sdk %s lacks what openhands-otel looks for (%s); what it has is counted, "
                    "more may be spent",
                    compat.sdk_version(),
                    ", ".join(missing),
                )

        return complain
