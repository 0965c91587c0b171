"""All HTTP connections: who is let in, who must leave when there are too many, and who took too long.

There is always room for one more that speaks at once. Of too many, those go first that have said nothing whole yet,
the longest silent first; then viewers between two requests, then those that send slowly, then senders between two
exports (they come back by themselves). A request that is being answered is never cut off for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Final

from openhands_otel._internal.collector.receive.connection import HEAD_S, Connection, Phase
from openhands_otel._internal.collector.receive.lines import few_lines
from openhands_otel._internal.collector.receive.tls import Tls
from openhands_otel._internal.collector.supervision import Health, keep_running
from openhands_otel._internal.host.neighbours import is_mine, owner_of_peer

CONNECTION_LIMIT: Final = 1_024
PEER_SHARE: Final = 0.5
"""Of all connections, what one other machine may have."""
_LOOK_EVERY_S: Final = 1.0
_EVICTED_SHARE: Final = 1 / 32
_FULL_PAUSE_S: Final = 0.2
ACCEPTING: Final = "connections"
TIME_LIMITS: Final = "time limits of connections"
"""Parts whose health is told."""
_BROKEN: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
"""Of the listening socket itself: the next try would fail at once."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FULL_BODY: Final = b'{"code":14,"message":"there are too many connections: come again"}'
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)

MakeConnection = Callable[[str, Callable[[Connection], None]], Connection]
"""Makes one for a peer (an address, or nothing for this machine), and with what to call at its end."""

_log = few_lines(__name__)


class Connections:
    """Accepts from ``listeners`` until stopped."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make: MakeConnection,
        on_end: Callable[[Connection], object],
        health: Health,
        limit: int = CONNECTION_LIMIT,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._health = health
        self._listeners = listeners
        self._on_end = on_end
        self._make = make
        self._limit = limit
        self._all: set[Connection] = set()
        self._peers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        for listener in self._listeners:
            part = ACCEPTING if listener is self._listeners[0] else f"{ACCEPTING} at port {listener.getsockname()[1]}"
            self._spawn(keep_running(self._health, part, partial(self._accept, listener)))
        self._spawn(keep_running(self._health, TIME_LIMITS, self._watch))

    async def stop(self) -> None:
        """Stop to accept; connections are left to the server."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    def cut_all(self) -> None:
        for connection in list(self._all):
            connection.cut()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
                self._let_in(accepted, address[0])
            except OSError as error:
                # Of a connection that was reset before it was accepted nothing needs to be said.
                if error.errno in _BROKEN:
                    raise
                if error.errno in _OUT_OF_RESOURCES:
                    _log.warning("no connection can be accepted now: %s", error.strerror)
                    self._make_room(None)
                    await asyncio.sleep(_FULL_PAUSE_S)
            except Exception:
                _log.exception("a connection could not be accepted")

    def _let_in(self, accepted: socket.socket, address: str) -> None:
        peer = "" if _is_this_machine(address) else address
        full_of_peer = bool(peer) and self._peers[peer] >= self._limit * PEER_SHARE
        if full_of_peer or len(self._all) >= self._limit:
            _log.warning("there are too many connections: those that said least are closed (limit: %d)", self._limit)
            if not self._make_room(peer if full_of_peer else None):
                _turn_away(accepted)
                return
        accepted.setblocking(False)
        connection = self._make(peer, self._lost)
        connection.is_mine = not peer and _is_mine(accepted)
        # Counted from here on, not when its transport is ready: many may come in one turn of the loop.
        self._all.add(connection)
        self._peers[peer] += 1
        self._spawn(self._connect(accepted, connection))

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=None if self._tls is None else self._tls.context,
                ssl_handshake_timeout=None if self._tls is None else HEAD_S,
            )
        except OSError:
            # Reset before its transport was ready, or no handshake came about.
            accepted.close()
            self._lost(connection)

    def _lost(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.discard(connection)
            self._peers[connection.peer] -= 1
            if self._peers[connection.peer] <= 0:
                del self._peers[connection.peer]
            self._on_end(connection)

    def _make_room(self, peer: str | None) -> int:
        """Close those that are missed least (of one peer, or of all) and say how many they were."""
        ranked = [
            (rank, connection.since, connection)
            for connection in self._all
            if (peer is None or connection.peer == peer) and (rank := _rank(connection)) is not None
        ]
        ranked.sort(key=lambda each: each[:2])
        # Several, since to look for them takes its time.
        leaving = ranked[: max(1, int(self._limit * _EVICTED_SHARE))]
        for _, _, connection in leaving:
            connection.cut()
            # Its end is announced in the loop's next turn, and until then others come.
            self._lost(connection)
        return len(leaving)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            for connection in list(self._all):
                try:
                    if connection.look(now):
                        _log.warning("a connection that kept us waiting was closed")
                except Exception:
                    _log.exception("a connection could not be looked at")
                    connection.cut()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _rank(connection: Connection) -> int | None:
    """How much a connection would be missed, least first; None: it stays."""
    phase = connection.phase
    if phase is Phase.OPENING:
        return 0
    if phase is Phase.IDLE:
        return 3 if connection.is_sender else 1
    if phase is Phase.RECEIVING and connection.is_sender:
        return 4
    return 2 if phase is not Phase.ANSWERING or connection.stalled else None


def _is_this_machine(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _is_mine(accepted: socket.socket) -> bool:
    try:
        here, there = accepted.getsockname()[:2], accepted.getpeername()[:2]
    except OSError:
        return False
    return is_mine(owner_of_peer(here, there))


def _turn_away(accepted: socket.socket) -> None:
    with contextlib.suppress(OSError):
        accepted.setblocking(False)
        accepted.send(_FULL)
        accepted.shutdown(socket.SHUT_WR)
    accepted.close()


def connection_limit(most: int = CONNECTION_LIMIT) -> tuple[int, int]:
    """How many connections HTTP and gRPC may have, so that files can still be opened."""
    if sys.platform == "win32":
        return most, most // 2
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = max(24, soft - 64) if soft != resource.RLIM_INFINITY else 4 * most
    return min(most, free * 6 // 10), min(most // 2, free * 3 // 10)


def allow_many_files(most: int = 4 * CONNECTION_LIMIT) -> None:
    """Raise this process's own limit of open files as far as is needed, where the system lets it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
