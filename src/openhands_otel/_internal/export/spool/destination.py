"""The destination of a spool: protocol, host, port and path, and never a credential."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from openhands_otel._internal.host.network import PORTS, address_of, is_this_machine

GRPC = "grpc"
LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class Destination:
    """``scheme`` is that of the connection, for gRPC too; all names of this very machine are ``localhost``."""

    protocol: str
    scheme: str
    host: str
    port: int
    path: str = ""
    signal: str = "metrics"

    @classmethod
    def of(cls, protocol: str, endpoint: str, insecure: bool) -> Self:
        """Of a URL (HTTP) or a target (gRPC), as ``export/otlp_config.py`` has them. Raises ValueError."""
        scheme = "http" if insecure else "https"
        if protocol == GRPC:
            bare = endpoint.rpartition("@")[2]
            if "://" not in bare and ":/" in bare:
                # unix:/path and the like, which has no host.
                return cls(protocol, scheme, bare.partition("?")[0], 0)
            parts = urlsplit(bare if "://" in bare else f"//{bare}")
            host, port, path = parts.hostname or parts.path.strip("/"), parts.port or 0, ""
            return cls(protocol, scheme, canonical_host(host), port, path)
        parts = urlsplit(endpoint)
        port = parts.port or PORTS.get(parts.scheme.lower(), 0)
        return cls(protocol, scheme, canonical_host(parts.hostname or ""), port, parts.path.rstrip("/"))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Read what ``record`` made. Raises ValueError, TypeError or KeyError where something else made it."""
        texts = [record[name] for name in ("protocol", "scheme", "host", "path", "signal")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(record["port"], int):
            raise ValueError("a destination that is none")
        protocol, scheme, host, path, signal = texts
        return cls(protocol, scheme, host, record["port"], path, signal)

    def record(self) -> dict[str, Any]:
        """As it stands in a file."""
        return asdict(self)

    @property
    def endpoint(self) -> str:
        """As a transport wants it."""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        address = f"{host}:{self.port}" if self.port else host
        return address if self.protocol == GRPC else f"{self.scheme}://{address}{self.path}"

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.endpoint} (gRPC)" if self.protocol == GRPC else self.endpoint


def canonical_host(name: str) -> str:
    """One name for a host however it is spelled, and one for all that mean this machine."""
    name = name.strip("[]").rstrip(".").lower()
    return LOCALHOST if is_this_machine(name) else str(address_of(name) or name)
