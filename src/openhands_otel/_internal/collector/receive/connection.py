"""One HTTP connection with limits on how long its peer may take, and an end that lets the answer arrive.

uvicorn limits nothing but the idle time after an answer. Here every phase of a connection has a limit: a request's head
must be whole in time, its body must come at a minimum rate, an answer must be taken. What is refused before its body
was read is answered and then drained for a while: a connection that is closed with unread bytes in it is reset, and
the reset overtakes the answer.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from openhands_otel._internal.collector.receive.lines import few_lines

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Parsing
else:
    _Parsing = asyncio.Protocol

HEAD_S: Final = 10.0
"""From the connection (or the first byte of a later request) to the end of the request's head."""
BODY_S: Final = 30.0
BODY_BYTES_PER_S: Final = 256 * 1024
"""A body may take so many seconds, and one more for each so many bytes that have come."""
DRAIN_S: Final = 10.0
DRAIN_BYTES: Final = 64 * 1024 * 1024
"""What of a refused body is read and thrown away before the connection is closed."""
STALL_S: Final = 60.0
STALL_BYTES: Final = 16 * 1024
"""An answer of which the peer takes fewer bytes in that time is given up."""

_SPEAKER_LIMIT: Final = 2

STATE_KEY: Final = "connection"
"""Where a request's scope has its connection, in ``state``."""

_TIMEOUT: Final = b"\r\n".join(
    (
        b"HTTP/1.1 408 Request Timeout",
        b"connection: close",
        b"content-type: application/json",
        b"content-length: %d",
        b"",
        b"%s",
    )
)


class Phase(enum.Enum):
    """Who is waited for: only ANSWERING is ours."""

    OPENING = "the head of a request"
    IDLE = "another request"
    RECEIVING = "the body of a request"
    DRAINING = "the rest of what was refused"
    ANSWERING = "an answer"


