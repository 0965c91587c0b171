"""The embedded collector as one thing to start and stop: OTLP in, API, event stream and page out.

``Collector`` runs in the caller's event loop; ``openhands-otel view`` is the same as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.access import Token
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.collector.housekeeping import Housekeeping
from openhands_otel._internal.collector.notices.rounds import Notices, Wishes
from openhands_otel._internal.collector.notices.targets import Target, TargetError, targets_of
from openhands_otel._internal.collector.receive.auth import Gate, is_loopback, login_route
from openhands_otel._internal.collector.receive.connection import Connection
from openhands_otel._internal.collector.receive.connections import Connections, connection_limit
from openhands_otel._internal.collector.receive.grpc_receiver import GrpcReceiver, PortInUse
from openhands_otel._internal.collector.receive.http_receiver import doors
from openhands_otel._internal.collector.receive.origins import Readers
from openhands_otel._internal.collector.receive.parsers import connection_class
from openhands_otel._internal.collector.receive.public_url import PublicUrl
from openhands_otel._internal.collector.receive.receiver import Receiver
from openhands_otel._internal.collector.receive.span_intake import SPANS_PART, SpanIntake
from openhands_otel._internal.collector.receive.tls import Tls, TlsError
from openhands_otel._internal.collector.serve.api import Api
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.collector.supervision import keep_running
from openhands_otel._internal.host.named_tokens import NamedTokens, TokensError
from openhands_otel._internal.host.state_folder import own_token
from openhands_otel._internal.host.token_file import TokenError, checked_token, read_token
from openhands_otel._internal.log import logger
from openhands_otel._internal.spend.budgets import read_limits
from openhands_otel._internal.spend.quiet_hours import QuietHours
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel._internal.viewer import routes as page_routes
from openhands_otel.semconv import NoticeKind
from openhands_otel.settings import ViewerSettings

HTTP: Final = "OTLP/HTTP"
LIVENESS: Final = "liveness"
"""Parts whose health is told."""
_START_TIMEOUT_S: Final = 10.0
_STOP_GRACE_S: Final = 1
_KEEP_ALIVE_S: Final = 120
"""Longer than the senders' heartbeat, so that an idle connection is not closed under the next update."""
_LOOK_EVERY_S: Final = 0.5
_BACKLOG: Final = 1_024


class StartError(Exception):
    """The collector cannot start; the message is one line that says why and what to do."""


