"""The process's one bus, and the hooks that feed it: in place while there is a listener, removed with the last one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openhands_otel._internal.bus.dispatch import Bus
from openhands_otel._internal.capture.hooks import Hooks
from openhands_otel._internal.process.process_end import ProcessEnd, main_has_returned
from openhands_otel.events import UPDATES, Event

PATIENCE_S = 2.0
"""For how long the end of a process waits for background subscribers, where nothing else of ours does."""

bus = Bus()
_end = ProcessEnd(
    stop=lambda timeout_s: None if bus.keepers else bus.finish(timeout_s),
    flush=bus.drain,
    after_fork=lambda: None,
    patience_s=PATIENCE_S,
    takes_sigterm=False,
)
_hooks = Hooks(bus, suppressed=lambda: not is_instrumentation_enabled())
_listeners: set[object] = set()
_settling = threading.RLock()
_settles = False
"""Whether a thread is at it, which is then the one that holds the lock."""


def listen() -> Callable[[], None]:
    """Keep the hooks in place until the returned function is called."""
    listener = object()
    _listeners.add(listener)
    try:
        _settle(patiently=True)
    except BaseException:
        _listeners.discard(listener)
        raise

    def stop() -> None:
        _listeners.discard(listener)
        _settle(patiently=False)

    return stop


def _settle(patiently: bool) -> None:
    """Have the hooks in place if and only if somebody listens.

    Who begins waits until they are in place; who ends need not, for whoever is at it looks again when he is done. So a
    finalizer that ends a subscription, in whatever thread and inside of whatever, never waits for anybody.
    """
    global _settles
    while bool(_listeners) != _hooks.attached:
        if not _settling.acquire(blocking=patiently):
            return
        try:
            if _settles:
                # We are inside of it, in a finalizer or a signal's handler; it goes on when we are gone.
                return
            _settles = True
            try:
                while bool(_listeners) != _hooks.attached:
                    if _listeners:
                        _hooks.attach()
                    else:
                        _hooks.detach()
            finally:
                _settles = False
        finally:
            _settling.release()


def tell_of_people(names: Collection[str]) -> Callable[[], None]:
    """Have conversations say what OPENHANDS_OTEL_SEND lists, until the returned function is called."""
    _hooks.send = names

    def stop() -> None:
        _hooks.send = ()

    return stop


def tell_in_detail() -> Callable[[], None]:
    """Have events say what only the newest GenAI names tell, until the returned function is called."""
    _hooks.detailed = True

    def stop() -> None:
        _hooks.detailed = False

    return stop


def _renew_locks() -> None:
    """In a forked child: a thread that is gone may have held them."""
    global _settling, _settles
    _settling = threading.RLock()
    _settles = False
    bus.restart_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def subscribe(
    callback: Callable[[Event], object],
    conversation: str | UUID | None = None,
    usage_id: str | None = None,
    *,
    kinds: type[Event] | Iterable[type[Event]] = UPDATES,
    background: bool = False,
) -> Callable[[], None]:
    """Call ``callback(event)`` at each change of an OpenHands ``Metrics`` object, until unsubscribed.

    It makes no difference whether LLMs and conversations exist before or after. Subscribing patches the SDK if nothing
    has yet, and the last unsubscribe undoes that. An Exception in a callback is counted and logged once: neither the
    agent nor other callbacks notice.

    Args:
        callback: Called with each event (a class of ``openhands_otel.events``) on the thread that made the change, in
            the order of subscription: it must be quick.
        conversation: Only events of this conversation: its id.
        usage_id: Only events of calls with this usage id.
        kinds: Which events; CostAdded, TokensUsed, LatencyRecorded and MetricsMerged unless given.
        background: Call on a thread of the plugin's, so that a slow callback does not hold the agent up. At most 10,000
            events wait for it, more are dropped and counted; at the process's end those that wait get two seconds.

    Returns:
        A function that ends the subscription. Nothing is called after it; calling it again does nothing.

    Raises:
        TypeError: ``callback`` cannot be called, or ``kinds`` are no classes.
    """
    # First what may be refused: a subscription that failed must leave no hooks behind.
    end_subscription = bus.subscribe(
        callback, conversation=conversation, usage_id=usage_id, kinds=kinds, background=background
    )
    stop_listening = listen()
    if bus.has_background:
        _end.watch()
        if main_has_returned():
            bus.hurry(PATIENCE_S)

    def unsubscribe() -> None:
        end_subscription()
        stop_listening()

    return unsubscribe
