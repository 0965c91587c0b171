"""Reads what an OTLP/HTTP receiver answered.

Any 2xx means that it took the request, whatever stands in the body: to send again what was taken counts twice where
temporality is delta. Everything else is told in words: the status, what the body says, and what to do.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, cast

from google.protobuf.message import DecodeError

from openhands_otel._internal.export.otlp_config import GENERAL, OtlpConfig
from openhands_otel._internal.export.transport import (
    DELIVERED,
    RESPONSES,
    Credentials,
    Outcome,
    rejection_in,
    told_rejection,
)
from openhands_otel._internal.host.network import without_secrets

LONGEST_RETRY_AFTER_S: Final = 3600.0
_REFUSALS: Final = frozenset({400, 413, 422})
"""Statuses that are about what was sent, not about who we are or where it went: those can be mended."""
_ANOTHER_DOOR: Final = re.compile(r"HTTP request.{1,30}HTTPS", re.IGNORECASE)
"""What Go's servers and nginx say, with status 400, to whom speaks no TLS."""
_PROTOBUF: Final = frozenset({"", "application/x-protobuf", "application/protobuf", "application/octet-stream"})
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def taken(config: OtlpConfig, credentials: Credentials, content_type: str, content: bytes) -> Outcome:
    """Outcome of a 2xx."""
    if _media_type(content_type) == "text/html":
        return Outcome(True, f"{config.shown} answers with a web page: is an OTLP receiver there?")
    if content.lstrip()[:1] == b"{":
        rejected, message = _rejection_in_json(content)
    elif _media_type(content_type) in _PROTOBUF:
        try:
            rejected, message = rejection_in(RESPONSES[config.signal].FromString(content))
        except DecodeError:
            return DELIVERED
    else:
        return DELIVERED
    return told_rejection(credentials, rejected, message)


def not_taken(
    config: OtlpConfig, credentials: Credentials, status: int, headers: Mapping[str, str], content: bytes
) -> Outcome:
    """Outcome of any other status."""
    words = [f"{config.shown} answered {status}"]
    if 300 <= status < 400 and headers.get("Location"):
        # Not followed: what is sent, and the token with it, would go to somebody that nobody named.
        there = credentials.told(without_secrets(headers["Location"]))
        words.append(f": it redirects to {there}, which is not followed; name that in {config.variable('ENDPOINT')}")
        return Outcome(False, "".join(words), retry_after(headers))
    said = credentials.told(_words_of(headers.get("Content-Type", ""), content))
    words.append(f": {said}" if said else "")
    another_door = _ANOTHER_DOOR.search(said) is not None
    words.append(f" (write https:// in {config.variable('ENDPOINT')})" if another_door else _advice(config, status))
    return Outcome(False, "".join(words), retry_after(headers), status in _REFUSALS and not another_door)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the receiver asks us to wait: a number, or a date by its own clock."""
    given = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{0,9})?", given):
        return min(float(given), LONGEST_RETRY_AFTER_S)
    until = _unix_s(given)
    if until is None:
        return None
    now = _unix_s(headers.get("Date", ""))
    return min(max(until - (time.time() if now is None else now), 0.0), LONGEST_RETRY_AFTER_S)


def _unix_s(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        # Without a zone, HTTP means Greenwich.
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _rejection_in_json(content: bytes) -> tuple[int, str]:
    """Names and numbers as Protobuf's JSON has them: camelCase or as in the schema, 64 bits as a string."""
    partial = _member(_json(content), "partialSuccess", "partial_success")
    given = _member(partial, "rejectedDataPoints", "rejected_data_points", "rejectedSpans", "rejected_spans")
    message = _member(partial, "errorMessage", "error_message")
    try:
        rejected = int(float(given)) if isinstance(given, int | float | str) else 0
    except (ValueError, OverflowError):
        # It says that something was rejected, if not how much.
        rejected = 1
    return rejected, message if isinstance(message, str) else ""


def _words_of(content_type: str, content: bytes) -> str:
    """What a body has to say to people: its message, its title or its first line."""
    if _media_type(content_type) in _PROTOBUF - {""}:
        try:
            # Frozen programs have no more of Protobuf than they use.
            from google.rpc.status_pb2 import Status

            return Status.FromString(content).message
        except (DecodeError, ImportError):
            pass
    document = _json(content)
    if document is not None:
        return _message(document)
    text = content.decode("utf-8", "replace")
    title = _TITLE.search(text)
    if title is not None:
        return title[1]
    return "" if text.lstrip().startswith("<") else next((line for line in text.splitlines() if line.strip()), "")


def _message(document: object) -> str:
    for _ in range(3):
        document = _member(document, "message", "error", "error_description", "detail", "errors")
        if isinstance(document, list):
            document = next(iter(cast(list[object], document)), None)
        if isinstance(document, str):
            return document
    return ""


def _json(content: bytes) -> object:
    if content.lstrip()[:1] not in (b"{", b'"'):
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return {"message": document} if isinstance(document, str) else document


def _member(document: object, *names: str) -> object:
    if not isinstance(document, dict):
        return None
    members = cast(dict[str, object], document)
    return next((members[name] for name in names if name in members), None)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _advice(config: OtlpConfig, status: int) -> str:
    match status:
        case 401 if config.token_file is None:
            return " (set OPENHANDS_OTEL_TOKEN_FILE, or a header in " + config.variable("HEADERS") + ")"
        case 401 | 403 if config.token_file is not None:
            return f" (the token is that of {config.token_file})"
        case 404 | 405:
            own = f"{GENERAL}{config.signal.upper()}_ENDPOINT"
            if config.variables.get("ENDPOINT") == own:
                return f" (is the path right? {own} is used as it is)"
            return f" (is the path right? /v1/{config.signal} is put behind {GENERAL}ENDPOINT)"
        case 407:
            return " (the proxy wants a user and password in its URL)"
        case _:
            return ""
