"""Reads one ``base_state.json``, whatever release of OpenHands wrote it, and whoever else: all of it is foreign text.

Since 1.0 its ``stats`` hold a meter for each usage id, with a list of costs, one of tokens and one of latencies;
before, ``usage_to_metrics`` was named ``service_to_metrics``. What is out of range is left out and counted.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from openhands_otel._internal.exact import MONEY_LIMIT, SECONDS_LIMIT, TOKENS_LIMIT
from openhands_otel._internal.spend.amounts import TOKEN_FIELDS

SIZE_LIMIT: Final = 64 * 1024 * 1024
TEXT_LIMIT: Final = 256
EARLIEST: Final = 1.4e9
"""Unix seconds, of 2014: no call of an agent is older, and what says so (a counter, 0) is no time."""
AHEAD_S: Final = 86_400.0
"""How far in the future a time may lie that a clock of this or another machine wrote."""
_OPEN: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
"""Windows has but the last."""
_KINDS: Final = tuple(TOKEN_FIELDS.values())

Tokens = tuple[int, int, int, int, int]
"""Prompt, completion, cache read, cache write, reasoning."""


class Unreadable(Exception):
    """The file says nothing about spend; the message is why."""


class CostEntry(NamedTuple):
    """One ``add_cost``: US dollars, and unix seconds (``time.time()``: no zone), None where that is no time."""

    model: str
    cost: float
    time: float | None


class UsageEntry(NamedTuple):
    """One ``add_token_usage``."""

    model: str
    response_id: str
    tokens: Tokens


class LatencyEntry(NamedTuple):
    """One ``add_response_latency``, in seconds: of every answer, also of those without cost or tokens."""

    model: str
    response_id: str
    seconds: float


@dataclass(slots=True)
class Meter:
    """What a usage id spent; ``accumulated`` is OpenHands' own total."""

    usage_id: str
    model: str
    accumulated: float
    accumulated_tokens: Tokens
    costs: list[CostEntry]
    usages: list[UsageEntry]
    latencies: list[LatencyEntry]


@dataclass(slots=True)
class ConversationState:
    """What one file says; ``refused`` counts entries that were out of range."""

    path: Path
    modified: float
    id: str
    agent: str | None
    model: str | None
    agent_usage_id: str | None
    status: str | None
    meters: list[Meter] = field(default_factory=list[Meter])
    refused: int = 0


def read_state(path: Path, not_before: float | None, now: float) -> ConversationState | None:
    """Read a file; None where it was last written before ``not_before`` (unix seconds), so holds nothing newer.

    Raises Unreadable.
    """
    try:
        # A pipe without a writer would block, and a device may do anything.
        descriptor = os.open(path, _OPEN)
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or "it cannot be opened") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is no plain file")
        if status.st_size > SIZE_LIMIT:
            raise Unreadable(f"it is larger than {SIZE_LIMIT // 1024**2} MiB")
        if not_before is not None and status.st_mtime < not_before:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from None
    finally:
        os.close(descriptor)
    return _interpreted(path, status.st_mtime, text, now)


def _interpreted(path: Path, modified: float, text: bytes, now: float) -> ConversationState:
    try:
        document: object = json.loads(text)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError:
        raise Unreadable("it is no JSON, or half-written") from None
    found = _mapping(document)
    stats = _mapping(found.get("stats"))
    meters = stats.get("usage_to_metrics", stats.get("service_to_metrics"))
    if not isinstance(meters, dict):
        raise Unreadable("it is no conversation of OpenHands: it has no stats")
    agent = _mapping(found.get("agent"))
    llm = _mapping(agent.get("llm"))
    state = ConversationState(
        path=path,
        modified=modified,
        id=_conversation_id(found.get("id"), path.parent.name),
        agent=_text(agent.get("kind")),
        model=_text(llm.get("model")),
        agent_usage_id=_text(llm.get("usage_id")) or _text(llm.get("service_id")),
        status=_text(found.get("execution_status")) or _text(found.get("agent_status")),
    )
    for usage_id, meter in cast(dict[str, object], meters).items():
        if isinstance(meter, dict):
            state.meters.append(_meter(_text(usage_id) or "", cast(dict[str, object], meter), state, now))
        else:
            state.refused += 1
    return state


def _meter(usage_id: str, found: Mapping[str, object], state: ConversationState, now: float) -> Meter:
    model = _text(found.get("model_name")) or ""
    meter = Meter(
        usage_id=usage_id,
        model=model,
        accumulated=_number(found.get("accumulated_cost", 0.0), MONEY_LIMIT) or 0.0,
        accumulated_tokens=_tokens(_mapping(found.get("accumulated_token_usage"))) or (0, 0, 0, 0, 0),
        costs=[],
        usages=[],
        latencies=[],
    )
    for entry in _entries(found.get("costs"), state):
        cost = _number(entry.get("cost"), MONEY_LIMIT)
        if cost is None:
            state.refused += 1
        else:
            meter.costs.append(CostEntry(_text(entry.get("model")) or model, cost, _time(entry.get("timestamp"), now)))
    for entry in _entries(found.get("token_usages"), state):
        tokens = _tokens(entry)
        if tokens is None:
            state.refused += 1
        else:
            named = _text(entry.get("model")) or model
            meter.usages.append(UsageEntry(named, _text(entry.get("response_id")) or "", tokens))
    for entry in _entries(found.get("response_latencies"), state):
        seconds = _number(entry.get("latency"), SECONDS_LIMIT)
        if seconds is None:
            state.refused += 1
        else:
            named = _text(entry.get("model")) or model
            meter.latencies.append(LatencyEntry(named, _text(entry.get("response_id")) or "", seconds))
    return meter


def _entries(found: object, state: ConversationState) -> Iterator[Mapping[str, object]]:
    if not isinstance(found, list):
        return
    for entry in cast(list[object], found):
        if isinstance(entry, dict):
            yield cast(dict[str, object], entry)
        else:
            state.refused += 1


def _mapping(found: object) -> Mapping[str, Any]:
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _text(found: object) -> str | None:
    """Text that is one; no lone surrogates, which no file, terminal or database takes."""
    if not isinstance(found, str) or not found:
        return None
    text = found[:TEXT_LIMIT]
    return text if text.isascii() else text.encode(errors="replace").decode()


def _number(found: object, limit: float) -> float | None:
    if not (type(found) is float or type(found) is int) or not 0 <= found <= limit:
        return None
    return float(found)


def _tokens(found: Mapping[str, object]) -> Tokens | None:
    get = found.get
    counts = tuple([get(kind, 0) for kind in _KINDS])
    for count in counts:
        if type(count) is not int or not 0 <= count <= TOKENS_LIMIT:
            return None
    return cast(Tokens, counts)


def _time(found: object, now: float) -> float | None:
    if not isinstance(found, int | float) or not EARLIEST <= found <= now + AHEAD_S:
        return None
    return float(found)


def _conversation_id(found: object, folder: str) -> str:
    """As telemetry writes it: with dashes where it is a UUID."""
    text = _text(found) or _text(folder) or ""
    try:
        return str(UUID(text))
    except ValueError:
        return text
