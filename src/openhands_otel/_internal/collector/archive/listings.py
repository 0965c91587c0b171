"""Conversations and runs as lists: searched, filtered, sorted, a page at a time; those that left memory included."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from openhands_otel._internal.asking.endpoints import FILTERS, PAGE_LIMIT
from openhands_otel._internal.collector.archive.spend import path_of
from openhands_otel._internal.facts import TOLD_BY
from openhands_otel._internal.spend.conditions import Condition, named
from openhands_otel._internal.spend.reading import BadQuestion, read_conditions
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import ConversationRun, ConversationStats

_SCALARS: Final = frozenset(map(str, (str, int, float, bool, str | None, int | None, float | None)))
_SORTED_BY: Final = frozenset(
    name for name, about in ConversationStats.model_fields.items() if str(about.annotation) in _SCALARS
)
_SEARCHED: Final = (
    "conversation_id",
    "name",
    "service",
    "agent",
    "model_name",
    "provider_name",
    "error_type",
    "labels",
)
_NEWEST_FIRST: Final = "-received_unix_nano"


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked of a list."""

    filters: Mapping[str, str] = field(default_factory=dict[str, str])
    """By parameter (FILTERS)."""
    where: Sequence[Condition] = ()
    """Of several of one name one has to hold, and none that is negated may be missed, as spend has it."""
    search: str = ""
    sort: str = _NEWEST_FIRST
    limit: int = 100
    offset: int = 0
    without: Collection[str] = ()
    """Ids of those that are left out."""


def read_page(given: Mapping[str, str], where: Sequence[str], held: Collection[str]) -> Page:
    """Read the parameters of a list. Raises BadQuestion.

    Args:
        given: all but ``where``, by name.
        where: the conditions.
        held: ids of those in memory.
    """
    sort = given.get("sort", _NEWEST_FIRST)
    if sort.removeprefix("-") not in _SORTED_BY:
        raise BadQuestion(f"sort takes no {printable(sort, 100)} (it takes: {', '.join(sorted(_SORTED_BY))}; - before)")
    return Page(
        filters={name: given[name] for name in FILTERS if name in given},
        where=read_conditions(where),
        search=given.get("search", ""),
        sort=sort,
        limit=whole(given, "limit", 100, PAGE_LIMIT),
        offset=whole(given, "offset", 0, 10**9),
        without=held if _yes(given, "past") else (),
    )


def conversations(connection: sqlite3.Connection, page: Page) -> tuple[int, list[str]]:
    """How many there are, and the page's as JSON."""
    conditions, values = ["1"], list[object]()
    for name, text in page.filters.items():
        conditions.append(f"{_field(FILTERS[name])} = ?")
        values.append(text)
    for word in page.search.split():
        escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        everything = " || ' ' || ".join(f"COALESCE({_field(name)}, '')" for name in _SEARCHED)
        conditions.append(f"({everything}) LIKE ? ESCAPE '\\'")
        values.append(f"%{escaped}%")
    for condition, patterns in _conditions(page.where):
        conditions.append(condition)
        values += patterns
    connection.create_function("fits", 3, _fits, deterministic=True)
    if page.without:
        conditions.append("id NOT IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([*page.without]))
    where = " AND ".join(conditions)
    (count,) = connection.execute(f"SELECT count(*) FROM conversations WHERE {where}", values).fetchone()
    order = f"{_field(page.sort.removeprefix('-'))} {'DESC' if page.sort.startswith('-') else 'ASC'}, id"
    query = f"SELECT stats FROM conversations WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
    return count, [text for (text,) in connection.execute(query, (*values, page.limit, page.offset))]


def archived_stats(connection: sqlite3.Connection, conversation_id: str) -> str | None:
    """The last state of a conversation, as JSON."""
    row = connection.execute("SELECT stats FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
    return None if row is None else row[0]


def runs(connection: sqlite3.Connection, given: Mapping[str, str]) -> tuple[int, list[ConversationRun]]:
    """How many there are, and the page's, newest first. Raises BadQuestion."""
    conditions, values = ["begun IS NOT NULL"], list[object]()
    for name in ("conversation", "outcome"):
        if name in given:
            conditions.append(f"{name} = ?")
            values.append(given[name])
    limit, offset = whole(given, "limit", 100, PAGE_LIMIT), whole(given, "offset", 0, 10**9)
    where = " AND ".join(conditions)
    (count,) = connection.execute(f"SELECT count(*) FROM runs WHERE {where}", values).fetchone()
    query = (
        "SELECT conversation, number, begun, ended, outcome, error, cost, calls, tool_calls FROM runs"
        f" WHERE {where} ORDER BY begun DESC, conversation, number DESC LIMIT ? OFFSET ?"
    )
    found = [
        ConversationRun(
            conversation_id=conversation,
            number=number,
            begun=begun,
            ended=ended,
            outcome=outcome,
            error_type=error,
            accumulated_cost=cost,
            llm_calls=calls,
            tool_calls=tools,
        )
        for conversation, number, begun, ended, outcome, error, cost, calls, tools in connection.execute(
            query, (*values, limit, offset)
        )
    ]
    return count, found


def _conditions(where: Sequence[Condition]) -> Iterator[tuple[str, list[object]]]:
    """Each as SQL, with its values."""
    for name in dict.fromkeys(each.name for each in where):
        sources, values = _values_of(name)
        for negated in (True, False):
            patterns = [each.pattern for each in where if each.name == name and each.negated is negated]
            if patterns:
                fits = " OR ".join(["fits(?, value, ?)"] * len(patterns))
                asked = [part for pattern in patterns for part in (name, pattern)]
                yield (
                    f"EXISTS (SELECT 1 FROM ({sources}) WHERE {f'NOT ({fits})' if negated else fits})",
                    [*values, *asked],
                )


def _fits(name: str, value: str | None, pattern: str) -> bool:
    return fnmatchcase(named(name, {name: value or ""}), pattern)


def _values_of(name: str) -> tuple[str, list[object]]:
    """What a conversation has of a fact or label, as a query with its values."""
    told = TOLD_BY.get(name)
    if told is None:
        return f"SELECT json_extract({_field('labels')}, ?) AS value", [path_of(name)]
    own = [f"SELECT {_field(each)} AS value" for each in told.own]
    of_parts = [
        f"SELECT json_extract(value, '$.{each}') AS value FROM json_each(stats, '$.{part}')"
        for part, each in told.parts
    ]
    return " UNION ".join(own + of_parts), []


def _field(name: str) -> str:
    return f"json_extract(stats, '$.{name}')"


def _yes(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "no")
    if text not in ("yes", "no"):
        raise BadQuestion(f"{name} takes yes or no")
    return text == "yes"


def whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Read a parameter that is a whole number. Raises BadQuestion."""
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise BadQuestion(f"{name} must be a whole number up to {most}")
    return int(text)
