"""The keys, over whatever is on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from openhands_otel._internal.terminal.block import Block

_NAMES: Final = {
    "question_mark": "?",
    "slash": "/",
    "greater_than_sign": ">",
    "less_than_sign": "<",
    "full_stop": ".",
    "comma": ",",
    "asterisk": "*",
    "plus": "+",
    "minus": "-",
    "escape": "esc",
    "pageup": "PgUp",
    "pagedown": "PgDn",
}
_KEYS: Final = 20


class Help(ModalScreen[None]):
    """Every key that does something there, as its bindings say."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 84; max-width: 100%; height: auto; max-height: 100%; }
    Help VerticalScroll { border: round ansi_blue; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,question_mark,q,enter", "dismiss", "close")]

    def __init__(self, *bindings: Iterable[BindingType]) -> None:
        super().__init__()
        self._keys = [binding for some in bindings for binding in some if isinstance(binding, Binding)]

    def compose(self) -> ComposeResult:
        lines = [Text(f"{keys:<{_KEYS}} {about}") for keys, about in _told(self._keys)]
        with VerticalScroll():
            block = Block()
            block.show(Text("keys", style="bold"), *lines)
            yield block


def _told(bindings: Iterable[Binding]) -> Iterator[tuple[str, str]]:
    """Keys and what they do; those that differ only in what they name are told together."""
    for kind, alike in groupby(bindings, _kind):
        some = list(alike)
        abouts = [binding.tooltip or binding.description for binding in some]
        if kind and len(some) > 1:
            yield (
                f"{_keys(some[0])} - {_keys(some[-1])}",
                kind + ", ".join(about.removeprefix(kind) for about in abouts),
            )
        else:
            yield from zip(map(_keys, some), abouts, strict=True)


def _kind(binding: Binding) -> str:
    before, colon, _ = binding.description.partition(": ")
    return before + colon if colon else ""


def _keys(binding: Binding) -> str:
    return " ".join(map(_name, binding.key.split(",")))


def _name(key: str) -> str:
    return _NAMES.get(key) or (key.upper() if key[0] == "f" and key[1:].isdigit() else key)
