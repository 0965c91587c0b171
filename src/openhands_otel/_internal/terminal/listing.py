"""Which conversations are shown, and in which order: ``viewer/list.js`` does the same for the page.

An order is made when a person asks for it: by sorting, filtering, or taking in what is new. In between rows change
what they say and stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from openhands_otel._internal.facts import NEEDS
from openhands_otel._internal.money import ROUNDING
from openhands_otel._internal.terminal.attention import CHIPS, life_of, need_of
from openhands_otel._internal.terminal.costs import Costs
from openhands_otel._internal.terminal.entry import Entry
from openhands_otel._internal.terminal.live import Live
from openhands_otel.stats import ConversationStats

type SortKey = Callable[[Entry, float], float | str]
BY_COST: Final = "cost"
"""The column that says what conversations cost in the period."""
_LIFELONG: Final = Costs()


@dataclass(frozen=True, slots=True)
class View:
    """What a person wants to see."""

    show: str = ""
    """One of attention.CHIPS, or all."""
    search: str = ""
    where: tuple[tuple[str, str], ...] = ()
    """Names of facts or labels, and the values that they must have."""
    sort: str = ""
    """A column's name; most urgent first unless given."""
    descending: bool = True

    @property
    def filtered(self) -> bool:
        return bool(self.show or self.search or self.where)

    @property
    def flat(self) -> bool:
        """Whether sub-agents have rows of their own beside their parents, not below them."""
        return self.filtered or bool(self.sort)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    entry: Entry
    depth: int = 0
    children: int = 0
    folded: bool = False
    """Whether its sub-agents have no rows, so that it stands for their spend too."""
    beside: bool = False
    """Whether it is a sub-agent's and its parent stands elsewhere."""
    left: bool = False
    """Whether it no longer is what was asked for."""
    below: Sequence[Entry] = ()
    """What it stands for beside itself: its sub-agents, if they are folded."""
    costs: Costs = _LIFELONG

    @property
    def id(self) -> str:
        return self.entry.stats.conversation_id

    @property
    def all_stats(self) -> Iterator[ConversationStats]:
        """Of all conversations that it stands for."""
        return (entry.stats for entry in (self.entry, *self.below))

    @property
    def cost(self) -> float | None:
        """US dollars of the period that the row stands for; None where that is not told."""
        told = [amount for stats in self.all_stats if (amount := self.costs.of(stats)[0]) is not None]
        return sum(told) if told else None

    @property
    def unpriced_calls(self) -> int:
        """Calls in the period without a price, of all that the row stands for."""
        return sum(self.costs.of(stats)[1] for stats in self.all_stats)


@dataclass(frozen=True, slots=True)
class Sums:
    """What the rows add up to."""

    count: int = 0
    cost: float = 0.0
    unpriced: int = 0
    rest: float = 0.0
    """What the total has beyond these rows, US dollars; 0 where rows and total are not of the same."""


