"""Reads proxies and certificates from the environment, in one place for everything that sends or asks.

Proxies are honoured as everywhere (``HTTPS_PROXY``, ``NO_PROXY`` ...), except on the way to this machine itself.
``~/.netrc`` never is: it would put its password where our token belongs. A certificate that was named for us wins over
the bundles that are named for everybody.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import ssl

BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name certificates for whatever speaks HTTP."""

VIEWER_URL: Final = "http://127.0.0.1:4318"
"""Where a viewer of this machine listens unless it was told otherwise."""
PORTS: Final = {"http": 80, "https": 443}
"""Of a URL that names none."""
_DEPTH: Final = 12
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def without_secrets(url: str) -> str:
    """The URL as others may see it: user, password and query may hold keys."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_this_machine(host: str) -> bool:
    """Whether ``host`` is a name or an address of loopback (or of no interface, which leads there too)."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = address_of(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def proxy_for(url: str, first: str | None = None) -> str | None:
    """URL of the proxy that leads to ``url``, or None. ``first`` is whose variable wins: that of ``grpc``, say."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host):
        return None
    # Imported where it is needed, as is ssl: whoever asks this machine needs neither, and does so for each prompt.
    from urllib.request import getproxies, proxy_bypass

    known = getproxies()
    proxy = known.get(first or "") or known.get(parts.scheme) or known.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]) or proxy_bypass(host):
        return None
    if _is_in_networks(host, known.get("no") or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def bundle_for_everybody() -> tuple[str, str] | None:
    """(variable, file or directory) of certificates that others than us are told to trust."""
    return next(((name, os.environ[name]) for name in BUNDLES if os.environ.get(name, "").strip()), None)


def tls_context(certificate: str | None, speaks_tls: bool = True) -> ssl.SSLContext:
    """Trusts what everybody does, and ``certificate``: a file, or a directory of such. Where no TLS is spoken nothing
    is read, and nobody trusted."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not speaks_tls:
        return context
    import certifi

    everybody = bundle_for_everybody()
    for trusted in filter(None, (certifi.where() if everybody is None else everybody[1], certificate)):
        if os.path.isdir(trusted):
            context.load_verify_locations(capath=trusted)
        else:
            context.load_verify_locations(cafile=trusted)
    return context


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, in arguments or as a cause, outermost first."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _DEPTH:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


def address_of(host: str) -> _IPAddress | None:
    """What ``host`` is as an address, an IPv4 one where it is mapped into IPv6; None if it is a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
    except ValueError:
        pass
    # What connects as an address without looking like one: 127.1, 0x7f000001.
    if host[:1].isdigit():
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            pass
    return None


def _is_in_networks(host: str, no_proxy: str) -> bool:
    """Python's own reading of NO_PROXY knows names only; networks such as 10.0.0.0/8 are common in it."""
    address = address_of(host)
    if address is None:
        return False
    for entry in no_proxy.replace(",", " ").split():
        if "/" not in entry:
            continue
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            continue
        if address.version == network.version and address in network:
            return True
    return False
