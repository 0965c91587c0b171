"""Hands each event to the sinks and subscribers that want it.

Two kinds of receivers. *Sinks* are ours (the pipeline's queue): called first, with every event, and safe to call from
anywhere, even from a garbage collection. *Subscribers* are the user's callbacks: called in the order in which they
came, on the thread that made the event, or on a thread of ours behind a bounded queue (``background=True``).

The list of receivers is replaced, never changed, so publishing takes no lock, and subscribing or unsubscribing inside
a callback, a finalizer or a signal's handler is fine. What a subscriber raises is counted and logged once; it reaches
neither the agent nor the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self, cast
from uuid import UUID

from openhands_otel._internal.bus.background import Background
from openhands_otel._internal.content import CapturedContent
from openhands_otel._internal.guard import note_error
from openhands_otel.events import UPDATES, ConversationClosed, Event

Callback = Callable[[Event], object]
CaptureContent = Callable[[CapturedContent], object]
EnterCall = Callable[[], Callable[[], None] | None]
"""Called where an LLM call begins; what it returns, if anything, where it ends. Raises nothing."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One user callback and what it wants to hear. ``background`` is how it is called."""

    callback: Callback
    conversation: str | None
    usage_id: str | None
    kinds: tuple[type[Event], ...]
    background: bool
    alive: bool = True

    @property
    def needs_thread(self) -> bool:
        """Whether it is called on our thread: always, or where a dying conversation makes the event."""
        return self.background or ConversationClosed in self.kinds

    def wants(self, event: Event) -> bool:
        """Whether this event is one that was asked for."""
        if not self.alive or not isinstance(event, self.kinds):
            return False
        origin = getattr(event, "origin", None)
        if self.conversation is not None:
            named = origin.conversation_id if origin is not None else getattr(event, "conversation_id", None)
            if named != self.conversation:
                return False
        return self.usage_id is None or (origin is not None and origin.usage_id == self.usage_id)

    def deliver(self, event: Event) -> None:
        """Call it; an Exception that it raises ends here."""
        try:
            self.callback(event)
        except Exception as error:
            note_error(self._name, error)

    def call(self, event: Event) -> None:
        """The same on a thread of ours, whom nothing must end: not ``sys.exit``, nor a cancelled task."""
        try:
            self.callback(event)
        except BaseException as error:
            note_error(self._name, error)

    @property
    def _name(self) -> str:
        return f"subscriber {getattr(self.callback, '__qualname__', type(self.callback).__name__)}"


@dataclass(frozen=True, slots=True, eq=False)
class _Sink:
    put: Callback
    content: CaptureContent | None
    around_calls: EnterCall | None


