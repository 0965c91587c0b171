"""Who may come in: bearer token, Host header, other sites' pages, and the headers that keep a browser in its place.

On loopback there is no token by default, so the Host header is checked: a page from elsewhere whose name was rebound
to 127.0.0.1 carries its own name there. Elsewhere nothing starts without a token (see server.py). Behind a reverse
proxy everybody's connection is the proxy's, so nobody is let in there for whose process it is.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openhands_otel._internal import api_paths
from openhands_otel._internal.collector.access import VISITOR_KEY, Token, Visitor, not_for_this
from openhands_otel._internal.collector.receive.connection import STATE_KEY, Connection
from openhands_otel._internal.collector.receive.origins import NO_READERS, Readers
from openhands_otel._internal.collector.receive.public_url import NOWHERE_ELSE, PublicUrl
from openhands_otel._internal.host.named_tokens import Right
from openhands_otel._internal.viewer import ASSETS

_OPEN_PATHS: Final = frozenset({"/", api_paths.HEALTH, api_paths.LOGIN})
"""The page and its files hold no secret; it asks for the token and sends it along."""

FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a proxy says that it speaks for another."""

_LONGEST_CODE: Final = 200

_SECURITY: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_SECURITY_HEADERS: Final = [(name.encode(), value.encode()) for name, value in _SECURITY.items()]


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware in front of everything; ``doors`` answer a POST by path, ``app`` all else."""

    def __init__(
        self,
        app: ASGIApp,
        token: Token,
        host: str,
        public: PublicUrl = NOWHERE_ELSE,
        readers: Readers = NO_READERS,
        doors: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._doors = doors or {}
        self._readers = readers
        self._token = token
        self._loopback = is_loopback(host)
        self._hosts = {"localhost", host, public.host} - {""}
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        method, path = scope["method"], self._public.inner(scope["path"])

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS]
                if self._readers.origins:
                    self._readers.answer(MutableHeaders(scope=message), method, path, headers)
                if _has_unread_body(scope):
                    # Whoever was refused early may never send the rest: what follows would be taken for it.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        if self._loopback and not self._is_own_host(headers.get("host", "")):
            await _refuse(
                guarded_send,
                421,
                "this collector answers to 127.0.0.1 and localhost only;"
                " behind a reverse proxy set OPENHANDS_OTEL_VIEWER_PUBLIC_URL",
            )
            return
        if self._public.path and scope["path"] == self._public.path:
            # What the page asks for is named from its own folder on.
            await RedirectResponse(self._public.path + "/", 308)(scope, receive, guarded_send)
            return
        scope["path"], scope["raw_path"] = path, path.encode()
        if self._readers.may_ask(method, path, headers):
            await Response(status_code=204)(scope, receive, guarded_send)
            return
        if _is_open(path):
            await self._app(scope, receive, guarded_send)
            return
        grant = self._token.permits(headers.get("authorization"), _is_mine(scope, headers))
        if grant is None:
            await _refuse(guarded_send, 401, "a bearer token is needed: Authorization: Bearer TOKEN")
        elif _right_for(path) not in grant.rights or (path == api_paths.IMPORT and grant.service is not None):
            # OpenHands' own files do not say whose service they are.
            await _refuse(guarded_send, 403, not_for_this(grant))
        else:
            scope.setdefault("state", {})[VISITOR_KEY] = Visitor(grant, self._token)
            # Nearly all that comes: it needs no way through Starlette's routes.
            app = self._doors.get(path) if method == "POST" else None
            await (app or self._app)(scope, receive, guarded_send)

    def _is_own_host(self, header: str) -> bool:
        name = header.rsplit(":", 1)[0] if header.rfind(":") > header.rfind("]") else header
        return name.strip("[]").lower() in self._hosts or is_loopback(name.strip("[]"))


def _right_for(path: str) -> Right:
    return Right.SEND if path.startswith("/v1/") or path == api_paths.IMPORT else Right.LOOK


def _is_mine(scope: Scope, headers: Headers) -> bool:
    connection = scope.get("state", {}).get(STATE_KEY)
    # A proxy of this user speaks for whoever speaks to it.
    return isinstance(connection, Connection) and connection.is_mine and not any(name in headers for name in FORWARDED)


def _has_unread_body(scope: Scope) -> bool:
    connection = scope.get("state", {}).get(STATE_KEY)
    return isinstance(connection, Connection) and connection.has_unread_body


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(ASSETS)


async def _refuse(send: Send, status: int, message: str) -> None:
    # The shape of OTLP's Status in JSON: senders and viewers alike find "message" in it.
    code = 16 if status == 401 else 7
    body = json.dumps({"code": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def login_route(token: Token) -> Route:
    """Where the page turns the word in its address into the token."""

    async def login(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _LONGEST_CODE:
                break
        secret = token.login(body[:_LONGEST_CODE].decode(errors="replace").strip())
        if secret is None:
            said = "this address was used before: start the viewer again for another"
            return JSONResponse({"code": 16, "message": said}, 401)
        return JSONResponse({"token": secret}, headers={"cache-control": "no-store"})

    return Route(api_paths.LOGIN, login, methods=["POST"])
