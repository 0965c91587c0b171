"""The module ``os`` as it would be without this package: another ``environ``, and what reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Environ = dict[Any, Any]
else:
    _Environ = type(os.environ)

_PYTHONS_OWN: type[Any] = type(os.environ)
_ENVIRONS = ("environ", "environb")


class CleanEnviron(_Environ):
    """``os.environ`` or ``os.environb`` at this moment without the footprint; what is written goes through.

    It is of Python's own class, so it can all that the original can.
    """

    def __init__(self, real: Any, clean: Mapping[Any, Any]) -> None:
        encoded = {real.encodekey(name): real.encodevalue(value) for name, value in clean.items()}
        initialize: Any = super().__init__
        initialize(encoded, real.encodekey, real.decodekey, real.encodevalue, real.decodevalue)
        self.real = real
        """Where what is written goes."""

    def __setitem__(self, name: Any, value: Any) -> None:
        self.real[name] = value
        encoded: dict[Any, Any] = vars(self)["_data"]
        encoded[self.real.encodekey(name)] = self.real.encodevalue(value)

    def __delitem__(self, name: Any) -> None:
        encoded: dict[Any, Any] = vars(self)["_data"]
        try:
            del encoded[self.real.encodekey(name)]
        except KeyError:
            raise KeyError(name) from None
        self.real.pop(name, None)


class OsView(ModuleType):
    """The module ``os`` with another ``environ``; ``clean`` gives an environment as it would be without us."""

    def __init__(self, clean: Callable[[Mapping[str, str]], dict[str, str]]) -> None:
        super().__init__("os", os.__doc__)
        vars(self).update(_clean=clean, _before={})

    def __getattr__(self, name: str) -> Any:
        if name in _ENVIRONS:
            return self._environ(name)
        if name == "getenv":
            return self._getenv
        if name == "getenvb" and hasattr(os, name):
            return self._getenvb
        return getattr(os, name)

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self)["_before"].setdefault(name, getattr(os, name, None))
        # ``os.environ |= {...}`` assigns what was read.
        setattr(os, name, value.real if isinstance(value, CleanEnviron) else value)

    def __delattr__(self, name: str) -> None:
        # pytest takes back so what it has put into a module that makes its names when they are asked for.
        before = vars(self)["_before"].pop(name, None)
        if before is None:
            delattr(os, name)
        else:
            setattr(os, name, before)

    def __dir__(self) -> list[str]:
        return dir(os)

    def _environ(self, name: str) -> Any:
        real = getattr(os, name)
        clean: dict[str, str] = vars(self)["_clean"](os.environ)
        if not isinstance(real, _PYTHONS_OWN):
            # Somebody's own, in a test say.
            return clean
        if name == "environb":
            return CleanEnviron(real, {os.fsencode(key): os.fsencode(value) for key, value in clean.items()})
        return CleanEnviron(real, clean)

    def _getenv(self, key: str, default: Any = None) -> Any:
        return self._environ("environ").get(key, default)

    def _getenvb(self, key: bytes, default: Any = None) -> Any:
        return self._environ("environb").get(key, default)