class Connection(_Parsing):
    """One of uvicorn's protocols, watched (``parsers.py`` has one class for each parser).

    ``is_sender``: exports came over it and were taken.
    """

    def __init__(
        self, config: Config, server_state: ServerState, peer: str, on_lost: Callable[[Connection], None]
    ) -> None:
        super().__init__(config, server_state, {STATE_KEY: self})
        self.logger = few_lines("openhands_otel.collector.http")
        self.peer = peer
        self.is_mine = False
        """Whether a process of this user is at the other end, or root's."""
        self.is_sender = False
        self.speakers: set[str] = set()
        """Processes whose points came over it; more than two are as good as many."""
        self.closed_here = False
        """Whether it was us who ended it."""
        self.since = time.monotonic()
        """When the phase began, for those phases that end by the clock."""
        self._on_lost = on_lost
        self._door: _Door | None = None
        self._was_cut = False
        self._begun = True
        """Whether something of a request is here, or the connection is new."""
        self._known_cycle: object = None
        self._received = 0
        self._waited_s = 0.0
        self._looked_at = self.since
        self._taken: tuple[float, int] | None = None
        """Since when an answer waits for its peer to take it, and how much waited then."""

    @property
    def phase(self) -> Phase:
        if self._door is not None and self._door.lingering:
            return Phase.DRAINING
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            return Phase.RECEIVING if cycle.more_body else Phase.ANSWERING
        if self.is_sending_body:
            return Phase.DRAINING
        return Phase.OPENING if self._begun else Phase.IDLE

    @property
    def is_sending_body(self) -> bool:
        """Whether of the request that was read last the end is not here."""
        raise NotImplementedError

    @property
    def is_broken(self) -> bool:
        """Whether its peer said what is no request."""
        raise NotImplementedError

    @property
    def has_begun_another(self) -> bool:
        """Whether something of a further request is here."""
        raise NotImplementedError

    @property
    def has_unread_body(self) -> bool:
        """Whether the peer is still sending the body of the request that is being answered."""
        return self.phase in {Phase.RECEIVING, Phase.DRAINING}

    @property
    def stalled(self) -> bool:
        """Whether an answer waits for its peer."""
        return self._taken is not None

    def spoke(self, processes: Iterable[str]) -> list[str]:
        """Points of these processes came over it; returns those that are new."""
        fresh = [process for process in processes if process not in self.speakers][:_SPEAKER_LIMIT]
        if len(self.speakers) + len(fresh) > _SPEAKER_LIMIT:
            fresh = []
        self.speakers.update(fresh)
        return fresh

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door = _Door(cast(asyncio.Transport, transport), self)
        super().connection_made(self._door)
        if self._was_cut:
            self._door.cut()

    def data_received(self, data: bytes) -> None:
        door = self._door
        if door is not None and door.lingering:
            self._received += len(data)
            if self._received > DRAIN_BYTES:
                self.cut()
            return
        if self.phase is Phase.IDLE:
            self._begun = True
            self.since = time.monotonic()
        self._received += len(data)
        super().data_received(data)
        self._note_request(len(data))

    def on_response_complete(self) -> None:
        self._begun = self.has_begun_another
        self.since = time.monotonic()
        super().on_response_complete()
        self._note_request(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._taken = None
        super().connection_lost(exc)
        self._on_lost(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._door is not None:
            self._taken = (time.monotonic(), self._door.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken = None

    def _note_request(self, size: int) -> None:
        if self.cycle is not self._known_cycle:
            self._known_cycle = self.cycle
            self.since = time.monotonic()
            self._received = size
            self._waited_s = 0.0

    def look(self, now: float) -> bool:
        """Called every second or so: end what takes too long; True if that was so."""
        passed, self._looked_at = now - self._looked_at, now
        phase = self.phase
        if phase is Phase.OPENING and now - self.since > HEAD_S:
            return self._expire(f"the head of a request must be here within {HEAD_S:g} seconds")
        if phase is Phase.RECEIVING and not self.flow.read_paused and not cast(Any, self.cycle).body:
            # Only the peer's own time counts, not what it waits for us.
            self._waited_s += passed
            if self._waited_s > BODY_S + self._received / BODY_BYTES_PER_S:
                return self._expire(f"the body took longer than {BODY_S:g} seconds")
        if phase is Phase.DRAINING and now - self.since > DRAIN_S:
            return self.cut()
        return self._look_at_stall(now)

    def _look_at_stall(self, now: float) -> bool:
        if self._taken is None or self._door is None:
            return False
        waits = self._door.get_write_buffer_size()
        since, waited = self._taken
        if waits <= waited - STALL_BYTES:
            self._taken = (now, waits)
        elif now - since > STALL_S:
            return self.cut()
        return False

    def _expire(self, message: str) -> bool:
        """Say why, if anything was asked, and close."""
        if self._door is None:
            return False
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.response_started:
                self._say_timeout(message)
            cycle.disconnected = True
            cycle.message_event.set()
        elif self._received:
            self._say_timeout(message)
        self._door.linger()
        return True

    def _say_timeout(self, message: str) -> None:
        assert self._door is not None
        body = f'{{"code":14,"message":"{message}"}}'.encode()
        self._door.write(_TIMEOUT % (len(body), body))

    def cut(self) -> bool:
        """Close at once, whatever is on its way; also before there is a transport."""
        self._was_cut = self.closed_here = True
        if self._door is not None:
            self._door.cut()
        return True


class _Door(asyncio.Transport):
    """The transport as uvicorn sees it: ``close`` lets a peer that is still sending have its answer first."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._transport = transport
        self._connection = connection
        self.lingering = False

    def close(self) -> None:
        if self.lingering or self._transport.is_closing():
            return
        self._connection.closed_here = True
        if self._connection.is_sending_body or self._connection.is_broken:
            self.linger()
        else:
            self._transport.close()

    def linger(self) -> None:
        """No more words from here; what still comes is thrown away until the peer has seen that."""
        if self.lingering or self._transport.is_closing():
            return
        self.lingering = self._connection.closed_here = True
        self._connection.since = time.monotonic()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def cut(self) -> None:
        self._transport.abort()

    def abort(self) -> None:
        self._connection.cut()

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.lingering:
            self._transport.write(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()
