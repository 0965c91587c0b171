"""Waits for modules of OpenHands to be imported, and never imports them itself.

Whoever is interested in a module hears of each time that it is loaded, once, whatever happens at the same time: other
threads that import it or ask for it, an import that takes long, one that is under way already, one that fails and is
tried again, a reload. For that

* a finder of ours stands first in ``sys.meta_path``; it asks the others, and has the loader that they name tell when
  a module is executed;
* of a module whose import was under way before anybody was interested, its spec tells (``_LoadingSpec``);
* who hears of which load is claimed under one lock, and nobody is called while that is held. Nothing here waits for an
  import either, so no lock of ours can stand across Python's import locks.

Who is told while a module is still locked by its import is done before any other thread can use it. A process that
never imports OpenHands pays a dictionary lookup per import.
"""

from __future__ import annotations

import importlib.abc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from openhands_otel._internal.guard import guarded

OnImport = Callable[[ModuleType], None]


class _Interest:
    __slots__ = ("heard", "on_import")

    def __init__(self, on_import: OnImport) -> None:
        self.on_import = on_import
        self.heard = -1
        """Number of the last load that it was told of."""


class _Watch:
    """What is known of one module. What is said here of claims is to be done with ``_claiming`` held."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.interests: list[_Interest] = []
        self.executing: ModuleType | None = None
        """The module whose end of loading will be told of."""
        self._loads = 0
        self._loaded: ModuleType | None = None
        """The module that was told of last."""

    def hear_of_present(self, module: ModuleType) -> None:
        """Of a module that stands in ``sys.modules``: tell now, or see to it that the end of its loading is told."""
        spec: Any = getattr(module, "__spec__", None)
        with _claiming:
            if self.executing is module:
                return
            loading = self._loaded is not module and getattr(spec, "_initializing", False)
            if loading:
                self.executing = module
            told = [] if loading else self._claim(module, anew=self._loaded is not module)
        if loading:
            _LoadingSpec.take(spec, lambda: self.end_of_loading(module))
        _tell(told, module)

    def end_of_loading(self, module: ModuleType) -> None:
        """Tell everybody, unless it has failed: then it is no longer there."""
        with _claiming:
            if self.executing is not module:
                return
            self.executing = None
            told = self._claim(module, anew=True) if self.name in sys.modules else []
        _tell(told, module)

    def _claim(self, module: ModuleType, anew: bool) -> list[_Interest]:
        if anew:
            self._loads += 1
            self._loaded = module
        told = [interest for interest in self.interests if interest.heard < self._loads]
        for interest in told:
            interest.heard = self._loads
        return told


def _tell(told: list[_Interest], module: ModuleType) -> None:
    for interest in told:
        interest.on_import(module)


_watches: dict[str, _Watch] = {}
_claiming = threading.RLock()


def when_imported(name: str, on_import: OnImport) -> Callable[[], None]:
    """Call ``on_import(module)`` now if ``name`` is imported, else when it is; the returned function forgets it.

    Where an import of it is under way, in this thread or in another, it is called at the end of that.
    """
    interest = _Interest(guarded(on_import))
    with _claiming:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        watch = _watches.setdefault(name, _Watch(name))
        watch.interests.append(interest)
    module = sys.modules.get(name)
    if module is not None:
        watch.hear_of_present(module)

    def forget() -> None:
        with _claiming:
            if interest in watch.interests:
                watch.interests.remove(interest)

    return forget


def interests(name: str) -> int:
    """How many wait for a module."""
    watch = _watches.get(name)
    return 0 if watch is None else len(watch.interests)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        watch = _watches.get(fullname)
        if watch is None:
            return None
        for finder in tuple(sys.meta_path):
            find: Any = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _TellingLoader(spec.loader, watch)
                return spec
        return None


class _TellingLoader(importlib.abc.Loader):
    """Stands in a spec for its loader until that has executed the module."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._loader = loader
        self._watch = watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        watch, loader = self._watch, self._loader
        if module.__spec__ is not None and module.__spec__.loader is self:
            module.__spec__.loader = loader
        if module.__loader__ is self:
            module.__loader__ = loader
        with _claiming:
            watch.executing = module
        try:
            loader.exec_module(module)
        except BaseException:
            with _claiming:
                watch.executing = None
            raise
        watch.end_of_loading(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _LoadingSpec(ModuleSpec):
    """The spec of a module that is being loaded, for as long as that takes: Python notes in it when it is done."""

    @classmethod
    def take(cls, spec: Any, done: Callable[[], None]) -> None:
        """Call ``done`` when the module of ``spec`` is loaded, or has failed to be."""
        members: dict[str, Any] = spec.__dict__
        before: Any = spec.__class__
        kind: Any = cls if before is ModuleSpec else type(cls.__name__, (cls, before), {})
        members["_openhands_otel_done"] = (before, guarded(done))
        spec.__class__ = kind
        if not members.get("_initializing", False):
            # It was done in the meantime.
            _leave(spec)

    @property
    def _initializing(self) -> bool:
        return self.__dict__.get("_initializing", False)

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        if not value:
            # While it still counts as being loaded: nobody else may use the module before we are done.
            _leave(self)
        self.__dict__["_initializing"] = value


def _leave(spec: Any) -> None:
    left: tuple[Any, Callable[[], None]] | None = spec.__dict__.pop("_openhands_otel_done", None)
    if left is not None:
        spec.__class__, done = left
        done()


_finder = _Finder()


def _renew_lock() -> None:
    """In a forked child: a thread that is gone may have held it."""
    global _claiming
    _claiming = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
