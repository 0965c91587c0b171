"""The agent server's API for extensions of Canvas: what is installed, and putting ours in and out."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Any, Final, Self, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from openhands_otel._internal.canvas.backend import START_S
from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import proxy_for, tls_context, without_secrets
from openhands_otel._internal.terminal_text import printable

AGENT_SERVER_URL: Final = "http://127.0.0.1:8000"
"""Where Canvas listens; it hands the API on to its agent server."""
_KEY_HEADER: Final = "X-Session-API-Key"
_EXTENSIONS: Final = "/api/canvas-extensions"
_TIMEOUT_S: Final = 60.0
_START_S: Final = START_S + 30.0
"""The server answers when what it starts is ready."""
_SAID: Final = 200
"""Characters of what a server says, at most."""


class AgentServerError(Exception):
    """What the server did not do, and what to do about it, in one line."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An extension as a server has it."""

    version: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class BackendState:
    """What a server says of an extension's program: ``stopped``, ``starting``, ``ready`` or ``unhealthy``, and why."""

    state: str
    revision: str
    why: str


class AgentServer:
    """One agent server, as Canvas shows it to a browser."""

    def __init__(self, url: str, key: str | None, key_source: str) -> None:
        """Say where it is: http or https, with a host. ``key_source`` names what the key was read from.

        Raises AgentServerError where ``url`` is none, or where another user's process listens there.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", None
        self.shown = printable(without_secrets(url), _SAID)
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
            raise AgentServerError(
                f"{self.shown} is no address of Agent Canvas: it should look like {AGENT_SERVER_URL}"
            )
        stranger = stranger_at(host, port or (443 if parts.scheme == "https" else 80))
        if stranger is not None and key is not None:
            raise AgentServerError(f"{stranger}: it is not shown the key of your agent server")
        self.url = url.rstrip("/")
        self._key, self._key_source = key, key_source
        proxy = proxy_for(url)
        self._opener = build_opener(
            ProxyHandler({} if proxy is None else {parts.scheme: proxy}),
            *([HTTPSHandler(context=tls_context(None))] if parts.scheme == "https" else []),
        )
        self.version = ""

    def greet(self) -> Self:
        """Find out whether it is an agent server, and which. Raises AgentServerError."""
        code, answer = self._ask("GET", "/server_info")
        version = answer.get("version") if code == 200 else None
        if not isinstance(version, str):
            raise AgentServerError(f"what answers at {self.shown} is no agent server of OpenHands: name Canvas' URL")
        self.version = printable(version, 40)
        return self

    def installed(self, name: str) -> Installed | None:
        """The extension of that name; None if there is none. Raises AgentServerError."""
        found = self._done(*self._ask("GET", f"{_EXTENSIONS}/installed"))
        extensions = cast(list[dict[str, Any]], found.get("canvas_extensions", []))
        for extension in extensions:
            if extension.get("name") == name:
                return Installed(printable(str(extension.get("version", "")), 40), extension.get("enabled") is True)
        return None

    def install(self, name: str, source: str) -> bool:
        """Put in what stands in ``source``, a folder or an address as the server reads it, in the place of ``name``.

        Returns whether it took the place of what was there. Raises AgentServerError.
        """
        code, answer = self._ask("POST", f"{_EXTENSIONS}/install", {"source": source})
        replaced = code == 409
        if replaced:
            if self.backend(name) is not None:
                self._done(*self._ask("POST", f"{_EXTENSIONS}/installed/{name}/backend/stop"))
            code, answer = self._ask("POST", f"{_EXTENSIONS}/install", {"source": source, "force": True})
        if code == 400:
            hint = "if it runs elsewhere, 'canvas write' a folder there and name it with --source"
            raise AgentServerError(f"the agent server at {self.shown} cannot read {printable(source, _SAID)}: {hint}")
        self._done(code, answer)
        return replaced

    def backend(self, name: str) -> BackendState | None:
        """How its program does; None where it has none, or the server starts none. Raises AgentServerError."""
        code, answer = self._ask("GET", f"{_EXTENSIONS}/installed/{name}/backend")
        if code in (404, 405):
            return None
        return self._backend_in(self._done(code, answer), name)

    def start_backend(self, name: str, revision: str) -> BackendState | None:
        """Have the server start its program, and wait until that is ready or has failed. Raises AgentServerError."""
        path = f"{_EXTENSIONS}/installed/{name}/backend"
        self._done(*self._ask("POST", f"{path}/prepare", {"revision": revision}))
        return self._backend_in(self._done(*self._ask("POST", f"{path}/start", {"revision": revision}, _START_S)), name)

    def _backend_in(self, answer: dict[str, Any], name: str) -> BackendState | None:
        state = str(answer.get("state", ""))
        if state in ("missing", "unsupported"):
            return None
        why = printable(str(answer.get("detail") or ""), _SAID)
        if state == "unhealthy":
            logs = self._done(*self._ask("GET", f"{_EXTENSIONS}/installed/{name}/backend/logs")).get("logs", "")
            lines = [line for line in str(logs).splitlines() if line.strip()]
            why = printable(lines[-1].removeprefix("[stderr] ").removeprefix("[stdout] "), _SAID) if lines else why
        return BackendState(state, str(answer.get("revision", "")), why)

    def enable(self, name: str) -> None:
        """Let Canvas load it. Raises AgentServerError."""
        self._done(*self._ask("PATCH", f"{_EXTENSIONS}/installed/{name}", {"enabled": True}))

    def uninstall(self, name: str) -> None:
        """Take it out. Raises AgentServerError."""
        self._done(*self._ask("DELETE", f"{_EXTENSIONS}/installed/{name}"))

    def _done(self, code: int, answer: dict[str, Any]) -> dict[str, Any]:
        if code == 200:
            return answer
        if code in (401, 403):
            wrong = (
                f"does not take the key of {self._key_source}" if self._key else f"asks for a key: {self._key_source}"
            )
            raise AgentServerError(f"the agent server at {self.shown} {wrong}: name the file with --key-file")
        if code in (404, 405):
            raise AgentServerError(
                f"the agent server at {self.shown} is too old for pages in Canvas ({self.version}): 1.49.1 has them"
            )
        said = printable(str(answer.get("detail", "")), _SAID) or "no reason"
        raise AgentServerError(f"the agent server at {self.shown} refused it ({code}): {said}")

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = _TIMEOUT_S
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer, an empty one where it is no JSON object."""
        headers = {"accept": "application/json", **({_KEY_HEADER: self._key} if self._key else {})}
        if body is not None:
            headers["content-type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._opener.open(Request(self.url + path, data, headers, method=method), timeout=timeout) as done:
                return done.status, _object(done.read())
        except HTTPError as error:
            with error:
                return error.code, _object(error.read())
        except (OSError, ValueError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            why = cause.reason if isinstance(cause, ssl.SSLError) else getattr(cause, "strerror", None)
            reason = printable(str(why or type(error).__name__), _SAID)
            raise AgentServerError(
                f"no agent server answers at {self.shown} ({reason}): start Agent Canvas, or name its URL"
            ) from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except ValueError:
        return {}
    return cast(dict[str, Any], read) if isinstance(read, dict) else {}
