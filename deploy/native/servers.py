"""Several server processes as one: started in order, waited for together, stopped in the opposite order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from deploy.native.server import Server


class Servers(ABC):
    """For a ``with`` block, or ``start`` and ``stop``; any of them may be killed in between."""

    @property
    @abstractmethod
    def servers(self) -> Sequence[Server]:
        """In an order in which each finds what it needs."""

    @abstractmethod
    def _lay_out(self) -> None:
        """Write what they need to find on disk."""

    def start(self) -> None:
        self._lay_out()
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