@dataclass(frozen=True, slots=True)
class _Receivers:
    registered: tuple[_Sink | Subscription, ...] = ()
    sinks: tuple[Callback, ...] = ()
    content: tuple[CaptureContent, ...] = ()
    around_calls: tuple[EnterCall, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()

    @classmethod
    def of(cls, registered: tuple[_Sink | Subscription, ...]) -> Self:
        sinks = [each for each in registered if isinstance(each, _Sink)]
        return cls(
            registered,
            sinks=tuple(each.put for each in sinks),
            content=tuple(each.content for each in sinks if each.content is not None),
            around_calls=tuple(each.around_calls for each in sinks if each.around_calls is not None),
            subscriptions=tuple(each for each in registered if isinstance(each, Subscription)),
        )


class Bus:
    """The events' way from the SDK's threads to sinks and subscribers."""

    def __init__(self) -> None:
        self._receivers = _Receivers()
        self._registered: dict[_Sink | Subscription, None] = {}
        self._changing = threading.RLock()
        self._background = Background()
        self.keepers: set[object] = set()
        """Those who call ``finish`` at the process's end."""

    def publish(self, event: Event) -> None:
        """Hand ``event`` to every receiver; never raises an Exception."""
        receivers = self._receivers
        for sink in receivers.sinks:
            sink(event)
        for subscription in receivers.subscriptions:
            if subscription.wants(event):
                if subscription.background:
                    self._background.put(subscription, event)
                else:
                    subscription.deliver(event)

    def publish_from_finalizer(self, event: Event) -> None:
        """As ``publish``, for events made by a dying object: no user code runs inside a garbage collection."""
        receivers = self._receivers
        for sink in receivers.sinks:
            sink(event)
        for subscription in receivers.subscriptions:
            if subscription.wants(event):
                self._background.put(subscription, event)

    def add_sink(
        self, put: Callback, content: CaptureContent | None = None, around_calls: EnterCall | None = None
    ) -> Callable[[], None]:
        """Send every event to ``put`` until the returned function is called.

        ``content`` is called with what is said; ``around_calls`` is entered for the time of each LLM call.
        """
        return self._register(_Sink(put, content, around_calls))

    def _register(self, receiver: _Sink | Subscription) -> Callable[[], None]:
        self._registered[receiver] = None
        self._renew()

        def remove() -> None:
            self._registered.pop(receiver, None)
            self._renew()

        return remove

    def _renew(self) -> None:
        with self._changing:
            # A finalizer may come and go in the middle of this: then it is done once more.
            while (registered := tuple(self._registered)) != self._receivers.registered:
                self._receivers = _Receivers.of(registered)

    def enter_call(self) -> list[Callable[[], None]]:
        """An LLM call has begun in this thread or task; call what is returned, in it, when it ends."""
        return [leave for enter in self._receivers.around_calls if (leave := enter()) is not None]

    def publish_content(self, captured: CapturedContent) -> None:
        """Hand what was said to the sinks that capture it, and to nobody else."""
        for capture in self._receivers.content:
            capture(captured)

    @property
    def captures_content(self) -> bool:
        """Whether anybody does."""
        return bool(self._receivers.content)

    def subscribe(
        self,
        callback: Callback,
        *,
        conversation: str | UUID | None = None,
        usage_id: str | None = None,
        kinds: type[Event] | Iterable[type[Event]] = UPDATES,
        background: bool = False,
    ) -> Callable[[], None]:
        """Call ``callback`` with each event that fits, until the returned function is called (once or often).

        Raises TypeError, and changes nothing, where ``callback`` cannot be called or ``kinds`` are no classes.
        """
        subscription = _checked(callback, conversation, usage_id, kinds, background)
        if subscription.needs_thread:
            with self._changing:
                self._background.start()
        remove = self._register(subscription)

        def unsubscribe() -> None:
            subscription.alive = False
            remove()

        return unsubscribe

    @property
    def dropped(self) -> int:
        """Events that background subscribers were too slow for."""
        return self._background.dropped

    @property
    def has_background(self) -> bool:
        """Whether any subscriber is called on another thread."""
        return any(subscription.needs_thread for subscription in self._receivers.subscriptions)

    def drain(self, timeout_s: float) -> bool:
        """Wait until background subscribers have got all that was published; False if that takes longer."""
        return self._background.drain(timeout_s)

    def hurry(self, timeout_s: float) -> None:
        """Nobody may call ``finish``: have each event delivered before the next, for so long in all."""
        self._background.hurry_s = timeout_s

    def finish(self, timeout_s: float) -> None:
        """The process ends: have background subscribers get what is theirs, as far as the time goes."""
        self._background.finish(timeout_s)

    def restart_after_fork(self) -> None:
        """In a forked child: the parent's threads and locks are gone, waiting events are the parent's."""
        self._changing = threading.RLock()
        self._background = Background()


def _checked(
    callback: Callback,
    conversation: str | UUID | None,
    usage_id: str | None,
    kinds: object,
    background: bool,
) -> Subscription:
    """What was asked for. A mistake is told to whoever subscribes: at an event it would be the agent's."""
    chosen: tuple[object, ...] = (kinds,) if isinstance(kinds, type) else tuple(cast(Iterable[object], kinds))
    if not callable(callback) or not all(isinstance(kind, type) for kind in chosen):
        raise TypeError("subscribe takes a function, and kinds=(CostAdded, ...) with classes of openhands_otel.events")
    # OpenHands' own ids are UUIDs; events name a conversation by text.
    named = None if conversation is None else str(conversation)
    return Subscription(callback, named, usage_id, cast(tuple[type[Event], ...], chosen), background)
