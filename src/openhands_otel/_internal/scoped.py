"""Sets a context variable for as long as something lasts, wherever that ends."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


def set_until[T](variable: ContextVar[T], value: T, then: Callable[[], object] | None = None) -> Callable[[], None]:
    """Set it; the returned function puts back what was there, and calls ``then``.

    A coroutine may end in another context than it began in: whoever collects what a closed loop has left ends it in his
    own. Nothing was set there, so there is nothing to put back and ``then`` is not called, and what else is to be done
    at an end is done.
    """
    token = variable.set(value)

    def put_back() -> None:
        try:
            variable.reset(token)
        except ValueError:
            return
        if then is not None:
            then()

    return put_back
