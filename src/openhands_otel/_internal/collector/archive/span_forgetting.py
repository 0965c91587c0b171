"""Erases spans of a service, a conversation, a label or a period; what is told of them again does not come back.

Spans of other instrumentation name no conversation. They go with the nearest span of ours above them; where there is
none, with the last span of ours in their trace. What stays is what was asked for and ids of traces, as hashes.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from openhands_otel._internal.collector.spans.span import Span
from openhands_otel._internal.collector.state.erased import hash_of

_SERVICE: Final = "service"
_CONVERSATION: Final = "conversation"
_TRACE: Final = "trace"


class Asked(Protocol):
    """What is to be forgotten; see ``forgetting.Request``."""

    @property
    def service(self) -> str | None: ...
    @property
    def conversation(self) -> str | None: ...
    @property
    def labels(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def since(self) -> float | None: ...
    @property
    def until(self) -> float | None: ...


def forget_spans(connection: sqlite3.Connection, asked: Asked, salt: str) -> int:
    """Erase them; returns how many there were."""
    meant = _meant(connection, asked)
    traces: dict[str, set[int]] = {}
    latest = time.time_ns()
    for number, trace, ended in meant:
        traces.setdefault(trace, set()).add(number)
        # A sender's clock may be ahead of this one.
        latest = max(latest, ended)
    erased = 0
    for trace, numbers in traces.items():
        foreign = _foreign(connection, trace, numbers, whole=asked.since is None and asked.until is None)
        gone = numbers | foreign
        connection.executemany("DELETE FROM spans WHERE id = ?", [(number,) for number in gone])
        erased += len(gone)
        if foreign:
            _keep(connection, hash_of(salt, _TRACE, trace), latest, "")
    rule = {
        _SERVICE: asked.service and hash_of(salt, _SERVICE, asked.service),
        _CONVERSATION: asked.conversation and hash_of(salt, _CONVERSATION, asked.conversation),
        "labels": [hash_of(salt, name, value) for name, value in asked.labels],
        "since": asked.since,
        "until": asked.until,
    }
    text = json.dumps(rule)
    _keep(connection, hash_of(salt, text), latest, text)
    return erased


def purge(connection: sqlite3.Connection, older_than: float) -> None:
    """Let go of what is known of erasures before a time, unix seconds."""
    connection.execute("DELETE FROM erased_spans WHERE at < ?", (int(older_than * 1e9),))


@dataclass(frozen=True, slots=True)
class ErasedSpans:
    """What has been erased and is not to come back."""

    salt: str
    rules: tuple[tuple[int, Mapping[str, object]], ...]
    """Each with the time (unix nanoseconds) before which what it names had ended."""
    traces: Mapping[str, int]

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> ErasedSpans:
        """What the database knows of that."""
        rows = connection.execute("SELECT key, at, rule FROM erased_spans").fetchall()
        row = connection.execute("SELECT salt FROM salt").fetchone() if rows else None
        rules = tuple((at, json.loads(rule)) for _, at, rule in rows if rule)
        return cls("" if row is None else row[0], rules, {key: at for key, at, rule in rows if not rule})

    def holds(self, span: Span) -> bool:
        """Whether a span is among what was erased."""
        if not (self.rules or self.traces):
            return False
        if not span.conversation and span.ended < self.traces.get(hash_of(self.salt, _TRACE, span.trace), 0):
            return True
        return any(span.ended < at and self._names(rule, span) for at, rule in self.rules)

    def _names(self, rule: Mapping[str, object], span: Span) -> bool:
        for what, name in ((_SERVICE, span.service), (_CONVERSATION, span.conversation)):
            if rule[what] is not None and rule[what] != hash_of(self.salt, what, name):
                return False
        labels = rule["labels"]
        if labels:
            own = {hash_of(self.salt, name, value) for name, value in json.loads(span.labels).items()}
            if not own.issuperset(labels):  # pyright: ignore[reportArgumentType]
                return False
        since, until = rule["since"], rule["until"]
        begun = span.started / 1e9
        return not (
            (isinstance(since, int | float) and begun < since) or (isinstance(until, int | float) and begun >= until)
        )


def _keep(connection: sqlite3.Connection, key: str, at: int, rule: str) -> None:
    connection.execute("INSERT OR REPLACE INTO erased_spans VALUES (?, ?, ?)", (key, at, rule))


def _meant(connection: sqlite3.Connection, asked: Asked) -> Iterable[tuple[int, str, int]]:
    conditions, values = ["1"], list[object]()
    for column, name in ((_SERVICE, asked.service), (_CONVERSATION, asked.conversation)):
        if name is not None:
            conditions.append(f"{column} = ?")
            values.append(name)
    for sign, moment in ((">=", asked.since), ("<", asked.until)):
        if moment is not None:
            conditions.append(f"started {sign} ?")
            values.append(int(moment * 1e9))
    query = f"SELECT id, trace, ended, labels FROM spans WHERE {' AND '.join(conditions)}"
    for number, trace, ended, labels in connection.execute(query, values).fetchall():
        known: dict[str, str] = json.loads(labels) if asked.labels else {}
        if all(known.get(name) == value for name, value in asked.labels):
            yield number, trace, ended


def _foreign(connection: sqlite3.Connection, trace: str, gone: set[int], whole: bool) -> set[int]:
    """Spans that name no conversation and tell of those that go."""
    rows = connection.execute("SELECT id, span, parent, conversation FROM spans WHERE trace = ?", (trace,)).fetchall()
    by_span = {span: (number, parent, conversation) for number, span, parent, conversation in rows}
    ours = {number for number, *_, conversation in rows if conversation}
    alone = whole and bool(ours) and ours <= gone
    found: set[int] = set()
    for number, _, parent, conversation in rows:
        if conversation or number in gone:
            continue
        above, seen = parent, set[str]()
        while above in by_span and above not in seen and not by_span[above][2]:
            seen.add(above)
            above = by_span[above][1]
        owner = by_span.get(above)
        if owner is not None and owner[2] and above not in seen:
            if owner[0] in gone:
                found.add(number)
        elif alone:
            found.add(number)
    return found
