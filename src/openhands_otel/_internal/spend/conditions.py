"""Which rows count: ``model=gpt-5*``, ``team!=payments``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from openhands_otel._internal.spend.rows import Dimension, Unit
from openhands_otel.semconv import UNKNOWN

NONE: Final = "none"
_QUOTE: Final = '"'
_ABSENT: Final[dict[str, str]] = {
    **dict.fromkeys(Dimension, UNKNOWN),
    Dimension.CONVERSATION: "no conversation",
    Dimension.RUN: "no run",
    Dimension.NAMESPACE: NONE,
}


class ConditionError(ValueError):
    """A condition cannot be understood; the message is one line that says what to write."""


def absent(name: str) -> str:
    """What stands for a fact that a row does not have: a fact is unknown, a label simply not given."""
    return _ABSENT.get(name, NONE)


def named(name: str, keys: Mapping[str, str]) -> str:
    """What a row is called in a fact or a label.

    A value that is the very word for not having one is put in quotes: else its row would read as that of those which
    have none. Senders themselves say of most facts that they are unknown, which is no other row.
    """
    value, word = keys.get(name), absent(name)
    if not value:
        return word
    return quoted(value) if word != UNKNOWN and value.strip(_QUOTE) == word else value


def quoted(value: str) -> str:
    """A value that reads as a word of our own, told apart from it."""
    return f"{_QUOTE}{value}{_QUOTE}"


@dataclass(frozen=True, slots=True)
class Condition:
    """One pattern for one fact or label."""

    name: str
    pattern: str
    """As of files: ``*``, ``?``, ``[abc]``; upper and lower case differ."""
    negated: bool = False

    @classmethod
    def of(cls, text: str) -> Condition:
        """What ``--where`` says. Raises ConditionError."""
        name, equals, pattern = text.partition("=")
        negated = name.endswith("!")
        name = name.removesuffix("!").strip()
        if not (name and equals):
            raise ConditionError(f"'{text}' is no condition: write a name and a pattern, as in model=gpt-5* or team!=a")
        if name in set(Unit):
            raise ConditionError(f"'{text}' asks for a time: that is what --since and --until are for")
        return cls(name, pattern.strip(), negated)

    def __str__(self) -> str:
        return f"{self.name}{'!' if self.negated else ''}={self.pattern}"

    def accepts(self, keys: Mapping[str, str]) -> bool:
        """Whether the pattern fits, or, if negated, does not."""
        return fnmatchcase(named(self.name, keys), self.pattern) is not self.negated


class Conditions:
    """Several: of one name one has to hold, and none that is negated may be missed."""

    def __init__(self, conditions: Iterable[Condition]) -> None:
        self._negated: list[Condition] = []
        self._choices: dict[str, list[Condition]] = {}
        for each in conditions:
            (self._negated if each.negated else self._choices.setdefault(each.name, [])).append(each)

    def accept(self, keys: Mapping[str, str]) -> bool:
        """Whether a row with these facts counts."""
        return all(each.accepts(keys) for each in self._negated) and all(
            any(each.accepts(keys) for each in choices) for choices in self._choices.values()
        )
