"""The process's one bus and the hooks that feed it: in place while anybody listens, gone when nobody does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from uuid import UUID

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openhands_otel.bus import Bus, Callback
from openhands_otel.events import UPDATES, Event
from openhands_otel.sdk.hooks import Hooks

bus = Bus()
_hooks = Hooks(bus, suppressed=lambda: not is_instrumentation_enabled())
_listening = threading.Lock()
_listeners = 0


def listen() -> Callable[[], None]:
    """Keep the hooks in place until the returned function is called."""
    global _listeners
    with _listening:
        _listeners += 1
        _hooks.attach()
    done = False

    def stop() -> None:
        nonlocal done
        global _listeners
        with _listening:
            if done:
                return
            done = True
            _listeners -= 1
            if _listeners == 0:
                _hooks.detach()

    return stop


def _renew_locks() -> None:
    """In a forked child: a thread that is gone may have held them."""
    global _listening
    _listening = threading.Lock()
    _hooks.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def subscribe(
    callback: Callback,
    conversation: str | UUID | None = None,
    usage_id: str | None = None,
    *,
    kinds: type[Event] | Iterable[type[Event]] = UPDATES,
    background: bool = False,
) -> Callable[[], None]:
    """Call ``callback(event)`` at each change of an OpenHands ``Metrics`` object, until unsubscribed.

    The events are those of ``openhands_otel.events``: CostAdded, TokensUsed, LatencyRecorded and MetricsMerged unless
    ``kinds`` names others. ``conversation`` and ``usage_id`` select; ``background=True`` calls on a thread of ours, so
    that a slow callback doesn't hold the agent up (it waits behind at most 10,000 events; more are dropped and
    counted). Otherwise it is called on the thread that made the change, in the order of subscription.

    Returns a function that ends the subscription. Nothing is called after it; calling it again does nothing. It makes
    no difference whether LLMs and conversations exist before or after. Subscribing patches the SDK if nothing has yet,
    and the last unsubscribe undoes that. An Exception in a callback is counted and logged once: neither the agent nor
    other callbacks notice.
    """
    # First what may be refused: a subscription that failed must leave no hooks behind.
    end_subscription = bus.subscribe(
        callback, conversation=conversation, usage_id=usage_id, kinds=kinds, background=background
    )
    stop_listening = listen()

    def unsubscribe() -> None:
        end_subscription()
        stop_listening()

    return unsubscribe
