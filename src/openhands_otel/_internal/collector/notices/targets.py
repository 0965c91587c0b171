"""Where notices go: Apprise's services, each by a URL that is a secret as a whole and is shown nowhere.

Each message is sent on a thread of its own, so that a target that hangs holds up neither the viewer nor the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openhands_otel.settings import ViewerSettings

if TYPE_CHECKING:
    from apprise import NotifyBase

TITLE: Final = "OpenHands spend"
PATIENCE_S: Final = 60.0
"""A target that has not answered by then has not been told."""


class Target:
    """One service. ``name`` is its place in the settings and the service's name, as in ``1 (Slack)``."""

    def __init__(self, number: int, url: str, service: NotifyBase) -> None:
        self.name = f"{number} ({service.service_name})"
        self.digest = hashlib.sha256(url.encode()).hexdigest()
        """Stands for it in the database, whatever place it has."""
        self._service = service
        self._sending: threading.Thread | None = None

    async def send(self, text: str) -> bool:
        """Whether it was told. Raises nothing."""
        if self._sending is not None and self._sending.is_alive():
            return False
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def settle(taken: bool) -> None:
            if not answer.done():
                answer.set_result(taken)

        def work() -> None:
            taken = False
            with contextlib.suppress(Exception):
                taken = bool(self._service.notify(body=text, title=TITLE))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, taken)

        self._sending = threading.Thread(target=work, name="openhands-otel-notice", daemon=True)
        self._sending.start()
        try:
            return await asyncio.wait_for(answer, PATIENCE_S)
        except TimeoutError:
            return False


class TargetError(Exception):
    """A target cannot be used; the message is one line that names its place, and never its URL."""


def targets_of(settings: ViewerSettings) -> list[Target]:
    """All that the settings name; raises TargetError."""
    given = [] if settings.notify is None else settings.notify.get_secret_value().split()
    if settings.notify_file is not None:
        given += _lines(settings.notify_file)
    if not given:
        return []
    _silence("apprise")
    return [_target(number, url, _service(url)) for number, url in enumerate(given, 1)]


def _silence(name: str) -> None:
    """What a library logs may hold the URL: a token, a password, whom it is for."""
    theirs = logging.getLogger(name)
    theirs.addHandler(logging.NullHandler())
    theirs.propagate = False


def _service(url: str) -> NotifyBase | None:
    try:
        from apprise import Apprise
    except ImportError:
        raise TargetError("notices need Apprise: pip install 'openhands-otel[viewer,notices]'") from None
    return Apprise.instantiate(url)  # pyright: ignore[reportUnknownMemberType]


def _target(number: int, url: str, service: NotifyBase | None) -> Target:
    if service is None:
        scheme = url.partition("://")[0]
        known = f" ({scheme}://...)" if scheme.isalpha() and len(scheme) < 20 and scheme != url else ""
        raise TargetError(f"notice target {number}{known} is no URL of Apprise: see docs/notices.md")
    return Target(number, url, service)


def _lines(file: Path) -> Iterable[str]:
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise TargetError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
