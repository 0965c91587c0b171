"""Bodies as they were before their sender compressed them; never more of one in memory than the limit.

What the OpenTelemetry Collector's own HTTP receiver takes is taken here: gzip of any number of members, deflate with
and without zlib's envelope, zstd of any number of frames.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

try:
    import zstandard
except ImportError:
    # Where only pure Python was taken along: zstd is refused there as any other unknown coding.
    zstandard = None

from openhands_otel._internal.collector.points.decode import DECODED_LIMIT, MalformedRequest, TooLarge

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor

IDENTITY: Final = "identity"
_ALIASES: Final = {"x-gzip": "gzip"}
_ZSTD_WINDOW_LIMIT: Final = 32 * 1024 * 1024
_ZEROS: Final = re.compile(rb"\0*")
_GZIP_SLICE: Final = 64 * 1024
_PART_LIMIT: Final = 10_000
"""Members or frames of one body: each costs its beginning, whatever it holds."""
_ZSTD_SLICE: Final = 256
"""Bytes given to zstd at a time: it takes no limit for what comes out, and four bytes may stand for 128 KiB."""


class UnknownEncoding(ValueError):
    """The content encoding is none of ours; the message is one line for the sender."""


def coding_of(header: str) -> str:
    """The one coding that a Content-Encoding header names; raises UnknownEncoding."""
    named = [part.strip().lower() for part in header.split(",")]
    codings = [_ALIASES.get(name, name) for name in named if name not in {"", IDENTITY}]
    if not codings:
        return IDENTITY
    if len(codings) > 1:
        raise UnknownEncoding("the body is compressed more than once: only one content encoding is taken")
    if codings[0] not in _INFLATERS:
        known = ", ".join((*_INFLATERS, IDENTITY))
        # A stranger's word: shown only if it is one.
        shown = codings[0][:40] if re.fullmatch(r"[\w.-]+", codings[0], re.ASCII) else "that"
        raise UnknownEncoding(f"the content encoding must be one of {known}, not {shown}")
    return codings[0]


def decompress(body: bytes, coding: str) -> bytes:
    """Undo ``coding`` (what ``coding_of`` returned); raises MalformedRequest and TooLarge."""
    if coding == IDENTITY:
        return body
    if coding not in _INFLATERS:
        # Of the journal: a package that an earlier run had is gone.
        raise MalformedRequest(f"nothing here undoes {coding}")
    return _INFLATERS[coding](body)


def _gunzip(body: bytes) -> bytes:
    return _inflate(body, _gzip_member, _GZIP_SLICE, "gzip")


def _undeflate(body: bytes) -> bytes:
    # RFC 9110 means zlib's format by deflate, and some senders the bare one.
    for wbits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(wbits=wbits)
        try:
            plain = inflater.decompress(body, DECODED_LIMIT + 1)
        except zlib.error:
            continue
        if len(plain) > DECODED_LIMIT:
            raise _too_large()
        if not inflater.eof:
            raise MalformedRequest("the deflate body ends too early")
        if inflater.unused_data:
            raise MalformedRequest("the deflate body goes on behind its end")
        return plain
    raise MalformedRequest("the body is not deflate")


def _unzstd(body: bytes) -> bytes:
    assert zstandard is not None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_LIMIT)
    return _inflate(body, lambda: _ZstdFrame(decompressor), _ZSTD_SLICE, "zstd", zstandard.ZstdError)


class _Part(Protocol):
    """A gzip member or a zstd frame, from its first byte on."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gzip_member() -> _Part:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


class _ZstdFrame:
    def __init__(self, decompressor: ZstdDecompressor) -> None:
        self._frame = decompressor.decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        # A slice is so small that what comes out needs no limit.
        return self._frame.decompress(data)


def _inflate(
    body: bytes, begin: Callable[[], _Part], slice_size: int, name: str, broken: type[Exception] = zlib.error
) -> bytes:
    """One part after the other. In slices: a part copies all that it was given and did not need."""
    pieces: list[bytes] = []
    size = at = parts = 0
    part: _Part | None = None
    try:
        while at < len(body):
            if part is None:
                parts += 1
                part = begin()
            given = body[at : at + slice_size]
            pieces.append(part.decompress(given, DECODED_LIMIT + 1 - size))
            size += len(pieces[-1])
            at += len(given) - len(part.unused_data)
            if size > DECODED_LIMIT:
                raise _too_large()
            if part.eof:
                part = None
                # As tape drives wrote them, and Python's own gzip reads them; no part begins with a zero.
                padding = _ZEROS.match(body, at)
                at = at if padding is None else padding.end()
                if parts >= _PART_LIMIT and at < len(body):
                    raise MalformedRequest(f"the {name} body has more than {_PART_LIMIT} parts")
    except broken as error:
        raise MalformedRequest(f"the body is not {name}: {' '.join(str(error).split())[:200]}") from None
    if part is not None or not parts:
        raise MalformedRequest(f"the {name} body ends too early")
    return b"".join(pieces)


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {DECODED_LIMIT} bytes when decompressed")


_INFLATERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": _gunzip,
    "deflate": _undeflate,
    **({} if zstandard is None else {"zstd": _unzstd}),
}
