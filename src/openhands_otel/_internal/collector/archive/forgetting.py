"""Forgets what was spent by a service, in a conversation, under a label or in a period: rows, sums, records, spans.

Whatever goes, what is left adds up. Sums are made of records of processes and of what is folded, and spend of processes
has rows of the same amount. So first rows go, then records; by how much the two differ goes into what is folded: of a
conversation no process can tell apart what it took, so the process goes on and the sums are less by it.

Of each stream that goes a hash stays, and what it had reached (``forgotten.py``).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from openhands_otel._internal.collector.archive import forgotten, spend
from openhands_otel._internal.collector.archive.folding import fold, unname
from openhands_otel._internal.collector.archive.forgotten import Erasure
from openhands_otel._internal.collector.archive.records import Records
from openhands_otel._internal.collector.archive.span_forgetting import forget_spans
from openhands_otel._internal.collector.archive.taking import PlaceSums, copied, correct_samples, take
from openhands_otel._internal.collector.archive.told import forget_texts
from openhands_otel._internal.collector.points.series import Attributes, Counted, Series
from openhands_otel._internal.collector.state.erased import hash_of
from openhands_otel._internal.collector.state.placing import (
    FLEET_MEASURES,
    PROCESS_RECORDS,
    UNDATED,
    Booked,
    Cube,
    Place,
    attributes_of,
    place_of,
)
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.spend.amounts import CALLS_FIELD, COUNTERS, Amount


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """What is to be forgotten: all that is asked for has to hold. Times are quarter-hours, unix seconds."""

    service: str | None = None
    conversation: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    since: float | None = None
    until: float | None = None

    @property
    def periodic(self) -> bool:
        """Whether a period is asked for."""
        return self.since is not None or self.until is not None

    def holds_for(self, place: Place) -> bool:
        """Whether service and labels are those that are asked for."""
        if self.service not in (None, place.service):
            return False
        known = [json.loads(place.labels), json.loads(place.own_labels)] if self.labels else []
        return all(any(each.get(name) == value for each in known) for name, value in self.labels)

    def spans(self, held: Series) -> bool:
        """Whether a series lies in the period as a whole."""
        since, until = self.since or 0.0, self.until or float("inf")
        return not self.periodic or (since * 1e9 <= held.start and held.start > 0 and held.time < until * 1e9)

    def condition(self, connection: sqlite3.Connection, cube: Cube) -> tuple[str, list[object]]:
        """The same for rows, as SQL."""
        conditions, values = ["spend.cube = ?"], list[object]([cube])
        for column, value in (("service", self.service), ("conversation", self.conversation)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        for name, value in self.labels:
            conditions.append(spend.HAS_LABEL)
            values += [spend.path_of(name), value] * 2
        if self.periodic:
            conditions.append("quarter >= ? AND quarter < ?")
            values += [self._begin(connection), 2**62 if self.until is None else self.until]
        return " AND ".join(conditions), values

    def _begin(self, connection: sqlite3.Connection) -> float:
        """What has no date was spent before a date that is known."""
        before = spend.dated_since(connection)
        undated = self.since is None and (before is None or self.until is None or before <= self.until)
        return UNDATED if undated else (self.since or UNDATED + 1)

    def described(self, salt: str) -> str:
        """In words that name nobody."""
        words = [
            f"{what} #{hash_of(salt, what, name)[:8]}"
            for what, name in (("service", self.service), ("conversation", self.conversation))
            if name is not None
        ]
        words += [f"label {name}=#{hash_of(salt, name, value)[:8]}" for name, value in self.labels]
        for what, moment in (("since", self.since), ("until", self.until)):
            if moment is not None:
                words.append(f"{what} {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC")
        return ", ".join(words)


def forget(connection: sqlite3.Connection, request: ErasureRequest, dry_run: bool = False) -> Erasure:
    """Erase what is asked for, and its bytes; in a dry run nothing, and the same is told."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    try:
        erasure = _Forgetting(connection, request).run()
        if not dry_run:
            forgotten.note_erasure(connection, erasure)
            connection.commit()
    finally:
        connection.rollback()
    if not dry_run:
        # What was written over in the file still stands in its log, and in pages that nobody uses.
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            connection.execute(statement).fetchall()
    return erasure