@dataclass
class Listing:
    """Rows of the conversations of ``live``.

    Args:
        live: What is known.
        sort_keys: By the name of a column.
        unfolded: Whether sub-agents have rows where nobody said otherwise.
    """

    live: Live
    sort_keys: dict[str, SortKey]
    unfolded: bool = False
    view: View = View()
    since: float = 0.0
    """Begin of the period, unix seconds: what went wrong before is old, and what ended before has no row."""
    costs: Costs = field(default_factory=Costs)
    """What conversations cost in it."""
    rows: list[Row] = field(default_factory=list[Row])
    _order: list[str] = field(default_factory=list[str])
    _held: set[str] = field(default_factory=set[str])
    _known: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    _turned: set[str] = field(default_factory=set[str])
    """Those of which somebody said otherwise."""

    def look(self, view: View) -> None:
        """Show something else."""
        self.view = view
        self.order()

    def order(self) -> None:
        """Take in what is new, and sort."""
        self._held.clear()
        self._order = self._sorted(*self._new())
        self._held.update(self._order)
        self.arrange()

    def take_past(self) -> None:
        """Put rows of the past that was asked for below the others, or where they belong in an order by a column."""
        names, children = self._new()
        new = self._sorted([name for name in names if name in self.live.past], children)
        places = {name: at for at, name in enumerate(self._order)}
        if self.view.sort:
            # Rows keep their order: a new one comes below the row that it would follow by the column.
            at = -1
            for name in self._sorted([*(name for name in places if name in self._known), *new], children):
                at = places.setdefault(name, at)
        self._order = sorted([*self._order, *new], key=lambda name: places.get(name, len(self._order)))
        self._held.update(new)
        self.arrange()

    def arrange(self) -> None:
        """Make rows of what is held in order, and of what is under it."""
        self._known = self.live.family.known
        children: Mapping[str, Sequence[str]] = {} if self.view.flat else self.live.family.children
        self.rows = []
        waiting = [(name, 0) for name in reversed(self._order)]
        while waiting:
            name, depth = waiting.pop()
            entry = self._known.get(name)
            if entry is None:
                continue
            below = children.get(name, [])
            folded = bool(below) and self.unfolded is (name in self._turned)
            beside = self.view.flat and entry.stats.parent_id is not None
            left = self.view.filtered and not self._fits(entry)
            hidden = [self._known[each] for each in _under(name, children)] if folded else ()
            self.rows.append(Row(entry, depth, len(below), folded, beside, left, hidden, self.costs))
            if not folded:
                # The eldest first, so that one that is new moves none.
                below = sorted(below, key=self._began)
                waiting += [(child, depth + 1) for child in reversed(below)]
        self.live.moved = False

    def update(self) -> None:
        """Take over what changed; rows stay in their order."""
        if not self.rows and not self.view.filtered:
            self.order()
        elif self.live.moved or self.view.filtered:
            self.arrange()

    def fold(self, row: Row, fold: bool) -> None:
        """Hide, or show, the sub-agents of a row."""
        if fold is self.unfolded:
            self._turned.add(row.id)
        else:
            self._turned.discard(row.id)
        self.arrange()

    def fold_all(self) -> None:
        """Hide, or show, the sub-agents of all rows."""
        self.unfolded = not self.unfolded
        self._turned.clear()
        self.arrange()

    def tally(self) -> Counter[str]:
        """How many conversations each chip stands for."""
        counted = Counter[str]()
        for stats in self.live.stats:
            counted[life_of(stats)] += 1
            counted[need_of(stats, self.since)] += 1
        counted.update(["ended"] * len(self.live.past))
        del counted[""]
        return counted

    @property
    def fresh(self) -> int:
        """How many conversations would be shown that are not yet."""
        return len(self._new()[0])

    @property
    def sums(self) -> Sums:
        """Of the rows that are what was asked for."""
        rows = [row for row in self.rows if not row.left]
        cost = sum(row.cost or 0.0 for row in rows)
        unpriced = sum(row.unpriced_calls for row in rows)
        rest = 0.0
        if not (self.view.show or self.view.search) and bool(self.view.where) is self.costs.filtered:
            shown = (stats for row in rows for stats in row.all_stats)
            rest = self.costs.rest(self.live.totals.accumulated_cost, shown)
        return Sums(len(rows), cost, unpriced, rest if abs(rest) > ROUNDING else 0.0)

    def _began(self, name: str) -> int:
        return self._known[name].stats.started_unix_nano

    def _new(self) -> tuple[list[str], Mapping[str, Sequence[str]]]:
        """Those that have no place in the order, but would if it were made now; and all children by parent."""
        family = self.live.family
        self._known = family.known
        names = family.known if self.view.flat else family.roots
        new = [name for name in names if name not in self._held and self._is_wanted(name, family.children)]
        return new, family.children

    def _is_wanted(self, name: str, children: Mapping[str, Sequence[str]]) -> bool:
        """Whether it has a row where an order is made; what was over before the period has none."""
        tree = (name,) if self.view.flat else (name, *_under(name, children))
        return self._fits(self._known[name]) and any(self._is_in_period(self._known[each]) for each in tree)

    def _is_in_period(self, entry: Entry) -> bool:
        return entry.stats.updated_unix_nano / 1e9 >= self.since or _life(entry) != "ended"

    def _fits(self, entry: Entry) -> bool:
        view, stats = self.view, entry.stats
        if view.show in NEEDS:
            if entry.past or need_of(stats, self.since) != view.show:
                return False
        elif view.show and _life(entry) != view.show:
            return False
        if not all(entry.has(name, value) for name, value in view.where):
            return False
        return all(word in entry.search_text for word in view.search.lower().split())

    def _sorted(self, names: list[str], children: Mapping[str, Sequence[str]]) -> list[str]:
        entries, now = self._known, self.live.now()
        # Younger first where nothing else tells them apart; each sort keeps what the one before has done.
        names.sort(key=lambda name: (-entries[name].stats.started_unix_nano, name))
        if self.view.sort == BY_COST:
            costs = {name: self.costs.of(entries[name].stats)[0] or 0.0 for name in names}
            return sorted(names, key=lambda name: costs[name], reverse=self.view.descending)
        key = self.sort_keys.get(self.view.sort)
        if key is not None:
            return sorted(names, key=lambda name: key(entries[name], now), reverse=self.view.descending)
        ranks = self._ranks(children)
        return sorted(names, key=lambda name: ranks[name])

    def _ranks(self, children: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """How urgent each is, with those below it: the place in CHIPS."""
        ranks = {name: _rank(entry, self.since) for name, entry in self._known.items()}
        if self.view.flat:
            return ranks
        # A parent counts as the most urgent of its own: handed up from the deepest, level by level.
        parents = {child: parent for parent, below in children.items() for child in below}
        for name, rank in list(ranks.items()):
            above = parents.get(name)
            while above is not None and ranks[above] > rank:
                ranks[above] = rank
                above = parents.get(above)
        return ranks


def _rank(entry: Entry, since: float) -> int:
    need = "" if entry.past else need_of(entry.stats, since)
    return CHIPS.index(need or _life(entry))


def _life(entry: Entry) -> str:
    """One of attention.LIVES; what has left the viewer's memory is over."""
    return "ended" if entry.past else life_of(entry.stats)


def _under(name: str, children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """All that descend from it."""
    waiting = [*children.get(name, ())]
    while waiting:
        child = waiting.pop()
        yield child
        waiting += children.get(child, ())
