"""Hooks LLM calls: resolves at the start whose call it is, and announces its start and its end.

``LLM.completion``, ``responses`` and their async twins call each other (fallback, retry without cache, refreshed key,
router). The outermost is the logical call; an inner one only changes the model. A fallback of an async call runs in an
executor thread, where context variables don't follow: it takes them along in the function that it is given.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.content import ContentHooks
from openhands_otel._internal.capture.identity import (
    OpenConversations,
    attempts_begun,
    count_attempt,
    current_call,
    current_number,
    current_scope,
    enter_call,
    enter_scope,
    inside,
    origin_of_call,
)
from openhands_otel._internal.capture.modalities import ChunkTimes
from openhands_otel._internal.capture.response import attempt_begins
from openhands_otel._internal.capture.response_metadata import metadata_of, response_metadata
from openhands_otel._internal.capture.subclasses import follow
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.model_names import without_path
from openhands_otel._internal.once import Once
from openhands_otel._internal.patching.patching import Leave, Original, Patches
from openhands_otel.events import CallRetried, Event, FirstChunk, LLMCallEnded, LLMCallStarted, Origin

METHODS = ("completion", "responses", "acompletion", "aresponses", "generate", "agenerate")
"""By these an LLM is called; a subclass may have its own."""
_numbers = itertools.count(1)
"""One series for the process: a call that outlives an ``uninstrument`` must not share its number with a later one."""


class CallHooks:
    """The hooks on ``LLM``, ``Telemetry.on_request`` and ``FallbackStrategy``.

    ``suppressed`` says whether nobody wants durations here and now; ``detailed`` whether the newest GenAI names are
    sent, which tell more.
    """

    def __init__(
        self,
        publish: Callable[[Event], None],
        conversations: OpenConversations,
        suppressed: Callable[[], bool],
        content: ContentHooks,
        enter_call: Callable[[], list[Callable[[], None]]],
        detailed: Callable[[], bool],
    ) -> None:
        self._publish = publish
        self._conversations = conversations
        self._suppressed = suppressed
        self._content = content
        self._enter_around = enter_call
        self._detailed = detailed

    def patch_llm(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook the class ``LLM``; returns the names without which calls would go unseen."""
        for name in ("acompletion", "aresponses"):
            patches.around(module.LLM, name, self._enter_call)
        follow(patches, module.LLM, dict.fromkeys(METHODS, self._enter_own_method))
        patches.replace(module.LLM, "_ahandle_error", lambda original: _carrying_context(patches, original))
        return [
            f"LLM.{name}"
            for name in ("completion", "responses")
            if not patches.around(module.LLM, name, self._enter_call)
        ]

    def patch_telemetry(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``Telemetry.on_request``, which is called for each attempt."""
        found = patches.after(module.Telemetry, "on_request", self._attempt)
        return [] if found else ["Telemetry.on_request"]

    def patch_fallback(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``FallbackStrategy.try_fallback`` (1.11.5 on)."""
        follow(patches, module.FallbackStrategy, {"try_fallback": self._enter_fallback})
        patches.around(module.FallbackStrategy, "try_fallback", self._enter_fallback)
        return []

    def _enter_own_method(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        """A subclass has its own. A router calls another LLM, whose call it is then."""
        return None if compat.is_router(args[0]) else self._enter_call(args, kwargs)

    def enter_unseen(self, origin: Origin, seconds: float | None) -> Callable[[Any, str | None], None]:
        """An answer, or an error, comes of a call that none of the hooks saw begin, ``seconds`` ago.

        Somebody has put a function of his own in the place of a method. Returns what to do with (raw response, name of
        the error) when it is recorded.
        """
        number = next(_numbers)
        end_call = enter_call(origin, number)
        began = now_ns() - int((seconds or 0.0) * 1e9)
        self._publish(LLMCallStarted(began, origin, number, current_scope().tool))
        timed = None if self._suppressed() else seconds

        def leave(raw: Any, error: str | None) -> None:
            end_call()
            self._publish(LLMCallEnded(now_ns(), origin, number, error, timed, metadata_of(raw)))

        return leave

    def _enter_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        outer = current_call()
        origin = origin_of_call(self._conversations, args[0], kwargs.get("call_context"))
        if outer is not None:
            end_inner = enter_call(origin, current_number())
            return lambda result, error: end_inner()
        number = next(_numbers)
        end_call = enter_call(origin, number)
        timed, began = not self._suppressed(), time.perf_counter()
        on_token = kwargs.get("on_token")
        chunks = None
        if timed and on_token is not None:
            chunks = ChunkTimes() if self._detailed() else None
            # The call is made with these very keywords. None is left alone: a callback would switch streaming on.
            kwargs["on_token"] = self._timing_first_chunk(on_token, origin, number, began, chunks)
        self._publish(LLMCallStarted(now_ns(), origin, number, current_scope().tool))
        self._content.call_started(number, origin.conversation_id, args, kwargs)
        leave_around = self._enter_around()

        def leave(result: Any, error: BaseException | None) -> None:
            seconds = time.perf_counter() - began if timed else None
            for leave_each in leave_around:
                leave_each()
            end_call()
            self._content.call_ended(number, origin.conversation_id, args[0], result, error)
            name = None if error is None else type(error).__name__
            between = () if chunks is None else tuple(chunks.seconds)
            self._publish(LLMCallEnded(now_ns(), origin, number, name, seconds, response_metadata(result), between))

        return leave

    def _timing_first_chunk(
        self, on_token: Callable[..., Any], origin: Origin, number: int, began: float, chunks: ChunkTimes | None
    ) -> Callable[..., Any]:
        first = Once()
        attempts = attempts_begun()

        @guarded
        def note(chunk: Any) -> None:
            seconds = time.perf_counter() - began
            model = None if chunks is None else getattr(chunk, "model", None)
            named = without_path(model) if isinstance(model, str) and model else None
            self._publish(FirstChunk(now_ns(), origin, seconds, number, named))

        @functools.wraps(on_token)
        def timed_on_token(*args: Any, **kwargs: Any) -> Any:
            # What an async callback returns is the SDK's to await.
            if first.claim():
                note(args[0] if args else None)
            if chunks is not None:
                chunks.note(time.perf_counter(), attempts[0])
            return on_token(*args, **kwargs)

        return timed_on_token

    def _attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        attempt_begins()
        origin = current_call()
        attempt = count_attempt()
        if attempt > 1 and origin is not None:
            self._publish(CallRetried(now_ns(), origin, current_number(), attempt))

    def _enter_fallback(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        leave_scope = enter_scope(replace(current_scope(), fallback=True))
        return lambda result, error: leave_scope()


def _carrying_context(patches: Patches, original: Original) -> Original:
    """``_ahandle_error(self, error, fallback_call_fn)`` whose function runs where the failed call ran."""

    @functools.wraps(original)
    async def handle_error(self_: Any, error: Exception, fallback_call_fn: Callable[[Any], Any]) -> Any:
        if not patches.active:
            return await original(self_, error, fallback_call_fn)
        scope, call, number = replace(current_scope(), fallback=True), current_call(), current_number()

        def call_fallback(llm: Any) -> Any:
            with inside(scope, call, number):
                return fallback_call_fn(llm)

        return await original(self_, error, call_fallback)

    return handle_error
