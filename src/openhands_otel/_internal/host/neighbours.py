"""Tells which user owns a connection on this machine: the kernel knows whose socket is at the other end.

Linux tells by netlink (one exact question) or, where that is closed, in ``/proc/net/tcp``. Elsewhere nobody tells
without rights that we do not have, and the answer is None: not known. So is a socket that its process has let go of,
which the kernel shows as root's.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from openhands_otel._internal.host.network import address_of, is_this_machine

Address = tuple[str, int]

_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_SOCKET_ID: Final = struct.Struct("!HH16s16s")
_ANSWER_UID: Final = struct.Struct("=II")
_ANY: Final = b"\xff" * 8
"""The cookie of a question about whatever socket it is."""
_ESTABLISHED: Final = 1
_LISTENING: Final = 10
_ALL_STATES: Final = 0xFFFFFFFF
_TIMEOUT_S: Final = 0.5


def is_mine(uid: int | None) -> bool:
    """Whether a socket's owner is this user, or root, who may read everything anyway."""
    return uid is not None and uid in {0, os.getuid(), os.geteuid()}


def owner_of_peer(here: Address, there: Address) -> int | None:
    """The user at the other end (``there``) of a connection between two addresses of this machine."""
    return _owner(there, here, _ESTABLISHED)


def owner_of_listener(host: str, port: int) -> int | None:
    """Whose process accepts connections to an address of this machine; None too if none does."""
    nobody = "::" if ":" in host else "0.0.0.0"
    return _owner((host, port), (nobody, 0), _LISTENING)


def is_connected(here: Address, there: Address) -> bool | None:
    """Whether a connection of ours still has its other end, wherever that is; None if it cannot be told."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, ValueError):
        found = _ask(here, there)
        return found is not None and found[0] == _ESTABLISHED
    return None


def _owner(local: Address, remote: Address, state: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        found = _ask(local, remote)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            return _owner_in_proc(local, remote, state)
        return None
    if found is None:
        # A listener for all addresses of both families is only known under IPv6.
        with suppress(OSError, ValueError):
            return _owner_in_proc(local, remote, state) if state == _LISTENING else None
        return None
    found_state, uid, inode = found
    return uid if found_state == state and inode else None


def _ask(local: Address, remote: Address) -> tuple[int, int, int] | None:
    """State, owner and inode of the socket with these addresses, None if there is none."""
    family, source, target = _packed(local[0], remote[0])
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    body += _SOCKET_ID.pack(local[1], remote[1], source, target) + struct.pack("=I", 0) + _ANY
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as link:
        link.settimeout(_TIMEOUT_S)
        link.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body)
        answer = link.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _BY_FAMILY:
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if number == 2:
            return None
        raise OSError(number, os.strerror(number))
    uid, inode = _ANSWER_UID.unpack_from(answer, _HEADER.size + 4 + 48 + 12)
    return answer[_HEADER.size + 1], uid, inode


def _packed(*hosts: str) -> tuple[int, bytes, bytes]:
    addresses = [_address(host) for host in hosts]
    family = socket.AF_INET6 if any(address.version == 6 for address in addresses) else socket.AF_INET
    source, target = (address.packed.ljust(16, b"\0") for address in addresses)
    return family, source, target


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = address_of("127.0.0.1" if host == "localhost" else host)
    if address is None:
        raise ValueError(host)
    return address


def _owner_in_proc(local: Address, remote: Address, state: int) -> int | None:
    wanted = (_address(local[0]), local[1])
    other = (_address(remote[0]), remote[1])
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            words = line.split()
            if int(words[3], 16) != state or words[9] == "0":
                continue
            here = _read(words[1])
            everywhere = state == _LISTENING and here[0].is_unspecified and here[1] == wanted[1]
            if everywhere or (here == wanted and (state == _LISTENING or _read(words[2]) == other)):
                return int(words[7])
    return None


def _read(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """An address as /proc writes it: words of 32 bits, each in this machine's own order."""
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    return _address(str(ipaddress.ip_address(b"".join(words)))), int(port, 16)


@cache
def tells_owners() -> bool:
    """Whether the kernel tells whose a socket is; tried with one of our own."""
    with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as listener:
        return owner_of_listener(*listener.getsockname()) is not None
    return False


def stranger_at(host: str, port: int) -> str | None:
    """In words, if another user's process listens at an address of this machine."""
    owner = owner_of_listener(host, port) if is_this_machine(host) else None
    if owner is None or is_mine(owner):
        return None
    return f"another user's process (uid {owner}) listens at {host}:{port}"