class Collector:
    """Receiver, store, API and page. ``settings.database`` None keeps everything in memory."""

    def __init__(self, settings: ViewerSettings) -> None:
        self.settings = settings
        self.store: Store | None = None
        self.secret: str | None = None
        """The token that it asks for, when it is started."""
        self.http_port = 0
        self.grpc_port = 0
        self.login_code = ""
        """Logs the page in, once."""
        self._tls: Tls | None = None
        self._grpc: GrpcReceiver | None = None
        self._housekeeping: Housekeeping | None = None
        self._notices: Notices | None = None
        self._limits = read_limits(settings.budgets or "")
        self._archive: Archive | None = None
        self._server: _Server | None = None
        self._connections: Connections | None = None
        self._watching: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._spans: SpanIntake | None = None
        self._keeping_spans: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the page, the API and OTLP/HTTP are."""
        scheme = "http" if self.settings.tls_cert_file is None else "https"
        return f"{scheme}://{_in_url(self.settings.host)}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"{_in_url(self.settings.host)}:{self.grpc_port}"

    async def start(self) -> None:
        """Open everything; raises StartError, and then nothing stays open."""
        targets = self._targets()
        self._tls = self._read_certificate()
        token = self._token()
        listeners = [_listen(self.settings.host, self.settings.port)]
        try:
            self.http_port = listeners[0].getsockname()[1]
            if self.settings.also_port is not None:
                listeners.append(_listen("127.0.0.1", self.settings.also_port, "--also-port"))
            self.store = await self._open_store()
            self._spans = SpanIntake(self.store, self.settings.span_days * 86_400, self.settings.span_mb * 1_000_000)
            receiver = Receiver(self.store, self._spans)
            await self._take_again(receiver)
            keeping = keep_running(self.store.health, SPANS_PART, self._spans.run)
            self._keeping_spans = asyncio.create_task(keeping)
            self._grpc = self._open_grpc(receiver, token)
            await self._grpc.start()
            await self._serve(listeners, receiver, token)
        except BaseException:
            for listener in listeners:
                listener.close()
            await self.stop()
            raise
        self._housekeeping = Housekeeping(
            self.store,
            self.settings.conversation_limit,
            self.settings.retention_days * 86_400,
            self.settings.spend_days * 86_400,
        )
        self._housekeeping.start()
        self._notices = Notices(self.store, targets, self._wishes())
        self._notices.start()

    async def stop(self) -> None:
        """Close everything; what was received is saved. A step that fails is logged, and the next are made."""
        if self.store is not None:
            self.store.broker.close()
        if self._spans is not None:
            self._spans.stop()
        await _step("the web server", self._stop_serving())
        if self._grpc is not None:
            await _step("OTLP/gRPC", self._grpc.stop())
        if self._keeping_spans is not None:
            await _step("the spans", self._stop_keeping_spans(self._keeping_spans))
        if self._notices is not None:
            await _step("the notices", self._notices.stop())
        if self._housekeeping is not None:
            await _step("the history", self._housekeeping.stop())
        if self._archive is not None:
            await _step("the database", self._archive.close())
        self._server = self._serving = self._connections = self._grpc = None
        self._housekeeping = self._notices = self._archive = None

    async def _stop_keeping_spans(self, keeping: asyncio.Task[None]) -> None:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        self._keeping_spans = None

    async def _stop_serving(self) -> None:
        if self._watching is not None:
            # Before anything is closed: what ends now is no death of a sender's.
            self._watching.cancel()
        if self._connections is not None:
            await self._connections.stop()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving], timeout=_STOP_GRACE_S + 2)
        if self._connections is not None:
            self._connections.cut_all()

    async def _open_store(self) -> Store:
        self._archive = Archive(self.settings.database)
        try:
            held = await self._archive.open()
        except UnusableDatabase as error:
            raise StartError(str(error)) from None
        store = Store(self._archive)
        store.conversations.zone = zone_of(self.settings.timezone)
        store.restore(held)
        return store

    async def _take_again(self, receiver: Receiver) -> None:
        try:
            await receiver.take_again()
        except (Unavailable, OSError) as error:
            raise StartError(f"what an earlier run took cannot be taken again ({error}): start it once more") from None

    def _open_grpc(self, receiver: Receiver, token: Token) -> GrpcReceiver:
        try:
            grpc_receiver = GrpcReceiver(receiver, token, self.settings.host, self.settings.grpc_port, self._tls)
        except PortInUse:
            port = self.settings.grpc_port
            raise StartError(f"port {port} (OTLP/gRPC) is in use: stop what holds it or choose --grpc-port") from None
        self.grpc_port = grpc_receiver.port
        return grpc_receiver

    async def _serve(self, listeners: list[socket.socket], receiver: Receiver, token: Token) -> None:
        assert self.store is not None
        self.login_code = token.login_code() if token.of_strangers else ""
        otlp = doors(receiver)
        app = Starlette(
            routes=[
                login_route(token),
                *(Route(path, door, methods=["POST"]) for path, door in otlp.items()),
                *Api(self.store, self.settings.timezone, self.settings.trace_url, self._limits).routes(),
                *page_routes(),
            ]
        )
        config = uvicorn.Config(
            Gate(
                app,
                token,
                self.settings.host,
                PublicUrl.parse(self.settings.public_url),
                Readers(self.settings.origins),
                otlp,
            ),
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_GRACE_S,
        )
        self._server = _Server(config)
        # The server is given no socket to accept from: who may come in is decided before it sees anybody.
        server, health = self._server, self.store.health
        self._serving = asyncio.create_task(
            keep_running(health, HTTP, lambda: server.serve(sockets=[]), lambda: server.should_exit)
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not server.started:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise StartError(f"the web server did not start: {health.reason(HTTP) or 'it hangs'}") from None
        state, fleet, connection = self._server.server_state, self.store.fleet, connection_class()

        def make(peer: str, lost: Callable[[Connection], None]) -> Connection:
            return connection(config, state, peer, lost)

        def ended(connection: Connection) -> None:
            fleet.lives.disconnected(connection.speakers, broke=not connection.closed_here)

        self._connections = Connections(listeners, make, ended, health, connection_limit()[0], self._tls)
        self._connections.start()
        self._watching = asyncio.create_task(keep_running(health, LIVENESS, partial(_watch, self.store)))

    def _targets(self) -> list[Target]:
        try:
            return targets_of(self.settings)
        except TargetError as error:
            raise StartError(str(error)) from None

    def _wishes(self) -> Wishes:
        settings = self.settings
        return Wishes(
            limits=self._limits,
            zone=zone_of(settings.timezone),
            burning_usd=settings.burning_usd,
            kinds=frozenset(NoticeKind) if settings.notices is None else settings.notices,
            quiet=None if settings.quiet is None else QuietHours.parse(settings.quiet),
        )

    def _read_certificate(self) -> Tls | None:
        certificate, key = self.settings.tls_cert_file, self.settings.tls_key_file
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            missing = "--tls-cert" if certificate is None else "--tls-key"
            raise StartError(f"TLS needs a certificate and its key: {missing} is missing")
        try:
            return Tls(certificate, key)
        except TlsError as error:
            raise StartError(str(error)) from None

    def _token(self) -> Token:
        given = None if self.settings.token is None else self.settings.token.get_secret_value()
        try:
            secret = checked_token(given) if given else None
            if secret is None and self.settings.token_file is not None:
                secret = read_token(self.settings.token_file)
            named = NamedTokens(self.settings.tokens_file)
        except (TokenError, TokensError) as error:
            raise StartError(str(error)) from None
        public = self.settings.public_url is not None
        here_alone = is_loopback(self.settings.host) and not public
        if secret is None and not named and not here_alone:
            where = (
                "a reverse proxy shows it to others" if public else f"{self.settings.host} is open to other machines"
            )
            raise StartError(
                f"{where}, so a token is needed: 'openhands-otel token add NAME --send --look' makes one by name,"
                " or name a file that holds one with --token-file"
            )
        if secret is not None or (self.settings.trust_machine and here_alone):
            self.secret = secret
            return Token(secret, named=named)
        # On loopback this user's own processes need none, where the system tells whose they are.
        self.secret = own_token(create=True)
        return Token(self.secret, of_strangers=here_alone, named=named)


async def _watch(store: Store) -> None:
    """Notice who is dead or silent, soon."""
    looked = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = time.monotonic()
        store.fleet.lives.tick(now - looked)
        looked = now
        await store.health.guard(LIVENESS, _look(store))


async def _look(store: Store) -> None:
    store.look_at_lives()


async def _step(what: str, closing: Awaitable[None]) -> None:
    try:
        await closing
    except Exception as error:
        logger.error("%s could not be closed as it should: %s", what, error, exc_info=error)


class _Server(uvicorn.Server):
    """Leaves the signals to whoever owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _listen(host: str, port: int, option: str = "--port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, because asyncio switches Nagle's delay (40 ms an answer) off only for sockets that say so.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except PermissionError:
        listener.close()
        raise StartError(f"port {port} needs more rights than this user has: choose another with {option}") from None
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} is in use: stop what holds it or choose another with {option}") from None
        raise StartError(f"{host}:{port} cannot be listened on: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
