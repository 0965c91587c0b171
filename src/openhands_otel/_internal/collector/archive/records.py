"""Records of conversations of which something is forgotten: gone as a whole, or less by it; and who names them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openhands_otel import semconv
from openhands_otel._internal.collector.archive import forgotten, spend
from openhands_otel._internal.collector.archive.taking import copied, correct_samples, take
from openhands_otel._internal.collector.points.series import Attributes, Counted, Series
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.erased import hash_of
from openhands_otel._internal.collector.state.placing import (
    CONVERSATION_RECORDS,
    PROCESS_RECORDS,
    Booked,
    Cube,
    Place,
    conversation_measure,
    place_of,
)
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.rows import CLOCKS_S

if TYPE_CHECKING:
    from openhands_otel._internal.collector.archive.forgetting import ErasureRequest

FORGOTTEN: Final = "forgotten"
"""Stands for the process where the time of a conversation is forgotten: an import leaves that out."""


@dataclass(slots=True)
class _Node:
    """A conversation in its tree."""

    conversation: Conversation
    parent: str | None
    tree_cost: float
    descendants: int
    gone: bool = False
    changed: bool = False


class Records:
    """Forgets conversations; what they spent has gone from the rows already."""

    def __init__(self, connection: sqlite3.Connection, request: ErasureRequest, salt: str) -> None:
        self._connection, self._request, self._salt = connection, request, salt
        self._nodes: dict[str, _Node | None] = {}
        self._labels: dict[str, str] = {}
        """Labels of processes, as JSON, where their records are still there."""
        self.count = 0
        """Records that went."""

    def forget(self, told: Sequence[Booked], read: Sequence[Booked]) -> None:
        """Forget what is asked for; ``told`` and ``read`` are the rows of conversations that went."""
        taken: dict[str, list[Booked]] = defaultdict(list)
        for booked in (*told, *read):
            if booked[1].conversation:
                taken[booked[1].conversation].append(booked)
        for name in [*taken, *(name for name in self._named() if name not in taken)]:
            self._forget_one(name, taken.get(name, []))
        self._forget_processes()
        self._forget_parents()
        for name, node in self._nodes.items():
            if node is not None and node.changed and not node.gone:
                self._write(name, node)

    def _named(self) -> Iterator[str]:
        """Conversations that may be meant though nothing of their spend was found."""
        request = self._request
        if request.periodic:
            return iter(())
        if request.conversation is not None:
            return iter([request.conversation])
        texts = [*filter(None, [request.service]), *(value for _, value in request.labels)]
        conditions = " AND ".join(["instr(record, ?) > 0"] * len(texts)) or "1"
        query = f"SELECT id FROM conversations WHERE {conditions}"
        found = self._connection.execute(query, [json.dumps(text)[1:-1] for text in texts]).fetchall()
        return (name for (name,) in found)

    def _forget_one(self, name: str, taken: list[Booked]) -> None:
        node = self._node(name)
        if node is not None:
            before = node.conversation.own_cost
            some = self._forget_series(node.conversation, taken)
            if not (some or taken):
                return
            after = Conversation.from_record(node.conversation.record())
            node.conversation, node.changed = after, True
            if not any(True for _ in after.series.each()) or (taken and not self._is_left(name)):
                self._forget_whole(name, node)
                return
            self._lessen(node, before - after.own_cost, 0)
        elif taken and not self._is_left(name):
            self._remove(name, {})
            return
        self._forget_runs(name, taken)
        correct_samples(self._connection, name, taken)
        if self._request.periodic:
            since, until = self._request.since or 0.0, self._request.until or time.time()
            # What is near the time that a process held a conversation gives way too; here it may not.
            held = since + CLOCKS_S, until - CLOCKS_S - 1
            spend.note_presence(self._connection, [(name, f"{FORGOTTEN} {since:.0f}", *held)])

    def _is_left(self, name: str) -> bool:
        query = "SELECT 1 FROM places WHERE cube IN (?, ?) AND conversation = ? LIMIT 1"
        return self._connection.execute(query, (Cube.CONVERSATIONS, Cube.READ, name)).fetchone() is not None

    def _forget_series(self, conversation: Conversation, taken: Sequence[Booked]) -> bool:
        """Forget a conversation's series that are meant, or a part of what they come to; True if there were some."""
        request, series = self._request, conversation.series
        held_before = sum(1 for _ in series.each())
        processes = {held.process for _, held in series.each()}
        for process in () if request.periodic else processes:
            place = self._place(conversation, process)

            def goes(attributes: Attributes, _: Series, place: Place = place) -> bool:
                own = place_of(Cube.CONVERSATIONS, "", (), place.service, attributes)
                return request.holds_for(own._replace(labels=place.labels))

            series.forget(self._salt, process, goes)
        some = sum(1 for _ in series.each()) < held_before
        if not some:
            self._lessen_series(conversation, taken)
        self._forget_speakers(conversation, processes - {held.process for _, held in series.each()})
        return some

    def _place(self, conversation: Conversation, process: str) -> Place:
        """What is known of a process."""
        service = conversation.services.get(process, "")
        if process not in self._labels:
            row = self._connection.execute("SELECT record FROM processes WHERE key = ?", (process,)).fetchone()
            resource: list[Any] = json.loads(row[0])["resource"] if row else []
            pairs = tuple((str(name), value) for name, value in resource)
            self._labels[process] = place_of(Cube.CONVERSATIONS, "", pairs, service, ()).labels if row else ""
        labels = self._labels[process] or json.dumps(conversation.process_labels)
        return Place(Cube.CONVERSATIONS, service=service, labels=labels)

    def _lessen_series(self, conversation: Conversation, taken: Sequence[Booked]) -> None:
        """Series that stay come to less by what went of them."""
        needs: dict[Place, Amount] = defaultdict(Amount)
        for _, place, amount in taken:
            if place.cube is Cube.CONVERSATIONS:
                needs[_known(place)].include(amount)
        for name, held in conversation.series.each():
            measure = conversation_measure(name, held.attributes)
            if measure is None or not isinstance(held.series, Counted):
                continue
            service = conversation.services.get(held.process, "")
            need = needs.get(_known(place_of(Cube.CONVERSATIONS, conversation.id, (), service, held.attributes)))
            if need is None:
                continue
            counts, before = Amount(), copied(need)
            counts.grow(measure, 0, held.series.total)
            part = take(counts, before)
            one = next((n for n in (*part.whole, part.cost.value, part.seconds.value) if n), 0)
            need.include(part, -1)
            held.series.erase(one)

    def _forget_speakers(self, conversation: Conversation, gone: set[str]) -> None:
        for process in gone:
            conversation.services.pop(process, None)
            conversation.series.taken_up.pop(process, None)
            if conversation.speaker == process:
                conversation.speaker = ""
            conversation.runs.forget(process)
        for name, value in self._request.labels:
            if conversation.process_labels.get(name) == value:
                del conversation.process_labels[name]

    def _forget_whole(self, name: str, node: _Node) -> None:
        series = node.conversation.series
        for process in {held.process for _, held in series.each()}:
            series.forget(self._salt, process, _all)
        self._remove(name, series.erased.record())
        node.gone = True
        self._lessen(node, node.tree_cost, 1 + node.descendants)

    def _remove(self, name: str, remains: dict[str, Any]) -> None:
        forgotten.keep(self._connection, CONVERSATION_RECORDS, name, remains)
        for table, column in (
            ("conversations", "id"),
            ("presence", "conversation"),
            ("runs", "conversation"),
            ("samples", "subject"),
        ):
            self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))
        self.count += 1

    def _forget_runs(self, name: str, taken: Sequence[Booked]) -> None:
        for _, place, amount in taken:
            if not place.run:
                continue
            number = int(place.run.rpartition("#")[2])
            self._connection.execute(
                "UPDATE runs SET cost = max(0.0, cost - ?), calls = max(0, calls - ?)"
                " WHERE conversation = ? AND number = ?",
                (amount.cost.value, amount.calls, name, number),
            )
            left = "SELECT 1 FROM places WHERE cube = ? AND conversation = ? AND run = ?"
            self._connection.execute(
                f"DELETE FROM runs WHERE conversation = ? AND number = ? AND NOT EXISTS ({left})",
                (name, number, Cube.CONVERSATIONS, name, place.run),
            )

    def _forget_processes(self) -> None:
        """Whose service is forgotten keeps the time in which it held a conversation, not its name."""
        service = self._request.service
        if service is None or self._is_service_left(service):
            return
        begin = f"{service[:100]}\x1f" if len(service) > 100 else f"{service}\x1f"
        rows = self._connection.execute(
            "SELECT * FROM presence WHERE substr(process, 1, ?) = ?", (len(begin), begin)
        ).fetchall()
        for conversation, process, since, until in rows:
            self._connection.execute(
                "DELETE FROM presence WHERE conversation = ? AND process = ?", (conversation, process)
            )
            hidden = f"{FORGOTTEN} {hash_of(self._salt, PROCESS_RECORDS, process)}"
            spend.note_presence(self._connection, [(conversation, hidden, since, until)])

    def _is_service_left(self, service: str) -> bool:
        query = "SELECT 1 FROM places WHERE service = ? LIMIT 1"
        return self._connection.execute(query, (service,)).fetchone() is not None

    # ---------------------------------------------------------------- trees

    def _node(self, name: str | None) -> _Node | None:
        if not name:
            return None
        if name not in self._nodes:
            row = self._connection.execute("SELECT record, stats FROM conversations WHERE id = ?", (name,)).fetchone()
            self._nodes[name] = None
            if row is not None:
                stats = json.loads(row[1])
                conversation = Conversation.from_record(json.loads(row[0]))
                self._nodes[name] = _Node(
                    conversation, conversation.parent_id, stats["tree_cost"], stats["descendants"]
                )
        return self._nodes[name]

    def _lessen(self, node: _Node, cost: float, descendants: int) -> None:
        """All that are above it have less below them."""
        if not node.gone:
            node.tree_cost = max(0.0, node.tree_cost - cost)
        seen = {node.conversation.id}
        above = self._node(node.parent)
        while above is not None and not above.gone and above.conversation.id not in seen:
            seen.add(above.conversation.id)
            above.changed = True
            above.tree_cost = max(0.0, above.tree_cost - cost)
            above.descendants -= descendants
            if node.conversation.folded_into == above.conversation.id:
                above.conversation.folded_cost.add(-cost)
                above.conversation.folded_descendants -= descendants
            node, above = above, self._node(above.parent)

    def _forget_parents(self) -> None:
        """Those that went have nobody below them."""
        gone = {name for name, node in self._nodes.items() if node is not None and node.gone}
        query = (
            "SELECT id, json_extract(stats, '$.parent_id'), json_extract(record, '$.folded_into') FROM conversations"
        )
        for name, *above in self._connection.execute(query).fetchall() if gone else ():
            node = self._node(name) if gone.intersection(above) else None
            if node is None:
                continue
            record = node.conversation.record()
            if record["folded_into"] in gone:
                record["folded_into"] = None
            record["held"] = [
                [process, metric, [pair for pair in pairs if not _names_parent(pair, gone)], *rest]
                for process, metric, pairs, *rest in record["held"]
            ]
            node.conversation, node.changed = Conversation.from_record(record), True

    def _write(self, name: str, node: _Node) -> None:
        conversation = node.conversation
        stats = conversation.stats(node.tree_cost, node.descendants).model_dump_json()
        record = json.dumps(conversation.record(), separators=(",", ":"))
        self._connection.execute("UPDATE conversations SET record = ?, stats = ? WHERE id = ?", (record, stats, name))


def _all(_: Attributes, __: Series) -> bool:
    return True


def _names_parent(pair: tuple[str, object], parents: set[str]) -> bool:
    return pair[0] == semconv.CONVERSATION_PARENT_ID and pair[1] in parents


def _known(place: Place) -> Place:
    """What a series knows of its place."""
    return place._replace(conversation="", namespace="", labels="{}", agent="", run="")
