"""Ids of traces and spans in JSON: OTLP writes them in hex, where JSON of protobuf has base64 for bytes."""

from __future__ import annotations

from base64 import b64decode, b64encode


def from_hex(text: str) -> str:
    """An id of OTLP as protobuf reads it. Raises TypeError or ValueError where it is none."""
    return b64encode(bytes.fromhex(text)).decode()


def to_hex(text: str) -> str:
    """An id as protobuf writes it, in the way of OTLP."""
    return b64decode(text).hex()