class _Forgetting:
    def __init__(self, connection: sqlite3.Connection, request: ErasureRequest) -> None:
        self._connection, self._request = connection, request
        self._salt = forgotten.salt_of(connection)
        self._sums = PlaceSums()
        """What records that go leave out of the sums, less what rows that go do."""
        self._taken: list[Booked] = []
        """From what processes tell as a whole."""
        self._rows = 0

    def run(self) -> Erasure:
        request, connection = self._request, self._connection
        fleet = [] if request.conversation is not None else self._held(Cube.FLEET)
        told, read = self._held(Cube.CONVERSATIONS), self._held(Cube.READ)
        for quarter, place, amount in fleet:
            self._take(quarter, place, amount, amount)
        self._forget_rows(read)
        self._forget_rows(told)
        for quarter, place, amount in self._apart(fleet, told):
            self._take_from_fleet(quarter, place, amount)
        connection.execute("DELETE FROM places WHERE id NOT IN (SELECT place FROM spend)")
        services = {place.service for _, place, _ in (*fleet, *told)}
        if request.conversation is None:
            self._forget_processes()
            self._forget_folded()
        self._settle_quarters(services)
        records = Records(connection, request, self._salt)
        records.forget(told, read)
        forget_texts(connection)
        self._correct()
        correct_samples(connection, "", self._taken)
        spent = Amount()
        for _, _, amount in (*self._taken, *read):
            spent.include(amount)
        rows = self._rows + records.count + forget_spans(connection, request, self._salt)
        return Erasure(time.time(), request.described(self._salt), rows, spent.cost.value, spent.calls)

    def _held(self, cube: Cube) -> list[Booked]:
        return spend.held(self._connection, *self._request.condition(self._connection, cube))

    def _forget_rows(self, booked: Iterable[Booked]) -> None:
        for quarter, place, _ in booked:
            spend.replace(self._connection, quarter, place, Amount())
            self._rows += 1

    def _take(self, quarter: int, place: Place, held: Amount, part: Amount) -> None:
        """Take a part of what a row of processes has."""
        self._sums.add(place, part, -1)
        self._taken.append((quarter, place, copied(part)))
        left = copied(held)
        left.include(part, -1)
        spend.replace(self._connection, quarter, place, left)
        self._rows += 1

    def _apart(self, fleet: Sequence[Booked], told: Sequence[Booked]) -> list[Booked]:
        """Rows of conversations whose spend is not among the rows of processes that went."""
        request = self._request
        if request.conversation is None and not request.labels:
            return []
        labelled = {(quarter, place.service) for quarter, place, _ in fleet if not self._by_process(place)}
        whole = request.conversation is None
        return [
            (quarter, place, amount)
            for quarter, place, amount in told
            if not (whole and (self._by_process(place) or (quarter, place.service) in labelled))
        ]

    def _by_process(self, place: Place) -> bool:
        return self._request.holds_for(place._replace(own_labels="{}"))

    def _take_from_fleet(self, quarter: int, place: Place, need: Amount) -> None:
        """Take what a conversation tells of from what processes tell: from where it fits best."""
        condition, need = "spend.cube = ? AND service = ? AND quarter", copied(need)
        for which in ("= ?", "!= ? ORDER BY abs(quarter - ?)"):
            values = (Cube.FLEET, place.service, *[quarter] * which.count("?"))
            rows = spend.held(self._connection, f"{condition} {which}", values)
            if which == "= ?":
                rows.sort(key=lambda row: -sum(one == other for one, other in zip(row[1], place, strict=True)))
            for at, where, held in rows:
                if not need.anything:
                    return
                part = take(held, need)
                if part.anything:
                    self._take(at, where, held, part)

    def _forget_processes(self) -> None:
        request = self._request
        for key, text in self._connection.execute("SELECT key, record FROM processes").fetchall():
            record = json.loads(text)
            process = Process.from_record(record)
            if request.service not in (None, process.instance.service):
                continue
            before, count = list(process.contributions()), len(process.series)
            process.forget(self._salt, lambda attributes, held, process=process: self._goes(process, attributes, held))
            self._add_contributions(process, before, 1)
            self._add_contributions(process, process.contributions(), -1)
            whole = self._by_process(process.place(())) and not request.periodic
            if not process.series and (count or whole):
                forgotten.keep(self._connection, PROCESS_RECORDS, key, process.remains())
                self._connection.execute("DELETE FROM processes WHERE key = ?", (key,))
                self._rows += 1
            elif len(process.series) < count:
                self._write(key, process)

    def _goes(self, process: Process, attributes: Attributes, held: Series) -> bool:
        return self._request.holds_for(process.place(attributes)) and self._request.spans(held)

    def _add_contributions(
        self, process: Process, contributions: Iterable[tuple[str, Attributes, int | float]], sign: int
    ) -> None:
        for metric, attributes, number in contributions:
            self._add(process.instance.service, metric, attributes, (number,), sign)

    def _add(
        self, service: str, metric: str, attributes: Attributes, parts: Iterable[int | float], sign: int = 1
    ) -> None:
        amount = Amount()
        for part in parts:
            amount.grow(FLEET_MEASURES.get(metric, CALLS_FIELD), 0, part)
        self._sums.add(place_of(Cube.FLEET, "", (), service, attributes), amount, sign)

    def _write(self, key: str, process: Process) -> None:
        text = json.dumps(process.record(), separators=(",", ":"))
        self._connection.execute("UPDATE processes SET record = ? WHERE key = ?", (text, key))

    def _forget_folded(self) -> None:
        if self._request.periodic:
            return
        for service, metric, attributes, parts in self._connection.execute("SELECT * FROM folded").fetchall():
            pairs: Attributes = tuple((str(name), value) for name, value in json.loads(attributes))
            if self._request.holds_for(place_of(Cube.FLEET, "", (), service, pairs)):
                self._add(service, metric, pairs, json.loads(parts))
                self._connection.execute(
                    "DELETE FROM folded WHERE service = ? AND metric = ? AND attributes = ?",
                    (service, metric, attributes),
                )

    def _settle_quarters(self, services: set[str]) -> None:
        """A late point may move nothing any more from where it is gone."""
        for key, text in self._connection.execute("SELECT key, record FROM processes").fetchall():
            process = Process.from_record(json.loads(text))
            if process.instance.service in services:
                for held in process.series.values():
                    if isinstance(held, Counted):
                        held.erase(0)
                self._write(key, process)

    def _correct(self) -> None:
        touched: set[str] = set()
        for place, amount in self._sums.each():
            touched.add(place.service)
            for metric, parts in parts_of(amount):
                fold(self._connection, place.service, metric, attributes_of(place), parts)
        for service in touched - self._left():
            unname(self._connection, service)

    def _left(self) -> set[str]:
        """Services of which a row or a process is still there."""
        query = "SELECT service FROM places UNION SELECT json_extract(record, '$.service') FROM processes"
        return {service for (service,) in self._connection.execute(query)}


def parts_of(amount: Amount) -> list[tuple[str, list[int | float]]]:
    """An amount as what the counters of a process would have told."""
    parts: list[tuple[str, list[int | float]]] = []
    for metric, field in COUNTERS.items():
        held: ExactSum | int = getattr(amount, field)
        parts.append((metric.name, [held] if isinstance(held, int) else [*held.parts]))
    return [(metric, numbers) for metric, numbers in parts if any(numbers)]
