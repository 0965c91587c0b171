"""What can be typed after a colon: ``:today``, ``:by role``, ``:c 75cea060``, ``:q``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.terminal.period import NAMED_PERIODS
from openhands_otel._internal.terminal_text import printable

_LONGEST: Final = 40
_SHOWN: Final = 12


class BadCommand(Exception):
    """What was typed is no command; the message is one line that says what there is."""


@dataclass(frozen=True, slots=True)
class CommandKind:
    """A command."""

    names: tuple[str, ...]
    """What it may be called."""
    argument: str = ""
    """What it takes, to people; an empty text where it takes nothing."""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be done."""

    name: str
    """The first name of its kind, or a period."""
    argument: str = ""


_OF_PERIOD: Final = {"today": ("day",), "7d": ("week",), "30d": ("month",)}
KINDS: Final = (
    *(
        CommandKind((name, *_OF_PERIOD.get(name, ())), about=f"period: {each.title}")
        for name, each in NAMED_PERIODS.items()
    ),
    CommandKind(("by",), "NAME", "groups where it went"),
    CommandKind(("sort",), "COLUMN", "sorts the conversations"),
    CommandKind(("c",), "ID", "opens a conversation, by the begin of its id or by its name"),
    CommandKind(("help",), about="shows all keys"),
    CommandKind(("q", "quit"), about="quits"),
)


def read_command(text: str) -> Command:
    """What was typed. Raises BadCommand."""
    name, _, argument = text.strip().removeprefix(":").strip().partition(" ")
    argument = argument.strip()
    kind = next((kind for kind in KINDS if name.lower() in kind.names), None)
    if kind is None:
        known = " ".join(f":{each.names[-1]}{f' {each.argument}' if each.argument else ''}" for each in KINDS)
        raise BadCommand(f"there is no :{printable(name, _LONGEST)}; there are {known}")
    if kind.argument and not argument:
        raise BadCommand(f":{name} needs more: :{name} {kind.argument} {kind.about}")
    if argument and not kind.argument:
        raise BadCommand(f":{name} takes nothing after it")
    return Command(kind.names[0], argument)


def one_of(given: str, known: Iterable[str], what: str) -> str:
    """The one that is meant, by its whole name or a begin that no other has. Raises BadCommand.

    Args:
        given: What was typed.
        known: What there is.
        what: What these are called.
    """
    names = list(dict.fromkeys(known))
    found = [name for name in names if name.lower() == given.lower()]
    found = found or [name for name in names if name.lower().startswith(given.lower())]
    if len(found) == 1:
        return found[0]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    there = ", ".join(printable(name, _LONGEST) for name in names[:_SHOWN])
    how = "no" if not found else "more than one"
    raise BadCommand(f"there is {how} {what} {printable(given, _LONGEST)}; there are {there}{more}")
